"""The README's example: the exported objective in transformers' Trainer minimizes what our own training does."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainingArguments

from dft_search.bundle.read import Bundle, read_bundle
from dft_search.bundle.write import export
from dft_search.data.order import RowOrder
from dft_search.training.seeds import derive

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
def example(study: Path, trained_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run the block between the markers, in a folder with the bundle; what it defined."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DFT_SEARCH_FILES", str(trained_world))
    export(study, tmp_path / "winner")
    (part,) = re.findall(r"<!-- drop-in -->\n(.*?)<!-- /drop-in -->", README.read_text(), re.DOTALL)
    (block,) = re.findall(r"^```python\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)
    code = [line for line in block.splitlines() if line and not line.startswith(("import", "from"))]
    assert len(code) <= 10
    names: dict[str, Any] = {}
    block = block.replace("meta-llama/Llama-2-7b-hf", str(trained_world / "llama"))
    exec(compile(block, "README.md", "exec"), names)
    return names


def first_batch(bundle: Bundle) -> list[dict[str, str]]:
    """The rows that our own training read in its first step."""
    rows = bundle.rows()
    order = RowOrder(len(rows), bundle.recipe.training.batch_rows, derive(bundle.seed, "order"))
    return [rows[index] for index in order.batch(0)]


def test_it_runs_and_its_losses_are_ours(example: dict[str, Any], trained_world: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    fresh = AutoModelForCausalLM.from_pretrained(trained_world / "llama")
    moved = [name for name, p in example["model"].named_parameters() if not torch.equal(p, fresh.get_parameter(name))]
    assert len(moved) > 5  # three epochs were trained
    bundle = read_bundle(tmp_path / "winner")
    seen: list[float] = []

    class Recorder(example["DeepTrainer"]):  # type: ignore[misc]
        def compute_loss(self, *args: Any, **options: Any) -> torch.Tensor:
            loss = super().compute_loss(*args, **options)
            seen.append(float(loss.detach()))
            return loss

    options = TrainingArguments(
        str(tmp_path / "again"), remove_unused_columns=False, per_device_train_batch_size=8, max_steps=1, use_cpu=True
    )
    rows = first_batch(bundle)
    assert len(rows) == 8
    Recorder(fresh, options, train_dataset=rows, data_collator=lambda batch: {"rows": batch}).train()
    expected = bundle.bundle.steps[0].losses["total"]
    assert len(seen) == 1 and abs(seen[0] / expected - 1) < 1e-5
