"""What is wrong with parallel rows: one finding for every fault of a row, for ``data check``."""

import math
import re
import statistics
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from dft_search.data.language import certainly_not, knows
from dft_search.data.overlap import words
from dft_search.data.row import Row
from dft_search.data.template import INPUT, RESPONSE

SHORT = 40  # characters below which lengths and repetitions say nothing
DEVIATIONS = 6.0  # robust deviations of the logarithm of a length ratio
FACTOR = 3.0  # and at least so many times the usual ratio
COPIED = 30  # characters of an instruction that an answer begins with
REPEATED = 3  # rows with the same long sentence on the target side and different English

KINDS = {
    "empty": "an instruction or output is empty",
    "untranslated": "the target side is English",
    "wrong_language": "a side is in another language",
    "length_ratio": "one side is much longer than translation makes it",
    "digits": "the sides name different numbers",
    "duplicate": "the row is in the data already",
    "prompt_leak": "text of a prompt is where it does not belong",
    "broken_text": "characters were lost or are none",
    "eval_item": "an evaluation item is among the training rows",
}

_HEADERS = ("### instruction", "### input", "### response", INPUT.strip().lower(), RESPONSE.strip().lower())
_NUMBER = re.compile(r"\d+(?:[.,'\u060c\u066b\u066c]\d+)*")  # with what sets decimals and thousands apart
_SENTENCE = re.compile(r"[^.!?。！？؟\n]+")
# lost or control characters, and UTF-8 that was read as Latin-1
_BROKEN = re.compile("[\ufffd\u0000-\u0008\u000b\u000c\u000e-\u001f]|[\u00c3\u00e2][\u0080-\u00bf]")


@dataclass(frozen=True)
class Finding:
    """One fault of one row.

    Attributes:
        kind: a key of ``KINDS``.
        row: number of the row, from 0.
        id: of the row.
        message: what was found, in one line.
    """

    kind: str
    row: int
    id: str
    message: str


def check_rows(rows: Sequence[Row], language: str) -> list[Finding]:
    """All findings, in the order of the rows. Rows with one side alone are checked for what that side can show.

    Args:
        language: code of the target side's language.
    """
    checks: list[Callable[[Row], str | tuple[str, str] | None]] = [_empty, _leak, _broken, _digits]
    names = ["empty", "prompt_leak", "broken_text", "digits"]
    found = []
    for number, row in enumerate(rows):
        for name, check in zip(names, checks, strict=True):
            message = check(row)
            if isinstance(message, str):
                found.append(Finding(name, number, row.id, message))
        found += [Finding(kind, number, row.id, message) for kind, message in _language(row, language)]
    found += [*_lengths(rows), *_duplicates(rows), *_repeated(rows)]
    return sorted(found, key=lambda finding: (finding.row, finding.kind))


def _empty(row: Row) -> str | None:
    sides = [side for side in ("en", "tgt") if any(_parts(row, side))]
    missing = [f"{side}_{part}" for side in sides for part in ("instruction", "output") if not _text(row, side, part)]
    return f"{', '.join(missing)} empty" if missing or not sides else None


def _leak(row: Row) -> str | None:
    """Template text inside of a field, or an answer that begins with its question."""
    for side in ("en", "tgt"):
        for part, text in zip(("instruction", "input", "output"), _parts(row, side), strict=True):
            header = next((header for header in _HEADERS if header in text.lower()), None)
            if header is not None:
                return f"{side}_{part} holds '{header}'"
        instruction, output = _text(row, side, "instruction"), _text(row, side, "output")
        if len(instruction) >= COPIED and output.startswith(instruction) and output != instruction:
            other = {"en": "tgt", "tgt": "en"}[side]
            if not _text(row, other, "output").startswith(_text(row, other, "instruction")):
                return f"{side}_output begins with the instruction"
    return None


def _broken(row: Row) -> str | None:
    for side in ("en", "tgt"):
        for part, text in zip(("instruction", "input", "output"), _parts(row, side), strict=True):
            match = _BROKEN.search(text)
            if match:
                return f"{side}_{part}: {match.group().encode('unicode_escape').decode()} in '{_around(text, match)}'"
    return None


def _digits(row: Row) -> str | None:
    """Numbers that each side has and the other lacks; what one side alone has may be spelled out on the other.

    Sides with the same digits in all may set them apart in other ways, unless number by number has the same length.
    """
    for parts in (("instruction", "input"), ("output",)):
        texts = [" ".join(_text(row, side, part) for part in parts) for side in ("en", "tgt")]
        sides = [Counter(_numbers(text)) for text in texts]
        english, target = sorted(sides[0] - sides[1]), sorted(sides[1] - sides[0])
        regrouped = Counter("".join(sides[0].elements())) == Counter("".join(sides[1].elements()))
        if english and target and not (regrouped and sorted(map(len, english)) != sorted(map(len, target))):
            return f"{'/'.join(parts)}: {', '.join(english)} against {', '.join(target)}"
    return None


def _numbers(text: str) -> Iterator[str]:
    """Significant digits of numbers of two digits and more: 1.2 million and 120 times ten thousand are the same."""
    plain = "".join(str(unicodedata.digit(c)) if c.isdigit() else c for c in unicodedata.normalize("NFKC", text))
    for number in _NUMBER.findall(plain):
        digits = re.sub(r"\D", "", number)
        if len(digits) >= 2:
            yield digits.strip("0") or "0"


def _language(row: Row, language: str) -> Iterator[tuple[str, str]]:
    """Both sides as wholes, and the target output alone: it is what the model learns to write."""
    english, target = " ".join(_parts(row, "en")), " ".join(_parts(row, "tgt"))
    if target.strip() and knows(language):
        for text, what in ((target, "the target side"), (_text(row, "tgt", "output"), "tgt_output")):
            same = text == _text(row, "en", "output") or text == english
            other = certainly_not(text, language)
            if other == "en" and language != "en" and (same or _latin(text)):
                yield "untranslated", f"{what} is English: '{_short(text)}'"
                break
            if other is not None and other != "en":
                yield "wrong_language", f"{what} is in {other}, not {language}: '{_short(text)}'"
                break
    other = certainly_not(english, "en") if english.strip() else None
    if other is not None:
        yield "wrong_language", f"the English side is in {other}: '{_short(english)}'"


def _latin(text: str) -> bool:
    """Whether nearly all letters are Latin ones without marks, as English is written."""
    letters = [character for character in text if character.isalpha()]
    return sum(character.isascii() for character in letters) >= 0.95 * len(letters)


def _lengths(rows: Sequence[Row]) -> Iterator[Finding]:
    """Ratios of characters, target to English, far from what is usual in these rows. Texts of signs have no usual."""
    for parts in (("instruction", "input"), ("output",)):
        ratios = {}
        for number, row in enumerate(rows):
            texts = [" ".join(_text(row, side, part) for part in parts) for side in ("en", "tgt")]
            english, target = map(len, texts)
            if all(map(_is_words, texts)) and max(english, target) >= SHORT:
                ratios[number] = math.log(target / english)
        if len(ratios) < 20:  # too few to tell what is usual
            continue
        usual = statistics.median(ratios.values())
        spread = statistics.median(abs(ratio - usual) for ratio in ratios.values()) * 1.4826
        for number, ratio in ratios.items():
            away = abs(ratio - usual)
            if away > DEVIATIONS * max(spread, 0.05) and away > math.log(FACTOR):
                times = f"{math.exp(ratio):.2f} characters to one, usual is {math.exp(usual):.2f}"
                yield Finding("length_ratio", number, rows[number].id, f"{'/'.join(parts)}: {times}")


def _is_words(text: str) -> bool:
    """Whether a text is mostly letters (with the marks that some scripts put on them), and not signs or digits."""
    letters = sum(unicodedata.category(character)[0] in "LM" for character in text)
    return letters > 0.5 * len(text.replace(" ", ""))


def _duplicates(rows: Sequence[Row]) -> Iterator[Finding]:
    """Rows whose prompt, on either side, was there before."""
    seen: dict[tuple[str, tuple[str, ...]], int] = {}
    for number, row in enumerate(rows):
        for side in ("en", "tgt"):
            key = (side, tuple(words(" ".join(_text(row, side, part) for part in ("instruction", "input")))))
            first = seen.setdefault(key, number) if key[1] else number
            if first != number:
                yield Finding("duplicate", number, row.id, f"{side} prompt of row {first} (id {rows[first].id})")
                break


def _repeated(rows: Sequence[Row]) -> Iterator[Finding]:
    """Long target sentences that stand in many rows whose English has nothing to do with each other."""
    homes: dict[str, set[int]] = defaultdict(set)
    english: dict[str, set[int]] = defaultdict(set)
    for number, row in enumerate(rows):
        for side, places in (("tgt", homes), ("en", english)):
            for text in _parts(row, side):
                for sentence in _SENTENCE.findall(text):
                    if len(sentence.strip()) >= SHORT:
                        places[sentence.strip()].add(number)
    repeated_english = {number for numbers in english.values() if len(numbers) >= REPEATED for number in numbers}
    told: set[int] = set()
    for sentence, numbers in homes.items():
        if len(numbers - repeated_english) >= REPEATED:
            for number in sorted(numbers - repeated_english - told):
                told.add(number)
                message = f"stands in {len(numbers)} rows: '{_short(sentence)}'"
                yield Finding("prompt_leak", number, rows[number].id, message)


def _parts(row: Row, side: str) -> tuple[str, str, str]:
    return _text(row, side, "instruction"), _text(row, side, "input"), _text(row, side, "output")


def _text(row: Row, side: str, part: str) -> str:
    return str(getattr(row, f"{side}_{part}")).strip()


def _around(text: str, match: re.Match[str]) -> str:
    return _short(text[max(0, match.start() - 20) :])


def _short(text: str, length: int = 48) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[:length] + "…"
