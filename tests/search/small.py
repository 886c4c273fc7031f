"""A study that takes seconds once its workers are there: the tiny world of the training tests, and a task on it."""

import json
from pathlib import Path
from typing import Any

from dft_search.config.document import to_yaml
from dft_search.data.template import render_prompt
from tests.training.tiny import LAYERS, make_rows, make_world

PARTS = ("steer", "select", "test")
SPACE: dict[str, Any] = {
    "objective.conversion.supervision": {"choice": ["logits", "feature", "none"]},
    "objective.conversion.layer": {
        "int": [1, "50%"],
        "when": {"objective.conversion.supervision": ["logits", "feature"]},
    },
    "objective.thinking.supervision": {"choice": ["logits", "none"]},
    "objective.thinking.layer": {
        "int": [1, "100%"],
        "above": "objective.conversion.layer",
        "when": {"objective.thinking.supervision": "logits"},
    },
    "training.optimizer.learning_rate": {"float": [1e-3, 1e-2], "log": True},
}


def write_questions(folder: Path, language: str = "zh") -> Path:
    """Questions about the rows, in three files, one for each part, and the task file, which is returned."""
    side, stem = ("en", "en") if language == "en" else ("tgt", "zh")
    name = "tiny_questions" if language == "zh" else "tiny_english"
    files = {part: folder / (f"{part}.jsonl" if language == "zh" else f"{part}_en.jsonl") for part in PARTS}
    for start, file in zip((0, 8, 16), files.values(), strict=True):
        lines = []
        for row in make_rows()[start : start + 8]:
            right = row[f"{side}_output"].split()[0]
            choices = [right, *(word for word in (f"{stem}{n}" for n in range(1, 5)) if word != right)][:3]
            prompt = render_prompt(row[f"{side}_instruction"], "").text
            lines.append(json.dumps({"id": row["id"], "prompt": prompt, "choices": choices, "answer": 0}))
        file.write_text("\n".join(lines) + "\n")
    task = {
        "task": name,
        "description": "First word of the answer.",
        "language": language,
        "metric": "acc",
        "metrics": ["margin"],
        "parts": {part: {"files": [str(file)]} for part, file in files.items()},
        "harness": {
            "output_type": "multiple_choice",
            "doc_to_text": "prompt",
            "doc_to_choice": "choices",
            "doc_to_target": "answer",
        },
    }
    path = folder / f"{name}.yaml"
    path.write_text(to_yaml(task))
    return path


def study(folder: Path, **changes: Any) -> dict[str, Any]:
    """A study file as plain data; ``changes`` go into its ``study`` section."""
    task = str(folder / "tiny_questions.yaml")
    return {
        "study": {
            "name": "tiny",
            "seed": 3,
            "budget": {"trials": 5},
            "rungs": [0.5],
            "first_points": ["tft"],
            "confirm": {
                "top": 1,
                "seeds": 2,
                "arms": ["tft", "thinking_at_top"],
                "tuning_trials": 1,
            },  # the first point
            "slots": {"workers": 2, "gpus_per_worker": 0, "cpus_per_worker": 1, "max": 1},
            **changes,
        },
        "recipe": {
            "model": {"path": str(folder / "llama"), "dtype": "float32"},
            "data": {
                "train": {"files": [str(folder / "rows.jsonl")]},
                "max_length": 128,
                "target_language": "zh",
            },
            "objective": {"method": "dft", "conversion": {"layer": 1}, "thinking": {"layer": LAYERS - 1}},
            "training": {"length": {"steps": 6}, "batch_rows": 8, "optimizer": {"learning_rate": 3e-3}},
            "scoring": {
                "dev": [{"task": task}],
                "test": [{"task": task}],
                "score": {"mean": ["tiny_questions.margin"]},
            },
        },
        "space": SPACE,
    }


def write_world(folder: Path, **changes: Any) -> Path:
    """Write model, rows, questions and study file; returns the study file."""
    folder.mkdir(parents=True, exist_ok=True)
    make_world(folder)
    write_questions(folder)
    path = folder / "study.yaml"
    path.write_text(to_yaml(study(folder, **changes)))
    return path
