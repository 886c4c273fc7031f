"""Rows made of parallel sentences: translations in both directions, and sentences to be ended."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dft_search.config import Problem, RequestError, expand_path
from dft_search.data.files import open_file
from dft_search.data.row import MadeRow, Row
from dft_search.data.transfer import ParallelFiles
from dft_search.synthesis.draws import drawn, unit
from dft_search.synthesis.names import language_name
from dft_search.synthesis.words import is_solid

KEY = "recipe.data.train.transfer.parallel"
EARLIEST, LATEST = 0.3, 0.7  # part of its words after which a sentence is cut
# the first one is that of x-LLM's tests; its 32 paraphrases are not public, so the others are ours
TRANSLATE = (
    "Translate the following sentences from {source} to {target}.",
    "Give the {target} translation of this {source} text.",
    "How would you say the following in {target}? The text is in {source}.",
    "Render the {source} text below in {target}.",
)
COMPLETE = "Complete the following sentence in {language}:"


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence in both languages, with a name of its own."""

    id: str
    english: str
    target: str


def read_sentences(files: ParallelFiles) -> list[Sentence]:
    """The lines of two text files, without those that are empty on a side.

    Raises:
        RequestError: a file is not there, or they differ in length.
    """
    sides = []
    for name, path in (("english", files.english), ("target", files.target)):
        table = open_file(expand_path(path), key=f"{KEY}.{name}")
        if table.columns != ("text",):
            raise RequestError(Problem("holds rows", file=path, key=f"{KEY}.{name}", expected="a .txt file of lines"))
        sides.append([str(record["text"]).strip() for _, record in table.records])
    if len(sides[0]) != len(sides[1]):
        message = f"has {len(sides[1])} lines, {files.english} has {len(sides[0])}"
        raise RequestError(Problem(message, file=files.target, key=KEY, expected="lines that translate each other"))
    pairs = enumerate(zip(*sides, strict=True), 1)
    return [Sentence(f"line {number}", *pair) for number, pair in pairs if all(pair)]


def questions(rows: Sequence[Row]) -> list[Sentence]:
    """The instructions of parallel rows."""
    return [Sentence(row.id, row.en_instruction, row.tgt_instruction) for row in rows]


def translation_rows(sentences: Sequence[Sentence], count: int, language: str, seed: int) -> list[MadeRow]:
    """``count`` translations, half of them into each language, with instructions drawn from ``TRANSLATE``."""
    names = [sentence.id for sentence in sentences]
    made = []
    for number, (turn, place) in enumerate(drawn(names, count, seed, "translation")):
        sentence = sentences[place]
        sides = [("English", sentence.english), (language_name(language), sentence.target)]
        (source, given), (target, output) = sides if number % 2 == 0 else sides[::-1]
        template = TRANSLATE[int(unit(seed, "instruction", sentence.id, turn) * len(TRANSLATE))]
        instruction = template.format(source=source, target=target)
        made.append(_made(sentence, "translation", turn, seed, (instruction, given, output)))
    return made


def completion_rows(sentences: Sequence[Sentence], count: int, language: str, seed: int) -> list[MadeRow]:
    """``count`` sentences of the target language, cut at random: the head is the question, the tail the answer."""
    long = [sentence for sentence in sentences if cut_places(sentence.target)]
    made = []
    for turn, place in drawn([sentence.id for sentence in long], count, seed, "completion"):
        sentence = long[place]
        head, tail = cut_sentence(sentence.target, unit(seed, "cut", sentence.id, turn))
        instruction = COMPLETE.format(language=language_name(language))
        made.append(_made(sentence, "completion", turn, seed, (instruction, head, tail)))
    return made


def cut_places(text: str) -> list[int]:
    """Where a sentence may be cut: before a word (a character, in scripts without spaces) in its middle part."""
    starts = range(len(text)) if is_solid(text) else [match.start() for match in re.finditer(r"\S+", text)]
    return [start for number, start in enumerate(starts) if number and EARLIEST <= number / len(starts) <= LATEST]


def cut_sentence(text: str, place: float) -> tuple[str, str]:
    """Head and tail of a sentence, cut at one of ``cut_places``, which ``place`` in [0, 1) chooses."""
    places = cut_places(text)
    cut = places[int(place * len(places))]
    return text[:cut].rstrip(), text[cut:]


def _made(sentence: Sentence, kind: str, turn: int, seed: int, texts: tuple[str, str, str]) -> MadeRow:
    instruction, given, output = texts
    name = f"{sentence.id}/{kind}" + (f"/{turn + 1}" if turn else "")
    return MadeRow(
        id=name, tgt_instruction=instruction, tgt_input=given, tgt_output=output, kind=kind, seed=seed
    )  # fmt: skip
