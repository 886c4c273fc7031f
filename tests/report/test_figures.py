"""What the figures and tables are made of: surface, parameters, timeline, cost, supervision; and large studies."""

import json
import math
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from dft_search.config import RequestError
from dft_search.report import build_report, write_figures
from dft_search.report.cost import slot_seconds
from dft_search.report.export import palette
from dft_search.report.figures.layers import INKS
from dft_search.report.figures.svg import Axis
from dft_search.report.surface import layer_surface
from dft_search.report.timeline import pieces
from tests.report.conftest import TFT, TOP, Writer, full_study, objective, paper_study

SVG = "{http://www.w3.org/2000/svg}"


def view_of(pairs: list[tuple[int, int]], scores: list[float], depth: int = 12, stderr: float = 0.0) -> Any:
    """As much of a study as the surface reads."""
    trials = [
        SimpleNamespace(layers=pair, items={}, dev={"score": SimpleNamespace(value=score, stderr=stderr)})
        for pair, score in zip(pairs, scores, strict=True)
    ]
    return SimpleNamespace(ranked=trials, metric="score", score_metrics=("score",), num_layers=depth)


def world(count: int, noise: float, depth: int = 12) -> tuple[list[tuple[int, int]], list[float]]:
    """Trials at random pairs of layers in a world whose best pair is (4, 8)."""
    draw = random.Random(3)
    pairs = [(i, draw.randint(i + 1, depth)) for i in (draw.randint(1, depth // 2) for _ in range(count))]
    return pairs, [math.exp(-((i - 4) ** 2 + (j - 8) ** 2) / 18) + draw.gauss(0, noise) for i, j in pairs]


def test_the_surface_finds_the_hill_and_knows_how_well() -> None:
    pairs, scores = world(60, 0.1)
    found = layer_surface(view_of(pairs, scores))
    best = max(found["points"], key=lambda point: point["mean"])
    assert abs(best["conversion"] - 4) <= 1.5 and abs(best["thinking"] - 8) <= 1.5
    truth = [math.exp(-((p["conversion"] - 4) ** 2 + (p["thinking"] - 8) ** 2) / 18) for p in found["points"]]
    inside = [abs(p["mean"] - t) < 2 * p["sd"] for p, t in zip(found["points"], truth, strict=True)]
    assert sum(inside) / len(inside) > 0.85
    assert 0.05 < found["noise"] < 0.2
    assert {"conversion": 4.0, "thinking": 8.0}.items() <= min(
        found["points"], key=lambda p: abs(p["conversion"] - 4) + abs(p["thinking"] - 8)
    ).items(), "whole layers are on the grid"


def test_the_surface_is_the_textbooks_one() -> None:
    """Replicates are summed up by their mean: the posterior must be that of all trials one by one."""
    from dft_search.report.surface import _fit, _kernel, _posterior, _runs

    pairs, scores = world(30, 0.3)
    places, values = np.array(pairs, dtype=float) / 12, np.array(scores)
    assert len({*pairs}) < len(pairs)
    length, noise, _ = _fit(_runs(places, values), 0.0)
    grid = np.array([[0.3, 0.6], [0.1, 0.9]])
    mean, deviation = _posterior(_runs(places, values), grid, length, noise)
    inverse = np.linalg.inv(_kernel(places, places, length) + noise * np.eye(30))
    one = np.ones(30)
    level = (one @ inverse @ values) / (one @ inverse @ one)
    cross = _kernel(grid, places, length)
    left = 1 - cross @ inverse @ one
    variance = 1 - np.einsum("ij,jk,ik->i", cross, inverse, cross) + left**2 / (one @ inverse @ one)
    assert mean == pytest.approx(level + cross @ inverse @ (values - level))
    assert deviation == pytest.approx(np.sqrt(variance))


def test_noise_that_all_trials_share_is_none_between_them() -> None:
    """The same hard questions for everyone: only what differs between trials by item counts as noise."""
    from dft_search.report.surface import _item_noise

    rng = np.random.default_rng(2)
    hard, own = rng.normal(0, 1.0, 200), 0.3 * rng.normal(0, 1.0, (20, 200))
    view = view_of([(1, 2)] * 20, [0.0] * 20, stderr=1.0 / math.sqrt(200))
    for trial, answers in zip(view.ranked, own, strict=True):
        trial.items = {"score": list(hard + answers)}
    assert _item_noise(view, view.ranked) == pytest.approx(0.09 / 200, rel=0.1)
    view.ranked[3].items = {}
    assert _item_noise(view, view.ranked) == pytest.approx(1.0 / 200)


def test_the_surface_is_shown_only_where_trials_support_it() -> None:
    pairs = [(i, j) for i in (1, 2) for j in (3, 4, 5, 6)] + [(6, 12)]
    found = layer_surface(view_of(pairs, [math.sin(1.6 * j) + 0.01 * i for i, j in pairs]))  # a rough world
    shown = {(point["conversion"], point["thinking"]) for point in found["points"]}
    assert (1.0, 4.0) in shown and (6.0, 7.0) not in shown
    assert all(point["thinking"] > point["conversion"] for point in found["points"])


def test_scores_that_are_noise_make_no_hills() -> None:
    """Scores within their own errors: what is shown of the surface, if anything, is flat within its deviation."""
    draw = random.Random(5)
    pairs, _ = world(40, 0.0)
    found = layer_surface(view_of(pairs, [draw.gauss(0, 0.1) for _ in pairs], stderr=0.1))
    means = [point["mean"] for point in found["points"]]
    assert not means or max(means) - min(means) < 4 * max(point["sd"] for point in found["points"])


@pytest.mark.parametrize(
    ("pairs", "why"),
    [([(1, 2)] * 9, "on 1"), ([(1, 2), (1, 3), (2, 4), (2, 5)], "there are 4"), ([], "there are 0")],
)
def test_too_few_trials_make_no_surface(pairs: list[tuple[int, int]], why: str) -> None:
    found = layer_surface(view_of(pairs, [0.1 * n for n in range(len(pairs))]))
    assert found["points"] == [] and why in found["reason"]


SPACE = """space:
  objective.conversion.supervision: {choice: [logits, feature, none]}
  objective.conversion.layer: {int: [1, 50%]}
  objective.conversion.weight: {float: [0.05, 2.0], log: true}
  training.optimizer.learning_rate: {float: [1.0e-4, 1.0e-2], log: true}
"""


def test_axes_follow_the_space(writer: Callable[..., Writer]) -> None:
    made = writer(num_layers=10)
    made.study()
    with (made.folder / "study.yaml").open("a") as file:
        file.write(SPACE)
    made.trial(0, TFT, 0.1)
    made.trial(1, objective(("logits", 2)), 0.3)
    report = build_report(made.folder)
    axes = {axis["key"]: axis for axis in report["parallel"]["axes"]}
    assert list(axes)[:4] == [line.split(":")[0].strip() for line in SPACE.splitlines()[1:]]
    assert axes["objective.conversion.supervision"]["choices"] == ["logits", "feature", "none"]
    layer = axes["objective.conversion.layer"]
    assert (layer["low"], layer["high"], layer["integer"], layer["absent"]) == (1, 5, True, 1)
    rate = axes["training.optimizer.learning_rate"]
    assert rate["log"] and (rate["low"], rate["high"], rate["integer"]) == (1e-4, 1e-2, False)
    page = (made.folder / "report.html").read_text()
    assert page.count('class="way ') == 2 and "learning_rate (log scale)" in page and ">not used<" in page


def test_a_log_axis_puts_equal_ratios_at_equal_distances() -> None:
    axis = Axis(1e-4, 1e-2, 0.0, 100.0, log=True)
    assert [axis(value) for value in (1e-4, 1e-3, 1e-2)] == pytest.approx([0, 50, 100])
    assert axis.ticks(5) == pytest.approx([1e-4, 3e-4, 1e-3, 3e-3, 1e-2])
    assert Axis(0.3, 0.4, 0.0, 1.0, log=True).ticks(5) == [0.3, 0.4]


def change(folder: Path, number: int, **values: Any) -> None:
    path = folder / "trials" / f"t{number:04d}" / "trial.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_the_timeline_shows_pauses_and_cuts_standstills(writer: Callable[..., Writer]) -> None:
    made = writer()
    made.study()
    made.trial(0, TFT, 0.1)
    made.trial(1, TOP, 0.2)
    made.trial(2, TOP, 0.2, outcome="pruned", fraction=0.25)
    start = 1_763_700_000.0
    change(made.folder, 0, started=start, ended=start + 100, seconds=100)
    change(made.folder, 1, started=start + 50, ended=start + 9150, seconds=150, pauses=[[start + 100, start + 9050]])
    change(made.folder, 2, started=start + 9060, ended=start + 9100, seconds=40)
    report = build_report(made.folder)
    spans = {span["trial"]: span for span in report["timeline"]["spans"]}
    assert report["timeline"]["standstills"] == [[100, 9050]]
    assert pieces(spans[1]) == [(50, 100), (9050, 9150)]
    rungs = {rung["fraction"]: rung["at"] for rung in spans[1]["rungs"]}
    assert rungs[1.0] > rungs[0.5] and all(50 <= at <= 100 or 9050 <= at <= 9150 for at in rungs.values())
    page = (made.folder / "report.html").read_text()
    assert "no trial ran for 2 h 29 min" in page and "Dashed: 1 trial interrupted, gone on with later" in page
    assert "The scheduler stopped 1 trial of 3 in the search after 25 % of their rows on average" in page.replace(
        "&nbsp;", " "
    )


def test_a_trial_that_runs_is_on_the_timeline(writer: Callable[..., Writer]) -> None:
    made = writer()
    made.study(state="running")
    made.trial(0, TOP, 0.2, outcome="running", fraction=0.5)
    change(made.folder, 0, ended=None, started=1_763_700_000.0, seconds=12.0)
    report = build_report(made.folder)
    assert report["timeline"]["spans"][0]["end"] == 12.0
    page = (made.folder / "report.html").read_text()
    assert 'role="note">The study was interrupted' in page or 'role="note">The study is still running' in page


def test_device_hours_are_slot_hours_times_devices(writer: Callable[..., Writer]) -> None:
    made = writer()
    made.study()
    made.trial(0, TFT, 0.1)
    made.trial(1, TFT, 0.1, outcome="pruned", fraction=0.25)
    change(made.folder, 0, started=1000.0, ended=1000.0 + 2700, seconds=2600)
    change(made.folder, 1, started=1000.0, ended=1000.0 + 8000, seconds=800, pauses=[[2000.0, 9100.0]])
    report = build_report(made.folder)
    held = {entry["outcome"]: entry["slot_seconds"] for entry in report["cost"]}
    assert held == {"completed": 2700, "pruned": 900}
    spent = report["spent"]
    assert spent["device"] == "GPU" and spent["device_hours"] == pytest.approx(2 * 1 * 3600 / 3600)
    assert spent["share_pruned"] == 0.25 and spent["share_lost"] == 0.0
    words = (made.folder / "report.html").read_text().replace("&nbsp;", " ")
    assert "this is 2 GPU hours" in words and "25 % went into trials that the scheduler stopped early" in words


def test_without_gpus_cores_are_counted_and_unknown_slots_are_not_guessed(writer: Callable[..., Writer]) -> None:
    made = writer()
    made.study()
    made.trial(0, TFT, 0.1)
    path = made.folder / "study.json"
    about = json.loads(path.read_text())
    about["slots"] = {"workers": 2, "gpus_per_worker": 0, "cpus_per_worker": 3}
    path.write_text(json.dumps(about))
    report = build_report(made.folder)
    held = report["cost"][0]["slot_seconds"]
    assert report["spent"]["device"] == "CPU core"
    assert report["spent"]["device_hours"] == pytest.approx(held * 6 / 3600)
    del about["slots"]
    path.write_text(json.dumps(about))
    report = build_report(made.folder)
    assert report["spent"]["device"] is None and report["cost"][0]["device_hours"] is None
    assert " hours" not in (made.folder / "report.html").read_text().split('id="cost"')[1].split("</section>")[0]


def test_a_trial_without_an_end_costs_what_it_reported() -> None:
    assert slot_seconds(SimpleNamespace(started=5.0, ended=None, seconds=3.0, pauses=())) == 3.0


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paper_study(tmp_path_factory.mktemp("studies") / "paper").folder


def test_the_supervision_table_holds_arms_on_test_and_the_search_on_dev(paper: Path) -> None:
    report = build_report(paper)
    table = report["supervision"]
    groups = {group["part"]: group["rows"] for group in table["groups"]}
    assert list(groups) == ["test", "dev"]
    assert [column["name"] for column in table["columns"]] == ["facts", "facts.margin", "facts_en"]
    arms = {row["arm"]: row for row in groups["test"]}
    assert set(arms) == set(report["arms"])
    champion = arms[report["champion"]["arm"]]
    assert (champion["conversion"], champion["thinking"]) == ("logits", "logits")
    assert champion["layers"] == {"conversion": 2, "thinking": 4}
    assert champion["cells"]["facts"]["mean"] == pytest.approx(report["champion"]["test"]["mean"])
    assert champion["cells"]["facts"]["error"] == pytest.approx(report["champion"]["test"]["sd"])
    best = {(row["method"], row["conversion"]): row for row in groups["dev"]}
    assert best["dft", "logits"]["trials"] == 11 and best["tft", "none"]["trials"] == 1
    first = report["leaderboard"][0]
    assert best["dft", "logits"]["cells"]["facts"] == {
        "mean": first["dev"]["score"],
        "error": first["dev"]["stderr"],
        "n": 180,
    }
    page = (paper / "report.html").read_text().split('id="supervision"')[1].split("</section>")[0]
    assert "must not be compared with rows on test" in page and "best of 11" in page
    confirmed = page.split("<tbody>")[1]
    tops = re.findall(r'<td class="num" data-value="([^"]+)"><b>', confirmed)
    assert {float(top) for top in tops} == {
        max(row["cells"][name]["mean"] for row in groups["test"]) for name in ("facts", "facts.margin", "facts_en")
    }


def test_tasks_in_the_target_language_are_averaged(writer: Callable[..., Writer]) -> None:
    made = writer(near_chance_task=True, english=True, score=["facts", "xcopa_xx"])
    made.study()
    made.trial(0, TFT, 0.1)
    made.trial(1, objective(("feature", 2)), 0.4)
    table = build_report(made.folder)["supervision"]
    names = [column["name"] for column in table["columns"]]
    assert names == ["score", "facts", "xcopa_xx", "average", "facts.margin", "facts_en"]
    (group,) = table["groups"]
    for row in group["rows"]:
        parts = [row["cells"][name] for name in ("facts", "xcopa_xx")]
        assert row["cells"]["average"]["mean"] == pytest.approx(sum(part["mean"] for part in parts) / 2)
        assert row["cells"]["average"]["error"] == pytest.approx(math.hypot(*(part["error"] for part in parts)) / 2)
    page = (made.folder / "report.html").read_text()
    assert "The average is over facts and xcopa_xx." in page and "none of them was confirmed" in page


def test_figures_become_files_that_stand_alone(paper: Path, tmp_path: Path) -> None:
    report = build_report(paper)
    files = write_figures(report, tmp_path / "out")
    names = {file.name for file in files}
    assert names == {file.name for file in (tmp_path / "out").iterdir()}
    for name in ("arms", "lead", "layers", "parallel", "importance", "dev-score", "timeline", "cost"):
        assert {f"{name}.svg", f"{name}.dark.svg", f"{name}.csv", f"{name}.json"} <= names
        for kind, dark in (("svg", False), ("dark.svg", True)):
            text = (tmp_path / "out" / f"{name}.{kind}").read_text()
            drawing = ElementTree.fromstring(text)
            assert "var(" not in text and drawing.find(f"{SVG}title").text and len(drawing.find(f"{SVG}desc").text) > 40
            assert drawing.find(f"{SVG}rect").get("fill") == palette(dark)["paper"]
    board = (tmp_path / "out" / "leaderboard.csv").read_text().splitlines()
    assert len(board) == 1 + len(report["leaderboard"])
    assert str(report["leaderboard"][0]["dev"]["score"]) in board[1]
    assert json.loads((tmp_path / "out" / "layers.json").read_text()) == report["layer_map"]
    assert (tmp_path / "out" / "supervision.csv").read_text().count("\n") == 1 + sum(
        len(group["rows"]) for group in report["supervision"]["groups"]
    )


def light(color: str) -> float:
    """Relative luminance of a color, #rrggbb (WCAG 2.2)."""
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    dim, bright = sorted((light(one), light(other)))
    return (bright + 0.05) / (dim + 0.05)


def mixed(front: str, back: str, share: float) -> str:
    pairs = [(int(front[at : at + 2], 16), int(back[at : at + 2], 16)) for at in (1, 3, 5)]
    return "#" + "".join(f"{round(share * a + (1 - share) * b):02x}" for a, b in pairs)


@pytest.mark.parametrize("dark", [False, True])
def test_text_has_contrast_to_what_it_stands_on(dark: bool) -> None:
    colors = palette(dark)
    for name in ("ink", "soft", "accent", "bad", "alt"):
        assert contrast(colors[name], colors["paper"]) >= 4.5, name
    for name in ("ink", "soft"):
        assert contrast(colors[name], colors["panel"]) >= 4.5, name
    for name in ("others", "q0", "q1", "q2", "q3", "q4"):
        assert contrast(colors[name], colors["paper"]) >= 3, name
    inks = {"low": colors["low"], "between": colors["between"], "on": colors["on-accent"]}
    for share in np.arange(0.14, 1.001, 0.01):
        ink = next(name for limit, name in INKS if share < limit)
        assert contrast(inks[ink], mixed(colors["accent"], colors["paper"], float(share))) >= 4.5, (share, ink)


def large(folder: Path, trials: int) -> None:
    """A study of many trials, written as fast as can be: every file is a copy of one with another number."""
    writer = Writer(folder, num_layers=32)
    writer.study(planned=trials)
    draw = random.Random(1)
    writer.trial(0, TFT, 0.1)
    writer.trial(1, objective(("logits", 2), ("feature", 15)), 0.2)
    home = folder / "trials" / "t0001"
    about, reports = json.loads((home / "trial.json").read_text()), (home / "reports.jsonl").read_text()
    for number in range(2, trials):
        i = draw.randint(1, 16)
        goal, score = (
            objective(("logits", i), ("feature", draw.randint(i + 1, 32)), weight=draw.random()),
            draw.random(),
        )
        one = {**about, "trial": number, "params": writer._params(goal, 1e-3 * draw.random())}
        one["dev"] = {name: {**found, "value": score} for name, found in about["dev"].items()}
        one |= {"started": about["started"] + 8 * number, "ended": about["started"] + 8 * number + 7}
        if number % 3:
            one |= {"outcome": "pruned", "fraction": 0.25}
        place = folder / "trials" / f"t{number:04d}"
        place.mkdir()
        (place / "trial.json").write_text(json.dumps(one))
        (place / "recipe.yaml").write_text(json.dumps({"recipe": {"objective": goal}}))
        (place / "reports.jsonl").write_text(reports)


@pytest.mark.slow
def test_a_thousand_trials_make_a_page_that_opens(tmp_path: Path) -> None:
    from dft_search.report.collect import collect
    from dft_search.report.data import report_data
    from dft_search.report.html import render_page

    large(tmp_path / "many", 1000)
    view = collect(tmp_path / "many")
    began = time.process_time()
    page = render_page(report_data(view))
    assert time.process_time() - began < 20  # a few seconds where the machine is not this slow
    assert len(page.encode()) < 5e6
    drawn = page.count('class="way ')
    assert 250 < drawn <= 300 and f"Of 1000 trials {drawn} are drawn" in page
    assert "search: pruned at 25 % (665)" in page and "search: completed (335)" in page
    assert page.count("<tr", page.index('id="leaderboard"'), page.index('id="layers"')) == 1001


def test_the_command_writes_figures_where_it_is_told(
    paper: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dft_search.cli.report import run

    run(f"{paper}/", figures=tmp_path / "figures", as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert {Path(file) for file in told["files"]["figures"]} == set((tmp_path / "figures").iterdir())
    run(f"{paper}/", figures=tmp_path / "figures")
    assert f"files in {tmp_path / 'figures'}" in capsys.readouterr().out
    (tmp_path / "taken").write_text("")
    with pytest.raises(RequestError, match="cannot be made"):
        run(f"{paper}/", figures=tmp_path / "taken")


def test_the_maps_mark_the_papers_layers_and_those_of_the_entropy_profile(tmp_path: Path) -> None:
    """The profile's pair is marked where the study made one, with how stable it is; without a profile nothing is."""
    folder = full_study(tmp_path / "demo", trials=40).folder
    before = build_report(folder)
    assert before["layer_map"]["entropy"] is None
    proposal = {"tokens": "query", "i": 1, "j": 5, "stability": {"i": 1.0, "j": 0.83, "pair": 0.83}}
    (folder / "layers.json").write_text(json.dumps({"proposal": proposal}))
    report = build_report(folder)
    assert report["layer_map"]["entropy"] == {"conversion": 1, "thinking": 5, "share": 0.83}
    page = (folder / "report.html").read_text()
    maps = page.count("the layers that the entropy profile proposes")
    assert maps == page.count("s layers, at this depth<") == 1 + bool(report["layer_map"]["surface"]["points"])
    assert "entropy proposes (conversion 1, thinking 5; in 83 % of resamples of its prompts)" in page.replace("\xa0", " ")
