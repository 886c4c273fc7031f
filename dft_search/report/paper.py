"""The DFT paper's numbers beside ours, where a study's model and target language are the paper's."""

import csv
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Any

from dft_search.objectives.layers import paper_layers
from dft_search.report.collect import StudyView
from dft_search.report.supervision import PAIR, combination

SOURCE = "DFT paper (arXiv 2503.01275), Tables 1 to 4"
MODELS = {"llama-2-7b": r"llama-?2-7b(-hf)?", "gemma-2-2b": r"gemma-2-2b"}
# the paper's task -> our tasks that ask and score the same, and what one of their units is in the paper's
TASKS = {
    "xquad": (("xquad_{language}", "xquad_hub_{language}"), 100.0),
    "mlqa": (("mlqa_{language}",), 100.0),
    "truthfulqa": (("truthfulqa_{language}",), 100.0),
    "mkqa": (("mkqa_full_{language}",), 100.0),
    "xnli": (("xnli_{language}",), 100.0),
    "xcopa": (("xcopa_{language}", "xcopa_hub_{language}"), 100.0),
    "xstorycloze": (("xstorycloze_{language}",), 100.0),
    "mmlu": (("m_mmlu_{language}",), 100.0),
    "flores_en-zh": (("flores200_comet_en-zh",), 1.0),
    "flores_zh-en": (("flores200_comet_zh-en",), 1.0),
}
NAMED = "llama-2-7b"  # the model of which the paper tells its layers
_Key = tuple[str, str, str]


def paper_numbers(view: StudyView, supervision: Mapping[str, Any]) -> dict[str, Any] | None:
    """The paper's rows for this model and language, on the tasks that the study has, with ours of the same method.

    Ours are those of a confirmed arm, on test (that with the paper's layers, else the champion or another one); else
    the best trial of the search, on dev. Where the paper names its layers, only what has the same ones stands beside
    its numbers. Terms that the paper does not know make another method.

    Args:
        supervision: the study's supervision table.

    Returns:
        ``{source, model, language, layers: {term: layer}, tasks: {the paper's: ours}, rows: [{method, conversion,
        thinking, paper: {task: value}, ours: {task: {mean, error}}, layers, part, arm, trial}]}``, all values times
        100; ``layers`` is empty where the paper names none. None where model, language or tasks are not the paper's.
    """
    model, language = paper_model(view.model), _language(view.language)
    known = [row for row in _read() if row["model"] == model and row["language"] == language]
    asked = {column["name"] for column in supervision["columns"]}
    tasks = {task: found for task in dict.fromkeys(row["task"] for row in known) if (found := _ours(task, view, asked))}
    if not tasks:
        return None
    rows: dict[_Key, dict[str, float]] = {}
    for row in known:
        if row["task"] in tasks:
            key = (row["method"], row["conversion"], row["thinking"])
            rows.setdefault(key, {})[row["task"]] = float(row["value"])
    champion = ((view.confirmation or {}).get("champion") or {}).get("arm")
    layers = dict(zip(PAIR, paper_layers(view.num_layers), strict=True)) if model == NAMED and view.num_layers else {}
    told = []
    for key, values in rows.items():
        method, conversion, thinking = key
        on = {term: layers[term] for term, kind in zip(PAIR, key[1:], strict=True) if kind != "none" and layers}
        ours = _ours_of(key, on, view, supervision, champion)
        ours["ours"] = _times_100(ours.pop("cells"), tasks)
        told.append({"method": method, "conversion": conversion, "thinking": thinking, "paper": values, **ours})
    return {"source": SOURCE, "model": model, "language": language, "layers": layers, "tasks": tasks, "rows": told}


def paper_model(path: str | None) -> str | None:
    """Which of the paper's models a path or hub name is; None for any other, chat models among them."""
    parts = [re.sub(r"^models--.*--", "", part) for part in PurePosixPath(str(path or "").lower()).parts]
    return next((name for name, pattern in MODELS.items() if any(re.fullmatch(pattern, part) for part in parts)), None)


def _language(code: str | None) -> str:
    return re.split(r"[-_]", code or "")[0].lower()


def _read() -> list[dict[str, str]]:
    lines = (files("dft_search.report") / "dft_paper.csv").read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def _ours(task: str, view: StudyView, asked: set[str]) -> str | None:
    """Our task that stands for one of the paper's, if the study has it."""
    names = [name.format(language=_language(view.language)) for name in TASKS[task][0]]
    return next((name for name in names if name in asked), None)


def _ours_of(
    key: _Key, layers: Mapping[str, int], view: StudyView, supervision: Mapping[str, Any], champion: str | None
) -> dict[str, Any]:
    """What stands beside a row of the paper, ``{cells, layers, part, arm, trial}``; ``layers`` are those that it must
    have."""
    tested = [row for group in supervision["groups"] if group["part"] == "test" for row in group["rows"]]
    found = [row for row in tested if _same(row, key) and _has(row["layers"], layers)]
    if found:
        best = min(found, key=lambda row: _preference(row["arm"], champion))
        return {name: best[name] for name in ("cells", "layers", "arm", "trial")} | {"part": "test"}
    for trial in view.ranked:
        own = {term: trial.terms[term]["layer"] for term in PAIR if term in trial.terms}
        if combination(trial) == (*key, ()) and _has(own, layers):
            cells = {name: {"mean": score.value, "error": score.stderr} for name, score in trial.dev.items()}
            return {"cells": cells, "layers": own, "part": "dev", "arm": None, "trial": trial.number}
    return {"cells": {}, "layers": {}, "part": None, "arm": None, "trial": None}


def _times_100(cells: Mapping[str, Any], tasks: Mapping[str, str]) -> dict[str, Any]:
    """By the paper's task the score on ours, in the paper's unit."""
    found = {}
    for task, name in tasks.items():
        if (cell := cells.get(name)) is not None:
            unit, error = TASKS[task][1], cell["error"]
            found[task] = {"mean": unit * cell["mean"], "error": None if error is None else unit * error}
    return found


def _same(row: Mapping[str, Any], key: _Key) -> bool:
    return (row["method"], row["conversion"], row["thinking"]) == key and not row["others"]


def _has(found: Mapping[str, int], layers: Mapping[str, int]) -> bool:
    return all(found.get(term) == layer for term, layer in layers.items())


def _preference(arm: str | None, champion: str | None) -> tuple[int, str]:
    """Which of several arms of one method stands for it: never the one with the best score on test."""
    order = ("paper", "sft", "tft", champion)
    return (order.index(arm) if arm in order else len(order)), arm or ""
