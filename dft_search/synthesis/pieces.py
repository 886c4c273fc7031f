"""Texts cut into what a translation model can read, and put together again.

Such models are trained on sentences: they drop line breaks and lose their way in long paragraphs. So a text is
translated line by line, a long line by groups of sentences; indents, list marks and lines without letters are kept.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

LONGEST = 400  # characters of one piece, unless a sentence is longer

_MARK = re.compile(r"\s*(?:(?:[-*•#>]+|\(?\d{1,3}[.)]|[A-Za-z][.)])\s+)*")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[\"'(A-Z0-9])")
_UNSPACED = re.compile(r"[\u3000-\u9fff\uff00-\uffef\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]$")  # no spaces after it


@dataclass(frozen=True)
class Line:
    """One line: what is kept before and after it, and its pieces in order."""

    before: str
    pieces: tuple[str, ...]
    after: str


def cut(text: str) -> list[Line]:
    """The lines of a text."""
    return [_line(line) for line in text.split("\n")]


def join(lines: list[Line], translations: Mapping[str, str]) -> str:
    """The text again, each piece replaced by its translation."""
    return "\n".join(line.before + _joined([translations[piece] for piece in line.pieces]) + line.after
                     for line in lines)  # fmt: skip


def _line(line: str) -> Line:
    if not any(character.isalpha() for character in line):
        return Line(line, (), "")
    mark = _MARK.match(line)
    before = mark.group() if mark else ""
    rest = line[len(before) :]
    if not any(character.isalpha() for character in rest):  # the mark took all: "A. " alone
        return Line(line, (), "")
    body = rest.rstrip()
    return Line(before, tuple(_pieces(body)), rest[len(body) :])


def _pieces(text: str) -> list[str]:
    pieces: list[str] = []
    for sentence in _SENTENCE_END.split(text) if len(text) > LONGEST else [text]:
        if pieces and len(pieces[-1]) + len(sentence) < LONGEST:
            pieces[-1] += " " + sentence
        else:
            pieces.append(sentence)
    return pieces


def _joined(parts: list[str]) -> str:
    text = ""
    for part in parts:
        text += part if not text or _UNSPACED.search(text) else " " + part
    return text
