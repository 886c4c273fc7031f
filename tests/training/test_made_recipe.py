"""A recipe with a transfer set: what is in its hash, which paths it names, what is shown before a teacher answers."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dft_search.bundle.portable import portable
from dft_search.config import RequestError, build, parse_document
from dft_search.config.shipped import shipped_study
from dft_search.data.encode import encode_rows
from dft_search.data.show import examples
from dft_search.models.loading import load_tokenizer
from dft_search.training.recipe import Recipe, load_recipe
from dft_search.training.rows import describe_making, training_rows

TRAIN = "recipe.data.train"


def recipe(method: str = "sdrrl", **train: Any) -> Recipe:
    plain = {
        "model": {"path": "package:demo/base", "dtype": "float32"},
        "data": {"train": {"files": ["package:demo/train.jsonl"], **train}, "target_language": "qaa", "max_length": 64},
        "objective": {"method": method},
    }
    return build(Recipe, parse_document(json.dumps({"recipe": plain}), "made"), ("recipe",))


def test_a_transfer_set_is_part_of_the_recipes_that_make_rows() -> None:
    options: list[dict[str, Any]] = [
        {"preset": "sdrrl_dft_baseline"}, {"kinds": {"completion": 0.3}}, {"teacher": "base"}, {"fallback": "drop"},
        {"max_new_tokens": 9}, {"codeswitch": {"words": 0.4}}, {"seed": 1}, {"teacher_training": {"epochs": 1.0}},
    ]  # fmt: skip
    changed = [recipe(transfer=one) for one in options]
    assert len({one.hash for one in [recipe(), *changed]}) == 1 + len(options)
    assert {recipe("tft", transfer=one).hash for one in options} == {recipe("tft").hash}
    assert "transfer" in recipe().written()["data"]["train"]
    assert "transfer" not in recipe("tft").written()["data"]["train"]
    assert "transfer" not in recipe("tft").canonical()["data"]["train"]
    assert recipe("tft", rows=20).hash != recipe("tft").hash
    assert recipe().hash != recipe("tft").hash


def test_paths_of_a_transfer_set_are_those_of_its_file(tmp_path: Path) -> None:
    transfer = {
        "teacher": "./teacher", "codeswitch": {"lexicon": "words.tsv"}, "answers_target": "answers.jsonl",
        "parallel": {"english": "en.txt", "target": "${LINES}/zh.txt"},
    }  # fmt: skip
    found = recipe(transfer=transfer).anchored(tmp_path)
    options = found.data.train.transfer
    assert (options.teacher, options.codeswitch.lexicon) == (f"{tmp_path}/teacher", f"{tmp_path}/words.tsv")
    assert options.answers_target == f"{tmp_path}/answers.jsonl"
    assert options.parallel is not None and options.parallel.english == f"{tmp_path}/en.txt"
    assert options.parallel.target == "${LINES}/zh.txt"
    plain = recipe().anchored(tmp_path).data.train.transfer
    assert (plain.teacher, plain.codeswitch.lexicon, plain.answers_target) == ("sft", "aligner", "aligned")
    (tmp_path / "models").mkdir()
    assert recipe(transfer={"teacher": "models"}).anchored(tmp_path).data.train.transfer.teacher == f"{tmp_path}/models"
    hub = {"teacher": "org/teacher", "answers_target": {"translator": "org/translator"}}
    named = recipe(transfer=hub).anchored(tmp_path).data.train.transfer
    assert named.teacher == "org/teacher" and named.translator is not None
    assert named.translator.translator == "org/translator"


def test_a_bundle_names_no_paths_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINES", str(tmp_path))
    found = recipe(transfer={"codeswitch": {"lexicon": "words.tsv"}}).anchored(tmp_path)
    moved, places = portable(found)
    assert moved.data.train.transfer.codeswitch.lexicon == "${DFT_SEARCH_FILES}/words.tsv"
    assert str(tmp_path / "words.tsv") in places.values()


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"transfer": {"kinds": {"distill_en": 1.0}}}, "did you mean 'distil_en'"),
        ({"transfer": {"preset": "sdrrl"}}, "did you mean 'sdrrl_paper'"),
        ({"transfer": {"codeswitch": {"words": 1.5}}}, "codeswitch.words"),
        ({"transfer": {"kinds": {"translation": -0.1}}}, "kinds.translation"),
        ({"rows": 0}, "rows"),
    ],
)
def test_mistakes(train: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        recipe(**train)
    assert message in str(caught.value)


def test_what_is_shown_before_a_teacher_has_answered() -> None:
    _, found = load_recipe(
        shipped_study("quickstart"), ["recipe.objective.method=sdrrl", f"{TRAIN}.transfer.teacher=base"]
    )
    rows = training_rows(found)
    assert len(rows.rows) == sum(rows.made.values()) == 765
    shown = examples(rows, encode_rows(rows, load_tokenizer(found.model), found.data), 2)
    assert Counter(one.id.rpartition("/")[2] for one in shown) == dict.fromkeys(rows.made, 2)
    assert all(set(one.segments) == {"target_prompt", "target_answer"} for one in shown)
    told = " ".join(describe_making(found))
    assert "the model as it is answers the English questions, once for a study" in told
    _, plain = load_recipe(shipped_study("quickstart"))
    assert describe_making(plain) == [] and training_rows(plain).made == {}
