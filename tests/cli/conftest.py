"""A small valid study on disk, for tests of the command line: a model's config, rows, a task."""

import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

LAYERS = 4


@pytest.fixture
def study(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The content of a valid study file; the current directory holds what it names. No weights: nothing is trained."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": LAYERS}
    config |= {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "vocab_size": 64}
    for folder, content in (("model", json.dumps(config)), ("broken-model", "{"), ("gpt", '{"model_type": "gpt2"}')):
        Path(folder).mkdir()
        Path(folder, "config.json").write_text(content)
    Path("empty-model").mkdir()
    names = ("en_instruction", "en_input", "en_output", "tgt_instruction", "tgt_input", "tgt_output")
    rows = [{"id": f"r{n}", **{name: f"{name} {n}" for name in names}} for n in range(8)]
    _write_lines("rows.jsonl", rows)
    _write_lines("empty.jsonl", [{**row, "tgt_output": ""} for row in rows])
    _write_lines("no-target.jsonl", [{key: row[key] for key in row if not key.startswith("tgt")} for row in rows])
    Path("broken.jsonl").write_text(json.dumps(rows[0]) + '\n{"id": \n')
    Path("rows.csv").write_text("a,b\n")
    alpaca = [{"instruction": "a", "input": "", "output": "b"}]
    Path("en.json").write_text(json.dumps(alpaca * 3))
    Path("zh.json").write_text(json.dumps(alpaca * 2))
    items = [{"id": f"q{n}", "question": f"{n} + 1 =", "choices": ["1", "2"], "label": n % 2} for n in range(24)]
    _write_lines("items.jsonl", items[:16])
    _write_lines("test_items.jsonl", items[16:])
    YAML(typ="safe").dump(TASK, Path("sums.yaml"))
    return {
        "study": {"name": "tiny", "slots": {"workers": 1, "gpus_per_worker": 0, "cpus_per_worker": 1}},
        "recipe": {
            "model": {"path": "model", "dtype": "float32"},
            "data": {"train": {"files": ["rows.jsonl"]}, "target_language": "zh"},
            "objective": {"conversion": {"layer": 1}, "thinking": {"layer": 2}},
            "training": {"length": {"steps": 4}, "batch_rows": 4},
            "scoring": {"dev": [{"task": "sums.yaml"}], "score": {"mean": ["sums"]}},
        },
        "space": {
            "objective.conversion.layer": {"int": [1, "50%"]},
            "objective.thinking.layer": {"int": [1, "100%"], "above": "objective.conversion.layer"},
            "training.optimizer.learning_rate": {"float": [1e-5, 1e-3], "log": True},
        },
    }


TASK = {
    "task": "sums",
    "description": "Sums.",
    "language": "zh",
    "metric": "acc",
    "parts": {
        "steer": {"files": ["items.jsonl"], "items": "1/2"},
        "select": {"files": ["items.jsonl"], "items": "2/2"},
        "test": {"files": ["test_items.jsonl"]},
    },
    "harness": {
        "output_type": "multiple_choice",
        "doc_to_text": "question",
        "doc_to_choice": "choices",
        "doc_to_target": "label",
    },
}


def _write_lines(path: str, rows: list[dict[str, Any]]) -> None:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))
