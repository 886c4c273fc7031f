"""The figure of thinking by layer: from confirmation runs to the page, with placebo, English and what it says."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dft_search.report import build_report
from dft_search.report.export import write_figures
from tests.report.conftest import TFT, Writer, objective

LAYERS, SEEDS = 6, 8


def layer_study(folder: Path, *, gains: list[float], placebo: float | None = None, seeds: int = SEEDS) -> Path:
    """A study that confirmed thinking at layers 1, 2, ... (with these gains over TFT, in logits) beside TFT."""
    writer = Writer(folder, english=True)
    writer.study(planned=len(gains))
    number, entries, placebos = 10_001, {}, {}
    arms = [("tft", TFT, 0.0)]
    for layer, gain in enumerate(gains, 1):
        goal, name = objective(thinking=("logits", layer)), f"layer_{layer}"
        writer.trial(layer - 1, goal, gain)
        arms.append((name, goal, gain))
        entries[name] = {"objective.thinking.layer": layer}
        if placebo is not None:
            arms.append((f"{name}_shuffled", goal, placebo))
            placebos[f"{name}_shuffled"] = name
    for arm, goal, skill in arms:
        for seed in range(seeds):
            writer.trial(number, goal, skill, phase="confirm", arm=arm, seed=500 + seed, luck=0.03, cost=1.2)
            file = folder / "trials" / f"t{number:04d}" / "trial.json"
            about = json.loads(file.read_text())
            kept = {"value": -2.0 - 0.1 * seed - (arm != "tft"), "stderr": 0.5, "n": 500}
            file.write_text(json.dumps({**about, "test": {**about["test"], "english_retention": kept}}))
            number += 1
    contest = {"keys": ["objective.thinking.layer"], "equal_flops": True, "entries": entries, "missing": []}
    candidates = {name: values["objective.thinking.layer"] - 1 for name, values in entries.items()}
    writer.confirm(candidates, about={"contest": contest, "placebos": placebos})
    return folder


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    gains = [-0.2, 0.0, 0.8, 0.3, 0.1, 0.05]
    return layer_study(tmp_path_factory.mktemp("depth") / "layers", gains=gains, placebo=-0.6)


def test_every_layer_has_its_lead_over_tft_and_its_placebo(studied: Path) -> None:
    report = build_report(studied)
    found = report["depth"]
    assert [point["layer"] for point in found["points"]] == list(range(1, LAYERS + 1))
    assert found["num_layers"] == LAYERS and found["equal_flops"]
    for point in found["points"]:
        ours = {run["seed"]: run["test"] for run in report["arms"][point["arm"]]["runs"]}
        theirs = {run["seed"]: run["test"] for run in report["arms"]["tft"]["runs"]}
        lead = point["minus_tft"]
        paired = [ours[seed] - theirs[seed] for seed in ours]
        assert lead["paired"] and lead["seeds"] == SEEDS
        assert lead["difference"] == pytest.approx(sum(paired) / SEEDS)
        assert lead["interval"][0] < lead["difference"] < lead["interval"][1]
        assert lead["p_value"] <= lead["p_holm"] <= 1
        assert point["placebo"]["arm"] == f"{point['arm']}_shuffled"
        assert point["placebo"]["minus_tft"]["difference"] < lead["difference"]
        assert point["english"]["mean"] == pytest.approx(-3.35) and point["english"]["n"] == SEEDS
    assert found["reference"]["english"]["mean"] == pytest.approx(-2.35)
    third = found["points"][2]["minus_tft"]
    assert third["conclusion"] == "better" and third["difference"] == max(
        point["minus_tft"]["difference"] for point in found["points"]
    )


def test_the_figure_is_on_the_page_and_goes_out_as_files(studied: Path, tmp_path: Path) -> None:
    report = build_report(studied)
    page = (studied / "report.html").read_text()
    section = page.split('id="depth"')[1].split("</section>")[0]
    assert "Is it the depth?" in section and "the top layer has" in section and "placebo" in section
    names = {file.name for file in write_figures(report, tmp_path)}
    assert {"depth.svg", "depth.dark.svg", "depth.csv", "depth.json"} <= names
    assert json.loads((tmp_path / "depth.json").read_text()) == report["depth"]
    drawing = ElementTree.fromstring((tmp_path / "depth.svg").read_text())
    dots = [one for one in drawing.iter() if one.get("class", "").startswith("dot") and len(one)]
    assert len(dots) == 4 * LAYERS  # lead and English, of the recipe and of its placebo
    assert len((tmp_path / "depth.csv").read_text().splitlines()) == 1 + LAYERS


def test_the_winner_is_named_with_its_error_and_the_arms_by_their_layer(studied: Path) -> None:
    report = build_report(studied)
    assert report["verdict"].startswith("The winner among 6 values of thinking.layer on dev, layer 3 (")
    assert list(report["test"]["equal"]) == ["flops"] and report["test"]["equal"]["flops"]["arm"] == "tft"
    assert "± " in report["verdict"] and "better than plain TFT on test" in report["verdict"]
    lead = (studied / "report.html").read_text().split('id="figure-lead"')[1].split("</figure>")[0]
    assert "over layer 5" in lead


def test_two_layers_say_nothing_about_depth(tmp_path: Path) -> None:
    report = build_report(layer_study(tmp_path / "two", gains=[0.1, 0.2], seeds=2))
    assert report["depth"] is None
    assert 'id="depth"' not in (tmp_path / "two" / "report.html").read_text()
