"""The prompts of a comparison and the answers that others gave to them, from files."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dft_search.config import Document, Problem, RequestError, nearest
from dft_search.data.template import render_prompt, render_query
from dft_search.evaluation.items import read_rows
from dft_search.evaluation.judge.options import JudgeFile, Judgements, Opponent


@dataclass(frozen=True)
class Prompt:
    """One instruction.

    Attributes:
        id: of the file.
        text: as the models read it.
        query: as the judge reads it.
    """

    id: str
    text: str
    query: str


def read_prompts(options: JudgeFile, document: Document) -> list[Prompt]:
    """The prompts of a judge file.

    Raises:
        RequestError: the file is missing or broken, a column is missing or empty, or an id occurs twice.
    """
    chosen = options.prompts
    prompts: dict[str, Prompt] = {}
    for row in read_rows(chosen.file, document):
        identity, instruction = _text(row, chosen.id, chosen.file), _text(row, chosen.instruction, chosen.file)
        given = "" if chosen.input is None else str(row.get(chosen.input) or "")
        text = render_prompt(instruction, given).text if options.template == "alpaca" else instruction
        if identity in prompts:
            raise RequestError(Problem(f"id '{identity}' occurs twice", file=chosen.file))
        prompts[identity] = Prompt(identity, text, render_query(instruction, given))
        if len(prompts) == chosen.limit:
            break
    if not prompts:
        raise RequestError(Problem("holds no prompts", file=chosen.file))
    return list(prompts.values())


def read_answers(opponent: Opponent, prompts: Sequence[Prompt], document: Document) -> list[str]:
    """The opponent's answers from its file, one for each prompt. Raises RequestError when one is missing."""
    assert opponent.file is not None
    answers = {
        _text(row, opponent.id, opponent.file): str(_column(row, opponent.answer, opponent.file))
        for row in read_rows(opponent.file, document)
    }
    missing = [prompt.id for prompt in prompts if prompt.id not in answers]
    if missing:
        message = f"{len(missing)} of {len(prompts)} prompts have no answer, such as '{missing[0]}'"
        raise RequestError(Problem(message, file=opponent.file, key="opponent.file"))
    return [answers[prompt.id] for prompt in prompts]


def read_judgements(options: Judgements, document: Document) -> dict[str, Any]:
    """Judgements of a file by the prompt's id; their values are not checked. Raises RequestError."""
    rows = read_rows(options.path, document)
    return {_text(row, options.id, options.path): row.get(options.preference) for row in rows}


def write_answers(prompts: Sequence[Prompt], answers: Sequence[str], generator: str) -> str:
    """JSONL of answers, which an ``opponent.file`` can be."""
    rows = (
        {"id": prompt.id, "instruction": prompt.query, "output": answer, "generator": generator}
        for prompt, answer in zip(prompts, answers, strict=True)
    )
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _column(row: dict[str, Any], name: str, file: str) -> Any:
    if name not in row:
        raise RequestError(Problem(f"a row has no column '{name}'", file=file, nearest=nearest(name, row)))
    return row[name]


def _text(row: dict[str, Any], name: str, file: str) -> str:
    value = _column(row, name, file)
    text = "" if value is None else str(value)
    if not text.strip():
        raise RequestError(Problem(f"column '{name}' of a row is empty", file=str(Path(file))))
    return text
