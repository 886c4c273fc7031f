"""The small twin of every shipped study runs, cut short, on one Ray, and shows what the study is for."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dft_search.config import load_document
from dft_search.config.shipped import shipped_studies, shipped_study
from dft_search.search.run import search
from dft_search.search.study_folder import StudyFolder, study_path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ELSEWHERE = {"alpaca_zh_small"}  # runs in tests of its own
TWINS = [name for name in shipped_studies() if name.endswith(("_demo", "_small")) and name not in ELSEWHERE]
STEPS, SEEDS, ITEMS, LAYERS = 4, 2, 12, 6
SHORT = [f"recipe.training.length={{steps: {STEPS}}}", "study.slots.max=1"]
DEMO = [f"recipe.scoring.{part}=[{{suite: demo, limit: {ITEMS}}}]" for part in ("dev", "test")]
ALPACA = ["recipe.data.max_length=400", "recipe.training.batch_rows=8", "recipe.training.micro_batch_rows=4"]
ALPACA += ["recipe.data.train.rows=48"]
TRANSLATIONS = "{task: flores200_en-zh, limit: 2}, {task: flores200_zh-en, limit: 2}"
OWN = {
    "pareto_english_demo": ["study.budget.trials=6", "study.confirm.tuning_trials=2"],
    "paper_translation_small": [f"recipe.scoring.{part}=[{TRANSLATIONS}]" for part in ("dev", "test")],
    "tournament_small": [
        *(f"recipe.scoring.{part}=[{{task: answer_log_likelihood_zh, limit: {ITEMS}}}]" for part in ("dev", "test")),
        "recipe.data.train.transfer.max_new_tokens=4",
    ],
}


@pytest.fixture(scope="module")
def own_home(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home for all twins."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DFT_SEARCH_HOME", str(home))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield home


def run(name: str, home: Path, data_folder: Path) -> tuple[StudyFolder, dict[str, Any]]:
    """A twin, cut short; its folder and its report."""
    changes = [*SHORT, *(DEMO if name.endswith("_demo") else ALPACA), *OWN.get(name, [])]
    changes += [f"study.confirm.seeds={SEEDS}"]
    if name.endswith("_small"):
        changes.append(f"recipe.model.path={_make_base(home, data_folder)}")
    assert search(str(shipped_study(name)), name=None, resume=False, confirm=True, overrides=changes) == 0
    folder = StudyFolder(study_path(load_document(shipped_study(name)).data["study"]["name"]))
    return folder, json.loads((folder.path / "report.json").read_text())


def _make_base(home: Path, data_folder: Path) -> Path:
    """An untrained model in the place of the one that alpaca_zh_base makes."""
    from dft_search.demo.small_llama import Shape, make_small_llama

    place = home / "models" / "alpaca-zh-base" / "model"
    if not place.exists():
        make_small_llama([str(data_folder / "train/alpaca_en_zh.dev.jsonl")], place, Shape(1000, 4, 32))
    return place


@pytest.mark.parametrize("name", TWINS)
def test_a_twin_runs_and_shows_what_it_is_for(name: str, own_home: Path, data_folder: Path) -> None:
    folder, report = run(name, own_home, data_folder)
    records = folder.read_trials()
    assert {record.outcome for record in records} == {"completed"}
    confirm = load_document(folder.study_file).data["study"]["confirm"]
    arms = report["arms"]
    assert {arm for arm in confirm["arms"] if arm != "shuffled_english"} <= set(arms)
    assert all(len(arm["runs"]) == (1 if arm == "base" else SEEDS) for name, arm in arms.items() if name != "base")
    assert all(run["test"] is not None for arm in arms.values() for run in arm["runs"])
    if "each" in confirm:
        assert report["contest"]["missing"] == [] and len(report["contest"]["entries"]) >= 3
        assert set(report["contest"]["entries"]) <= set(arms)
        assert report["champion"]["arm"] in report["contest"]["entries"]
        assert "the winner among" in report["verdict"].lower() and "± " in report["verdict"]
        others = [arm for name, arm in arms.items() if name not in ("tft", "base")]
        assert all(arm["minus_tft"]["paired"] and arm["minus_tft"]["p_holm"] is not None for arm in others)
    if name in SHOWN:
        SHOWN[name](report)


def _layers(report: dict[str, Any]) -> None:
    """Every layer of the sweep has a score, for both kinds of supervision."""
    mapped = {cell["thinking"] for cell in report["layer_map"]["cells"] if cell["best"] is not None}
    assert {2, 3, 4, 5, 6} <= mapped
    points = {(point["layer"], point["supervision"]) for point in report["depth"]["points"]}
    assert points == {(layer, kind) for layer in range(2, LAYERS + 1) for kind in ("logits", "feature")}


def _sceptic(report: dict[str, Any]) -> None:
    """Every layer, the top one included, with its placebo, its English, and the FLOPs of plain TFT."""
    points = report["depth"]["points"]
    assert [point["layer"] for point in points] == list(range(1, LAYERS + 1)) and report["depth"]["equal_flops"]
    assert all(point["placebo"]["minus_tft"]["interval"] for point in points)
    assert all(point["english"]["n"] == point["placebo"]["english"]["n"] == SEEDS for point in points)
    assert report["depth"]["reference"]["english"]["n"] == SEEDS
    step = 1 / STEPS  # of a run's FLOPs, about: the nearest whole number of steps is at most half of one away
    assert all(abs(point["flops"] - 1) < 0.75 * step for point in points)


def _pareto(report: dict[str, Any]) -> None:
    """A front over the score and English."""
    assert [one["metric"] for one in report["pareto"]["objectives"]] == ["score", "english_retention"]
    assert report["pareto"]["front"]


def _methods(report: dict[str, Any]) -> None:
    """A row for each method in the table, on test."""
    (group,) = (group for group in report["supervision"]["groups"] if group["part"] == "test")
    methods = {values["objective.method"] for values in report["contest"]["entries"].values()}
    assert {"sft", "tft", "dft", "sdrrl"} <= methods <= {row["method"] for row in group["rows"]}


def _sizes(report: dict[str, Any]) -> None:
    """Both methods on as many rows as each size says."""
    found = [tuple(values.values()) for values in report["contest"]["entries"].values()]
    assert sorted(found) == [(method, rows) for method in ("clo", "tft") for rows in (20, 40, 80, 150)]


SHOWN = {
    "paper_layers_demo": _layers,
    "sceptic_demo": _sceptic,
    "pareto_english_demo": _pareto,
    "paper_methods_demo": _methods,
    "tournament_demo": _methods,
    "clo_sizes_demo": _sizes,
}


@pytest.mark.parametrize("name", sorted({name.rpartition("_")[0] for name in TWINS}))
def test_a_full_study_tells_its_question_its_cost_its_twin_and_its_command(name: str) -> None:
    said = shipped_study(name).read_text(encoding="utf-8").partition("study:\n")[0].splitlines()
    assert all(line.startswith("# ") for line in said) and "?" in said[0] + said[1]
    text = " ".join(line[2:] for line in said)
    assert "Cost: " in text and said[-1] == f"#   dft-search search {name}"
    assert any(f"{name}_{kind}" in text and f"{name}_{kind}" in TWINS for kind in ("demo", "small"))
