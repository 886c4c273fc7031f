"""Builds a demo world with its base model: `python -m dft_search.demo.build --world-seed 0 --out DIR`.

The files in this package are world 0. The same seed gives the same bytes on the same machine with the same versions of
torch and transformers; on another processor the weights may differ in their last bits, the other files do not.
"""

import argparse
import hashlib
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers

from dft_search.demo.pretrain import Pretraining, pretrain
from dft_search.demo.probe import accuracy
from dft_search.demo.questions import english_questions, tovan_questions, train_rows
from dft_search.demo.tokenizer import make_tokenizer
from dft_search.demo.world import World, make_world


def build(
    world_seed: int, out: Path, options: Pretraining | None = None, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Writes train.jsonl, questions_*.jsonl, base/ and world.json into `out`; returns what world.json holds."""
    world = make_world(world_seed)
    out.mkdir(parents=True, exist_ok=True)
    records = world_records(world)
    for name, lines in records.items():
        write_lines(out / name, lines)
    tokenizer = make_tokenizer(world.words())
    model = pretrain(world, tokenizer, options or Pretraining(), partial(_tell, say))
    tokenizer.save_pretrained(out / "base")
    model.save_pretrained(out / "base")
    names = sorted([*records, *(f"base/{path.name}" for path in (out / "base").iterdir())])
    about = {
        "world_seed": world_seed,
        "built_with": environment(),
        "parameters": model.num_parameters(),
        "accuracy": {
            name.removesuffix(".jsonl"): round(accuracy(model, tokenizer, lines), 4)
            for name, lines in records.items()
            if name.startswith("questions")
        },
        "sha256": {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in names},
    }
    (out / "world.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    return about


def world_records(world: World) -> dict[str, Sequence[Mapping[str, Any]]]:
    """The records of every file that needs no model, by file name."""
    return {
        "train.jsonl": train_rows(world),
        "questions_dev.jsonl": tovan_questions(world, "dev"),
        "questions_test.jsonl": tovan_questions(world, "test"),
        "questions_en_dev.jsonl": english_questions(world, "dev"),
        "questions_en_test.jsonl": english_questions(world, "test"),
    }


def write_lines(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def environment() -> dict[str, str]:
    """What the weights' last bits depend on."""
    return {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
        "machine": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def _tell(say: Callable[[str], None], step: int, loss: float, seconds: float) -> None:
    say(f"step {step:5d}  loss {loss:.3f}  {seconds:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m dft_search.demo.build", description=__doc__.splitlines()[0])
    parser.add_argument("--world-seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder to write (default: demo-world-SEED)")
    arguments = parser.parse_args()
    out = arguments.out or Path(f"demo-world-{arguments.world_seed}")
    about = build(arguments.world_seed, out)
    print(f"{out}: {about['parameters']:,} parameters; right answers of the base model: {about['accuracy']}")


if __name__ == "__main__":
    main()
