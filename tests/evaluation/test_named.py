"""Tasks of lm-evaluation-harness by name, their data in local copies: prompts, scores and errors."""

import json

import pytest
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM

from dft_search.config import RequestError
from dft_search.evaluation import Scorer, ScoringOptions, check_scoring
from dft_search.evaluation.named import leaves, task_manager
from dft_search.evaluation.taskfile import NamedTask
from dft_search.evaluation.tasks import load_task, task_names
from tests.evaluation.conftest import MAX_LENGTH

PARTS = ("steer", "select", "test")


def write(folder, split, rows):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{split}.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")


@pytest.fixture
def copies(tmp_path, monkeypatch):
    """A folder of copies with XNLI in English and MLQA in German."""
    monkeypatch.setenv("DFT_SEARCH_DATA", str(tmp_path))
    pairs = [
        {"premise": f"The cat {k // 3} sat", "hypothesis": f"The bird {k} looked", "label": k % 3} for k in range(60)
    ]
    write(tmp_path / "hub" / "facebook" / "xnli" / "en", "validation", pairs)
    questions = [
        {
            "id": f"q{k}",
            "context": f"The bird {k} sat on a tree",
            "question": "Where ?",
            "answers": {"text": ["a tree", "der tree"], "answer_start": [0, 0]},
        }
        for k in range(24)
    ]
    for split, rows in (("validation", questions[:12]), ("test", questions[12:])):
        write(tmp_path / "hub" / "facebook" / "mlqa" / "mlqa.de.de", split, rows)
    return tmp_path


def test_every_named_task_exists_in_the_harness():
    manager = task_manager()
    named = {name: load_task(name).options.harness for name in task_names()}
    named = {name: harness for name, harness in named.items() if isinstance(harness, NamedTask)}
    assert len(named) > 50
    assert [harness.task for harness in named.values() if harness.task not in manager.task_index] == []
    for harness in named.values():
        for leaf in leaves(harness.task, manager):
            assert manager.task_index[leaf].cfg["output_type"] == harness.output_type, leaf
    assert len(list(leaves("mmmlu_zh_cn", manager))) == 57
    assert len(list(leaves("global_mmlu_full_vi", manager))) == 57


def test_a_named_task_asks_and_scores_as_the_harness(copies, live):
    live.max_length = MAX_LENGTH * 4
    options = ScoringOptions.model_validate({"dev": [{"task": "xnli_en"}], "score": {"mean": ["xnli_en"]}})
    assert check_scoring(options) == []
    task = load_task("xnli_en")
    parts = {part: task.items(part) for part in PARTS}
    assert sorted(int(item.id) for items in parts.values() for item in items) == list(range(60))
    clusters = {part: {item.cluster for item in items} for part, items in parts.items()}
    assert sum(map(len, clusters.values())) == 20, "the hypotheses of a premise stay together"
    scores = Scorer(options, samples=True).score(live, "test")

    reference = HFLM(pretrained=live.model, tokenizer=live.tokenizer, batch_size=4, max_length=MAX_LENGTH * 4)
    (theirs,) = {entry.task for entry in task.entries("test")}
    results = evaluate(reference, {"xnli_en": theirs}, bootstrap_iters=0)
    right = {str(sample["doc_id"]): sample["acc"] for sample in results["samples"]["xnli_en"]}
    assert scores.items["xnli_en"] == [right[item.id] for item in parts["test"]]
    assert 0 < scores.values["xnli_en"].value < 1
    assert scores.values["xnli_en"].chance == pytest.approx(1 / 3)
    sample = scores.samples["xnli_en"][0]
    assert (sample.id, sample.prompt) == (parts["test"][0].id, "") and len(sample.likelihoods) == 3
    assert sample.choices[0] == f"The cat {int(sample.id) // 3} sat, right? Yes, The bird {sample.id} looked"
    assert sample.values.keys() == {"acc", "margin"}


def test_generated_answers_are_judged_by_the_harness(copies):
    task = load_task("mlqa_de")
    entries = task.entries("test")
    assert [len(task.items(part)) for part in PARTS] == [5, 7, 12]
    assert entries[0].item().text == "Context: The bird 12 sat on a tree\n\nQuestion: Where ?\n\nAnswer:"
    assert entries[0].item().choices == ("a tree", "der tree")
    assert entries[0].judge("der tree.") == {"exact_match": True, "f1": 1.0}
    assert entries[0].asking.generation["until"] == ["\n"]


def test_a_task_with_prompts_of_its_own_reads_the_hub_too(copies):
    rows = [
        {"id": f"q{k}", "context": f"The bird {k}", "question": "Who ?", "answers": {"text": ["bird"]}}
        for k in range(40)
    ]
    write(copies / "hub" / "google" / "xquad" / "xquad.en", "validation", rows)
    task = load_task("xquad_hub_en")
    items = [item for part in PARTS for item in task.items(part)]
    assert sorted(item.id for item in items) == sorted(row["id"] for row in rows)
    (first,) = [item for item in items if item.id == "q3"]
    assert (first.text, first.choices) == ("Context: The bird 3\n\nQuestion: Who ?\n\nAnswer:", ("bird",))
    (copies / "hub" / "google" / "xquad" / "xquad.en" / "validation.jsonl").rename(copies / "x.jsonl")
    with pytest.raises(RequestError, match="data set google/xquad .xquad.en. cannot be read"):
        load_task("xquad_hub_en").items("steer")


def test_limits_do_not_render_the_rest(copies):
    task = load_task("xnli_en")
    assert len(task.items("test", 3)) == 3
    assert sum(entry._item is not None for entry in task.entries("test")) == 3


def test_data_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("DFT_SEARCH_DATA", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(RequestError) as error:
        load_task("xnli_sw").items("steer")
    (text,) = map(str, error.value.problems)
    assert "xnli.yaml" in text and "harness.task: data set facebook/xnli (sw) cannot be read" in text
    assert "hf download --repo-type dataset facebook/xnli" in text and "hub/facebook/xnli/sw/SPLIT.jsonl" in text


def test_a_copy_without_the_split(copies):
    folder = copies / "hub" / "facebook" / "mlqa" / "mlqa.de.de"
    (folder / "validation.jsonl").unlink()
    with pytest.raises(RequestError, match="the data of mlqa_de_de have no split 'validation'.*expected one of test"):
        load_task("mlqa_de").items("steer")


def named_file(folder, **changes):
    path = folder / "named.yaml"
    task = {
        "task": "named",
        "description": "A task of the harness.",
        "language": "en",
        "metric": "acc",
        "id": "{{ position }}",
        "parts": {part: {"items": f"{n}/3"} for n, part in enumerate(PARTS, 1)},
        "harness": {"task": "xnli_en"},
    }
    path.write_text(json.dumps({**task, **changes}), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"harness": {"task": "xnli_enn"}}, "has no task 'xnli_enn' (did you mean 'xnli_en'?)"),
        ({"harness": {"task": "xnli_en", "output_type": "generate_until"}, "metric": "f1"}, "of kind multiple_choice"),
        ({"harness": {"task": "xnli_en", "doc_to_text": "x"}}, "unknown key"),
        ({"parts": {"steer": {"files": ["x.jsonl"]}}}, "a task of the harness has no files"),
        ({"parts": {"steer": {"items": "4-5/3"}}}, "there is no share 4-5/3"),
        ({"parts": {"steer": {"items": "3-2/4"}}}, "there is no share 3-2/4"),
        ({"id": "idd"}, "an item has no column 'idd'"),
    ],
)
def test_broken_files(copies, changes, message):
    with pytest.raises(RequestError) as error:
        load_task(named_file(copies, **changes)).items("steer")
    assert message in str(error.value)
