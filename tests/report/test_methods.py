"""Studies over several methods: each is what it is in tables, maps and lines; the paper's numbers beside ours."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from dft_search.objectives.methods import DFT
from dft_search.objectives.methods import TFT as PLAIN
from dft_search.report import build_report
from dft_search.report.collect import collect
from dft_search.report.export import write_figures
from dft_search.report.figures.curves import highlighted
from dft_search.report.figures.parallel import ABSENT
from dft_search.report.paper import MODELS, TASKS, paper_model
from dft_search.report.reimplemented import footnote, reimplemented
from dft_search.report.wording import describe_objective
from tests.report.conftest import TFT, Writer, objective
from tests.report.test_report import printed


def aligned(layer: int, **changes: Any) -> dict[str, Any]:
    """mid_align, with settings of terms that it does not have."""
    off = {"conversion": {"supervision": "none", "layer": 1}, "thinking": {"supervision": "none", "layer": 2}}
    return {"method": "mid_align", **off, "alignment": {"layer": layer}, **changes}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = Writer(tmp_path_factory.mktemp("studies") / "methods")
    made.study(planned=8)
    made.trial(0, TFT, 0.0)
    made.trial(1, aligned(2), 0.6)
    made.trial(2, aligned(5), 0.9)
    made.trial(3, objective(("logits", 2), ("feature", 4)), 0.3)
    both = objective(("logits", 2), ("feature", 4)) | {"alignment": {"supervision": "contrastive", "layer": 3}}
    made.trial(4, both, 0.4)
    made.trial(5, objective() | {"method": "sft"}, -0.5)
    made.trial(6, aligned(2), 0.1, outcome="pruned", fraction=0.5)
    made.trial(7, objective() | {"generation": {"languages": ["target", "english"]}}, 0.2)
    made.trial(8, objective() | {"method": "clo"}, 0.25)
    return made.folder


@pytest.fixture(scope="module")
def report(folder: Path) -> dict[str, Any]:
    return build_report(folder)


def test_generation_as_it_is_by_default_is_used_where_the_method_leaves_a_choice(folder: Path) -> None:
    """What is as it is by default is no part of the canonical recipe, and a setting of the trial all the same."""
    trials = {trial.number: trial for trial in collect(folder).trials}
    searched = {"objective.generation.languages": ["target"], "objective.generation.reduction": "mean"}
    unused = {
        number: replace(trials[number], params={"objective.method": trials[number].method, **searched}).unused
        for number in (0, 3, 5, 8)
    }
    assert {number for number, keys in unused.items() if keys} == {5} and unused[5] == set(searched)
    english = {"objective.method": "tft", "objective.generation.languages": ["english"]}  # which is what sft is
    assert not replace(trials[5], params=english).unused


def test_the_leaderboard_names_methods(report: dict[str, Any], folder: Path) -> None:
    rows = {row["trial"]: row for row in report["leaderboard"]}
    methods = {number: row["method"] for number, row in rows.items()}
    assert methods == {0: "tft", 1: "mid_align", 2: "mid_align", 3: "dft", 4: "dft", 5: "sft", 6: "mid_align"} | {
        7: "tft",
        8: "clo",
    }
    assert [number for number, row in rows.items() if row["plain"]] == [0]
    assert rows[4]["layers"] == {"conversion": 2, "thinking": 4, "alignment": 3}
    assert rows[2]["unused"] == ["objective.conversion.layer", "objective.thinking.layer"] and rows[3]["unused"] == []
    page = (folder / "report.html").read_text()
    assert page.count('<td class="end">mid-align</td>') == 3 and page.count('<td class="end">DFT</td>') == 2
    assert "<dt>mid-align</dt>" in page.split('id="words"')[1]


def test_reimplementations_are_called_that_below_every_table(report: dict[str, Any], folder: Path) -> None:
    assert list(report["reimplementations"]) == ["mid-align", "CLO"]
    said = "Re-implementations, so not the authors' own numbers: mid-align (Liu & Niehues 2025; "
    assert said in " ".join(printed(report, 200).split())
    page = (folder / "report.html").read_text()
    assert page.count(escape(said)) == 2  # the supervision table and the leaderboard; nothing was confirmed


def test_a_plugin_may_call_itself_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is data of the method, and nothing is said of a study without one."""
    methods = {"dft": replace(DFT, reimplements="a paper; all of it is ours"), "tft": PLAIN}
    monkeypatch.setattr("dft_search.report.reimplemented.all_methods", lambda: methods)
    found = reimplemented(collect(folder))
    assert found == {"DFT": "a paper; all of it is ours"} and footnote({"reimplementations": {}}) == ""


def test_the_map_holds_what_has_layers_i_and_j(report: dict[str, Any], folder: Path) -> None:
    cells = {(cell["conversion"], cell["thinking"]): cell for cell in report["layer_map"]["cells"]}
    assert {pair: sorted(cell["trials"]) for pair, cell in cells.items()} == {(None, None): [0], (2, 4): [3, 4]}
    assert report["layer_map"]["elsewhere"] == {"mid-align": 3, "SFT": 1, "TFT": 1, "CLO": 1}
    assert (
        "3 trials of mid-align, 1 trial of SFT, 1 trial of TFT and 1 trial of CLO have neither layer"
        in (folder / "report.html").read_text()
    )


def test_alignment_has_a_view_of_its_own(report: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    (found,) = report["term_layers"]
    assert found["term"] == "alignment"
    assert {(point["trial"], point["layer"]) for point in found["points"]} == {(1, 2), (2, 5), (4, 3)}
    plain = next(row for row in report["leaderboard"] if row["trial"] == 0)
    assert found["plain"] == plain["dev"]["score"]
    assert "Dev score by layer of alignment" in (folder / "report.html").read_text()
    names = {file.name for file in write_figures(report, tmp_path / "figures")}
    assert {"layer-alignment.svg", "layer-alignment.csv"} <= names


def test_the_supervision_table_keeps_methods_apart(report: dict[str, Any], folder: Path) -> None:
    (group,) = report["supervision"]["groups"]
    rows = [(row["method"], row["conversion"], row["others"], row["trials"]) for row in group["rows"]]
    assert rows == [
        ("sft", "none", "", 1),
        ("tft", "none", "", 1),
        ("tft", "none", "English answers too", 1),
        ("mid_align", "none", "alignment at layer 5", 2),
        ("clo", "none", "preference", 1),
        ("dft", "logits", "", 1),
        ("dft", "logits", "alignment at layer 3", 1),
    ]
    page = (folder / "report.html").read_text().split('id="supervision"')[1].split("</section>")[0]
    assert '<th scope="col" class="term">other terms</th>' in page and ">alignment at layer 5</td>" in page


def test_lines_and_colors_know_the_methods(report: dict[str, Any], folder: Path) -> None:
    assert highlighted(report) == {2: "lead", 0: "tft"}  # not the best trial without conversion and thinking
    axes = {axis["key"]: axis["absent"] for axis in report["parallel"]["axes"]}
    assert axes["objective.conversion.layer"] == axes["objective.thinking.layer"] == 7
    page = (folder / "report.html").read_text()
    (way,) = [line for line in page.split("<polyline") if 'data-trial="2"' in line and "way" in line]
    points = [float(pair.split(",")[0]) for pair in way.split('points="')[1].split('"')[0].split()]
    layer = [axis["key"] for axis in report["parallel"]["axes"]].index("objective.conversion.layer")
    assert abs(points[layer] - ABSENT) <= 9


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"method": "mid_align", "alignment": {"layer": 3}}, "mid-align at layer 3"),
        ({"method": "dft", "alignment": {"supervision": "contrastive", "layer": 3}}, "alignment at layer 3"),
        ({"method": "sft"}, "plain SFT"),
        ({"method": "lm"}, "plain language modelling"),
        ({"method": "sdrrl"}, "SDRRL"),
        ({"method": "clo", "preference": {"variant": "dpo", "beta": 0.1}}, "CLO"),
        ({"method": "tft", "retention": {"supervision": "distillation", "top": 16}}, "TFT, retention"),
        ({"method": "mid_align", "alignment": {"layer": 3}, "retention": {}}, "mid-align at layer 3"),
        ({"method": "of_a_package_that_is_gone"}, "of_a_package_that_is_gone"),
    ],
)
def test_a_method_is_described_by_its_terms(told: dict[str, Any], words: str) -> None:
    assert describe_objective(told) == words


@pytest.fixture
def like_the_paper(writer: Callable[..., Writer]) -> Callable[..., dict[str, Any]]:
    def build(model: str = "meta-llama/Llama-2-7b-hf", language: str = "zh") -> dict[str, Any]:
        made = writer(near_chance_task=True, num_layers=32)
        made.study()
        made.trial(0, TFT, 0.1)
        made.trial(1, objective(("logits", 2), ("logits", 15)), 0.4)
        made.trial(2, aligned(15), 0.4)
        number = 10_000
        for arm, layer in (("best1", 14), ("paper", 15)):
            for seed in range(2):
                goal = objective(("logits", 2), ("logits", layer))
                made.trial(number, goal, 0.4, phase="confirm", arm=arm, seed=seed)
                number += 1
        made.confirm({"best1": 1})
        rename(made.folder, model, language)
        return build_report(made.folder) | {"folder": made.folder}

    return build


def rename(folder: Path, model: str, language: str) -> None:
    """Make a study one of another model and language."""
    for file in folder.rglob("*.json*"):
        file.write_text(file.read_text().replace("xcopa_xx", f"xcopa_{language}").replace("demo/base", model))
    about = json.loads((folder / "study.json").read_text()) | {"language": language}
    (folder / "study.json").write_text(json.dumps(about))


def test_the_papers_numbers_stand_beside_ours(like_the_paper: Callable[..., dict[str, Any]]) -> None:
    report = like_the_paper()
    found = report["paper"]
    assert found["tasks"] == {"xcopa": "xcopa_zh"} and (found["model"], found["language"]) == ("llama-2-7b", "zh")
    rows = {(row["method"], row["conversion"], row["thinking"]): row for row in found["rows"]}
    numbers = {key: row["paper"]["xcopa"] for key, row in rows.items()}
    assert numbers == {
        ("sft", "none", "none"): 65.0,
        ("tft", "none", "none"): 65.0,
        ("sdrrl", "none", "none"): 65.2,
        ("dft", "logits", "logits"): 66.4,
        ("dft", "feature", "feature"): 68.6,
        ("dft", "logits", "none"): 65.6,
        ("dft", "feature", "none"): 66.8,
        ("dft", "none", "logits"): 66.4,
        ("dft", "none", "feature"): 68.4,
    }
    deep, plain = rows["dft", "logits", "logits"], rows["tft", "none", "none"]
    assert (deep["part"], deep["arm"]) == ("test", "paper") and (plain["part"], plain["trial"]) == ("dev", 0)
    groups = {group["part"]: group["rows"] for group in report["supervision"]["groups"]}
    ours = next(row for row in groups["test"] if row["arm"] == "paper")["cells"]["xcopa_zh"]
    assert deep["ours"]["xcopa"]["mean"] == pytest.approx(100 * ours["mean"])
    assert rows["sft", "none", "none"]["ours"] == {}
    page = (report["folder"] / "report.html").read_text().split('id="paper"')[1].split("</section>")[0]
    assert "66.40<br>" in page and "arXiv 2503.01275" in page and "the paper&#x27;s layers, on test" in page


@pytest.mark.parametrize(
    ("model", "language"), [("meta-llama/Llama-2-7b-chat-hf", "zh"), ("/models/Llama-2-7b", "de"), ("demo/base", "zh")]
)
def test_other_models_and_languages_are_not_compared(
    like_the_paper: Callable[..., dict[str, Any]], model: str, language: str
) -> None:
    report = like_the_paper(model, language)
    assert report["paper"] is None and 'id="paper"' not in (report["folder"] / "report.html").read_text()


def test_the_papers_models_are_known_by_any_name() -> None:
    hub = "/hub/models--meta-llama--Llama-2-7b-hf/snapshots/01c7f73d"
    for path in ("meta-llama/Llama-2-7b-hf", "/models/Llama-2-7b/", "llama2-7b", hub):
        assert paper_model(path) == "llama-2-7b"
    assert paper_model("google/gemma-2-2b") == "gemma-2-2b"
    for path in ("google/gemma-2-2b-it", "meta-llama/Llama-2-13b-hf", "my-llama-2-7b-tuned", None):
        assert paper_model(path) is None


def test_the_papers_table_is_whole() -> None:
    text = (files("dft_search.report") / "dft_paper.csv").read_text()
    rows = list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
    keys = [tuple(list(row.values())[:-1]) for row in rows]
    assert len(set(keys)) == len(keys) == 259
    assert {row["model"] for row in rows} == set(MODELS) and {row["task"] for row in rows} == set(TASKS)
    assert all(0 < float(row["value"]) < 100 for row in rows)
    assert not [key for key in keys if key[0] == "llama-2-7b" and key[2] == "sft" and key[5] == "mmlu"]


def test_another_layers_entry_does_not_stand_beside_the_papers_number(writer: Callable[..., Writer]) -> None:
    """A sweep over layers: the champion is at layer 20, and what has the paper's layers is a trial on dev."""
    made = writer(near_chance_task=True, num_layers=32)
    made.study()
    made.trial(0, objective(("logits", 2), ("logits", 20)), 0.9)
    made.trial(1, objective(("logits", 2), ("logits", 15)), 0.4)
    for seed in range(2):
        goal = objective(("logits", 2), ("logits", 20))
        made.trial(10_000 + seed, goal, 0.9, phase="confirm", arm="layer_20", seed=seed)
    made.confirm({"layer_20": 0})
    rename(made.folder, "meta-llama/Llama-2-7b-hf", "zh")
    found = build_report(made.folder)["paper"]
    (row,) = (r for r in found["rows"] if (r["method"], r["conversion"], r["thinking"]) == ("dft", "logits", "logits"))
    assert found["layers"] == row["layers"] == {"conversion": 2, "thinking": 15}
    assert (row["part"], row["arm"], row["trial"]) == ("dev", None, 1) and row["ours"]
    page = (made.folder / "report.html").read_text().split('id="paper"')[1].split("</section>")[0]
    assert "Ours have the paper&#x27;s layers (conversion at layer 2 and thinking at layer 15)" in page
