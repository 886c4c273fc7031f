"""The base model: shipped as recorded, rebuilt bit for bit, and knowing what it should."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from dft_search.config import expand_path
from dft_search.demo.build import build, environment
from dft_search.demo.pretrain import Pretraining
from dft_search.demo.probe import accuracy
from dft_search.demo.questions import Question
from dft_search.models.loading import layer_count, load_model, load_tokenizer
from dft_search.models.options import ModelOptions

DEMO = Path(expand_path("package:demo"))
OPTIONS = ModelOptions(path="package:demo/base", dtype="float32")


@pytest.fixture(scope="module")
def about() -> dict[str, Any]:
    return json.loads((DEMO / "world.json").read_text(encoding="utf-8"))


def test_shipped_files_are_those_that_were_built(about: dict[str, Any]):
    found = {name: hashlib.sha256((DEMO / name).read_bytes()).hexdigest() for name in about["sha256"]}
    assert found == about["sha256"]


def test_size(about: dict[str, Any]):
    assert layer_count(OPTIONS) == 6
    assert about["parameters"] < 400_000
    assert sum((DEMO / name).stat().st_size for name in about["sha256"]) < 2_500_000


def test_knows_english_and_half_reads_tovan(about: dict[str, Any]):
    model, tokenizer = load_model(OPTIONS), load_tokenizer(OPTIONS)
    found = {
        name: accuracy(model, tokenizer, _questions(name))
        for name in ("questions_dev", "questions_test", "questions_en_dev", "questions_en_test")
    }
    assert found == pytest.approx(about["accuracy"], abs=0.01)
    assert min(found["questions_en_dev"], found["questions_en_test"]) > 0.95
    assert 0.1 < found["questions_dev"] < 0.4
    assert 0.1 < found["questions_test"] < 0.4


def test_building_twice_gives_the_same_bytes(tmp_path: Path):
    short = Pretraining(steps=8, batch=16)
    told: list[str] = []
    built = [build(2, tmp_path / name, short, told.append) for name in ("a", "b")]
    assert built[0] == built[1]
    assert built[0]["sha256"].keys() >= {"base/model.safetensors", "base/tokenizer.json", "train.jsonl"}
    assert len(told) == 4  # first and last step of each


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_shipped_model_is_rebuilt_bit_for_bit(tmp_path: Path, about: dict[str, Any]):
    if environment() != about["built_with"]:
        pytest.skip(f"bits are promised on {about['built_with']} only, this is {environment()}")
    assert build(0, tmp_path) == about


def _questions(name: str) -> list[Question]:
    return [json.loads(line) for line in (DEMO / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
