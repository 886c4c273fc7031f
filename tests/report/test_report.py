"""The whole report of whole, broken, empty and running studies: data, page and terminal."""

import fcntl
import io
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from dft_search.config import RequestError
from dft_search.report import build_report, print_report
from dft_search.report.collect import ScoreView
from dft_search.report.limits import near_chance
from dft_search.report.wording import Scale, describe_recipe

VOID = {"meta", "link", "br"}
SHAPE = {"verdict", "champion", "leaderboard", "arms", "test", "importance", "layer_map"}

PLAIN = {"method": "dft", "conversion": {"supervision": "none"}, "thinking": {"supervision": "none"}}
DEEP = {
    "method": "dft",
    "conversion": {"supervision": "feature", "layer": 1, "weight": 0.3},
    "thinking": {"supervision": "logits", "layer": 4, "weight": 1.0},
}


class Page(HTMLParser):
    """Reads a page strictly: every element is closed in order; keeps ids, links, references and cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, dict(attrs)))
        self.ids += [value for key, value in attrs if key == "id" and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).replace("\xa0", " ").split())


def printed(report: dict[str, Any], width: int = 160) -> str:
    stream = io.StringIO()
    print_report(report, Console(file=stream, width=width))
    return stream.getvalue()


def test_the_document_has_the_promised_shape(finished: Path) -> None:
    report = build_report(finished)
    assert SHAPE <= set(report)
    assert json.loads((finished / "report.json").read_text()) == report
    assert {"trial", "params", "dev", "test", "seeds"} <= set(report["champion"])
    assert {"test", "seeds"} <= set(report["arms"]["tft"])
    assert {"p_value", "method", "smallest_effect"} <= set(report["test"])
    first = report["leaderboard"][0]
    assert {"trial", "outcome", "params", "dev", "mlflow_run_id"} <= set(first)
    assert {"score", "stderr"} <= set(first["dev"])
    assert report["verdict"] == json.loads((finished / "confirmation.json").read_text())["verdict"]
    assert not list(finished.glob(".report*")), "drafts are left behind"


def test_the_leaderboard_ranks_completed_trials_by_score_and_leaves_others_unranked(finished: Path) -> None:
    rows = build_report(finished)["leaderboard"]
    assert [row["trial"] for row in rows] != sorted(row["trial"] for row in rows)
    ranked = [row for row in rows if row["rank"] is not None]
    scores = [row["dev"]["score"] for row in ranked]
    assert scores == sorted(scores, reverse=True)
    assert [row["rank"] for row in ranked] == list(range(1, len(ranked) + 1))
    assert {row["outcome"] for row in ranked} == {"completed"}
    assert {row["outcome"] for row in rows[len(ranked) :]} == {"pruned", "diverged", "out_of_memory"}
    assert len(rows) == 24


def test_confirmation_runs_and_test_scores_stay_out_of_the_search(finished: Path) -> None:
    report = build_report(finished)
    assert all(row["trial"] < 10_000 for row in report["leaderboard"])
    assert "items_test" not in json.dumps(report["leaderboard"])
    assert {entry["phase"] for entry in report["cost"]} == {"search", "confirm"}


def test_the_page_is_well_formed_and_asks_nothing_of_a_network(finished: Path) -> None:
    build_report(finished)
    text = (finished / "report.html").read_text()
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    for tag, attributes in page.attributes:
        for key in ("src", "srcset", "action", "data", "poster", "background"):
            assert key not in attributes, f"<{tag} {key}>"
        target = attributes.get("href")
        assert target is None or target == "data:," or (target.startswith("#") and target[1:] in page.ids)
    assert not re.search(r"@import|url\(|https?://|//[a-z]|fetch\(|XMLHttpRequest|WebSocket", text.split("<body>")[0])
    script = text.split("<script>")[1].replace('"http://www.w3.org/2000/svg"', "")  # a name, not an address
    assert not re.search(r"https?:|fetch\(|XMLHttpRequest|WebSocket|import\(", script)
    for drawing in re.findall(r"<svg .*?</svg>", text, re.S):
        ElementTree.fromstring(drawing)


def test_every_figure_has_alternative_text_and_says_what_to_see(finished: Path) -> None:
    build_report(finished)
    text = (finished / "report.html").read_text()
    figures = re.findall(r"<figure .*?</figure>", text, re.S)
    assert len(figures) >= 8
    for figure in figures:
        assert re.search(r'<svg [^>]*role="img" aria-label="[^"]{20,}"', figure)
        assert len(re.search(r"<figcaption>(.*?)</figcaption>", figure, re.S).group(1)) > 40
        assert re.search(r'<figure id="([\w-]+)" [^>]*aria-labelledby="\1-title"', figure)
        assert "<table>" in figure, "the numbers of a figure can be read without seeing it"


def test_numbers_on_the_page_are_those_of_the_document(finished: Path) -> None:
    report = build_report(finished)
    text = (finished / "report.html").read_text()
    board = text.split('<table class="sortable')[1].split("</table>")[0]
    rows = re.findall(r"<tr.*?</tr>", board.split("<tbody>")[1], re.S)
    assert len(rows) == len(report["leaderboard"])
    for row, entry in zip(rows, report["leaderboard"], strict=True):
        values = re.findall(r'<td class="num(?: plot)?" data-value="([^"]+)">', row)
        assert float(values[0 if entry["rank"] is None else 1]) == entry["trial"]
        assert repr(entry["dev"]["score"]) in values
        assert f"{100 * entry['dev']['score']:.1f} ± {100 * entry['dev']['stderr']:.1f}" in row
    words = Page(text).words
    assert report["verdict"] in words
    for arm in report["arms"].values():
        assert f"{100 * arm['test']['mean']:.1f} ± {100 * arm['test']['sd']:.1f}" in words
    lead = report["arms"]["tft"]["champion_minus_arm"]
    low, high = (f"{100 * bound:+.1f}" for bound in lead["interval"])
    assert f"{100 * lead['difference']:+.1f} ({low} to {high})" in words
    for sentence in report["limits"]:
        assert sentence in words


def test_the_terminal_says_the_same(finished: Path) -> None:
    report = build_report(finished)
    said = printed(report)
    flat = " ".join(said.split())
    assert flat.startswith(report["verdict"])
    assert "What could not be concluded" in said
    assert str((finished / "report.html").resolve()) in said
    best = report["leaderboard"][0]
    assert f"{100 * best['dev']['score']:.1f} ± {100 * best['dev']['stderr']:.1f}" in said
    assert f"and {len(report['leaderboard']) - 12} more trials" in said
    assert "plain TFT" in said and "(primary)" in said and "(Holm)" in said


def test_a_narrow_terminal_keeps_every_recipe_readable(finished: Path) -> None:
    said = printed(build_report(finished), width=80)
    assert max(len(line.rstrip()) for line in said.splitlines() if not line.startswith(("page:", "data:"))) <= 80
    assert "conversio\n" not in said and "95 % interval  " not in said


def test_a_confirmation_without_test_scores_claims_nothing(writer: Callable[..., Any]) -> None:
    made = writer()
    made.study()
    for seed in range(2):
        for number, arm, goal in ((10_000, "best1", DEEP), (10_100, "tft", PLAIN)):
            made.trial(number + seed, goal, 0.2, phase="confirm", arm=arm, seed=seed)
            path = made.folder / f"trials/t{number + seed}/trial.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | {"test": None}))
    made.trial(4, DEEP, 0.2)
    made.confirm({"best1": 4})
    report = build_report(made.folder)
    assert "has no score on test" in report["verdict"] and "no gain can be claimed" in report["verdict"]
    assert report["test"]["p_value"] is None
    page = Page((made.folder / "report.html").read_text())
    assert "No run has a score on test. On dev, over fresh seeds: champion (trial 4)" in page.words
    assert printed(report)


def test_few_seeds_and_an_equal_control_are_told(finished: Path) -> None:
    limits = " ".join(build_report(finished)["limits"])
    assert "3 seeds per arm cannot reach p < 0.05" in limits
    assert "not shown to be better than thinking at the top layer, so the depth" in limits
    assert "stopped early by the scheduler" in limits
    assert "1 diverged and 1 out of memory" in limits


def test_a_running_study_is_reported_as_far_as_it_is(writer: Callable[..., Any]) -> None:
    made = writer()
    made.study(state="running", planned=24)
    assert build_report(made.folder)["verdict"].startswith("The study is running and no trial has completed yet")
    made.trial(0, PLAIN, 0.1)
    made.trial(1, DEEP, 0.1, outcome="running", fraction=0.5)
    report = build_report(made.folder)
    assert report["verdict"].startswith("The study is running, 1 of 24 planned trials completed: so far trial 0")
    assert report["champion"]["test"] is None
    assert report["test"] == {"p_value": None, "method": None, "smallest_effect": None}
    assert "The study is running" in " ".join(report["limits"])
    assert "Test was not read" in Page((made.folder / "report.html").read_text()).words
    assert "leader:" in printed(report)


def test_a_study_whose_trials_all_failed_concludes_nothing(writer: Callable[..., Any]) -> None:
    made = writer()
    made.study()
    made.trial(0, PLAIN, 0.1, outcome="failed", fraction=0.0, message="Traceback (most recent)\nValueError: <broken>")
    made.trial(1, DEEP, 0.1, outcome="diverged", fraction=0.25)
    made.trial(2, DEEP, 0.1, outcome="failed", fraction=0.0)
    report = build_report(made.folder)
    assert report["verdict"] == "Nothing can be concluded: no trial completed (2 failed and 1 diverged)."
    assert report["champion"] is None
    assert report["layer_map"]["cells"][0]["best"] is None
    page = Page((made.folder / "report.html").read_text())
    assert "No completed trial to place" in page.words
    assert "ValueError: <broken>" in page.words
    assert printed(report)


def test_one_trial_is_compared_with_nothing(writer: Callable[..., Any]) -> None:
    made = writer()
    made.study()
    made.trial(0, DEEP, 0.1)
    report = build_report(made.folder)
    assert report["verdict"].startswith("Nothing is confirmed: a single trial completed")
    assert "conversion feature at layer 1, thinking logits at layer 4" in report["verdict"]
    assert Page((made.folder / "report.html").read_text())


def test_without_a_confirmation_the_best_of_many_is_called_that(writer: Callable[..., Any]) -> None:
    made = writer()
    made.study()
    made.trial(0, PLAIN, 0.0)
    made.trial(1, DEEP, 1.5)
    report = build_report(made.folder)
    assert report["champion"]["trial"] == 1
    assert "the highest of 2 completed trials, which chance alone favors" in report["verdict"]
    assert report["importance"]["values"] == {}
    assert "it takes 10 completed trials, and there are 2" in report["importance"]["reason"]


def test_an_empty_study_and_no_study(tmp_path: Path, writer: Callable[..., Any]) -> None:
    made = writer("alpaca-zh")
    made.study(state="interrupted")
    assert build_report(made.folder)["verdict"].endswith("no trial completed (none was started).")
    with pytest.raises(RequestError, match="did you mean 'alpaca-zh'"):
        build_report(tmp_path / "alpaca-zn")
    (tmp_path / "other").mkdir()
    with pytest.raises(RequestError, match="not a study's folder"):
        build_report(tmp_path / "other")
    assert not (tmp_path / "other" / "report.html").exists()


def test_files_cut_off_by_a_kill_are_named_and_left_out(writer: Callable[..., Any]) -> None:
    made = writer()
    made.study(state="interrupted")
    for number in range(3):
        made.trial(number, DEEP, 0.1)
    (made.folder / "trials/t0001/trial.json").write_text('{"trial": 1, "outc')
    with (made.folder / "trials/t0002/reports.jsonl").open("a") as file:
        file.write('{"step": 12')
    report = build_report(made.folder)
    assert [row["trial"] for row in report["leaderboard"]] != []
    assert {row["trial"] for row in report["leaderboard"]} == {0, 2}
    assert "t0001/trial.json" in " ".join(report["limits"])


def test_a_metric_near_chance_is_called_that(writer: Callable[..., Any]) -> None:
    made = writer(near_chance_task=True)
    made.study()
    for number in range(2):
        made.trial(number, DEEP, 0.5)
    report = build_report(made.folder)
    near = {entry["metric"]: entry for entry in report["near_chance"]}
    assert set(near) == {"xcopa_xx"}
    assert near["xcopa_xx"]["value"] - 0.5 < 2 * near["xcopa_xx"]["stderr"]
    assert "xcopa_xx is near chance" in " ".join(report["limits"])


def test_the_best_of_many_guesses_is_still_a_guess() -> None:
    """2.2 standard errors above chance: more than a lone run reaches by luck, less than the best of ten does."""
    lucky, plain = (ScoreView(value, 0.07, 50, chance=0.5) for value in (0.654, 0.5))

    def near(others: int) -> list[str]:
        runs = [SimpleNamespace(completed=True, dev={"xcopa_zh": score}) for score in [lucky, *[plain] * others]]
        return [entry["metric"] for entry in near_chance(SimpleNamespace(trials=runs))]

    assert (near(0), near(9)) == ([], ["xcopa_zh"])


def test_not_a_number_never_reaches_the_document(writer: Callable[..., Any]) -> None:
    made = writer()
    made.study()
    made.trial(0, DEEP, 0.1, outcome="diverged", fraction=0.25)
    about = json.loads((made.folder / "trials/t0000/trial.json").read_text())
    about["dev"]["score"]["value"] = float("nan")
    (made.folder / "trials/t0000/trial.json").write_text(json.dumps(about))
    report = build_report(made.folder)
    assert report["leaderboard"][0]["dev"]["score"] is None
    assert "NaN" not in (made.folder / "report.json").read_text()


def test_the_layer_map_counts_and_scores_pairs(writer: Callable[..., Any]) -> None:
    made = writer()
    made.study()
    made.trial(0, PLAIN, 0.1)
    made.trial(1, DEEP, 0.1)
    made.trial(2, DEEP, 0.9)
    made.trial(3, DEEP, 0.9, outcome="pruned", fraction=0.25)
    report = build_report(made.folder)
    cells = {(cell["conversion"], cell["thinking"]): cell for cell in report["layer_map"]["cells"]}
    assert set(cells) == {(None, None), (1, 4)}
    pair = cells[1, 4]
    scores = {row["trial"]: row["dev"]["score"] for row in report["leaderboard"]}
    assert pair["best"] == max(scores[1], scores[2])
    assert pair["mean"] == pytest.approx((scores[1] + scores[2]) / 2)
    assert (pair["n"], pair["unfinished"], pair["trials"]) == (2, 1, [1, 2])


def test_importance_finds_the_parameter_that_matters(writer: Callable[..., Any]) -> None:
    made = writer()
    made.study()
    for number in range(24):
        layer = 1 + number % 6
        goal = {
            "method": "dft",
            "conversion": {"supervision": "none"},
            "thinking": {"supervision": "logits", "layer": layer, "weight": 0.1 + 0.3 * (number // 6 % 3)},
        }
        made.trial(number, goal, 3.0 if layer == 5 else -1.0)
    made.journal()
    importance = build_report(made.folder)["importance"]
    assert importance["reason"] is None
    assert next(iter(importance["values"])) == "objective.thinking.layer"
    assert sum(importance["values"].values()) == pytest.approx(1.0)
    assert "the best 4 of 24" in importance["method"]


def test_a_name_from_a_file_cannot_become_markup(writer: Callable[..., Any]) -> None:
    made = writer()
    made.study()
    made.trial(0, DEEP, 0.1)
    made.trial(1, DEEP, 0.1, outcome="failed", message="<script>alert(1)</script>")
    about = json.loads((made.folder / "study.json").read_text()) | {"model": '"><img src=x>'}
    (made.folder / "study.json").write_text(json.dumps(about))
    build_report(made.folder)
    text = (made.folder / "report.html").read_text()
    assert "<img" not in text and "<script>alert" not in text
    assert Page(text)


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        (PLAIN, "plain TFT"),
        ({"method": "tft"}, "plain TFT"),
        ({"method": "dft"}, "plain TFT"),
        ({"method": "sft"}, "plain SFT"),
        (DEEP, "conversion feature at layer 1, thinking logits at layer 4"),
        ({"method": "mid_align", "alignment": {"layer": 3}}, "mid-align at layer 3"),
        ({"method": "dft", "alignment": {"supervision": "contrastive", "layer": 3}}, "alignment at layer 3"),
    ],
)
def test_a_recipe_is_described_by_what_it_uses(objective: dict[str, Any], words: str) -> None:
    assert describe_recipe({"objective": objective}) == words


def test_defaults_that_a_recipe_leaves_out_count(writer: Callable[..., Any]) -> None:
    made = writer(num_layers=20)
    made.study()
    made.trial(0, DEEP, 0.1)
    home = made.folder / "trials/t0000"
    (home / "recipe.yaml").write_text("recipe: {objective: {thinking: {layer: 50%}}}")
    row = build_report(made.folder)["leaderboard"][0]
    assert row["label"] == "conversion logits at layer 2, thinking logits at layer 10"
    assert row["layers"] == {"conversion": 2, "thinking": 10}


def test_a_study_that_was_killed_is_not_called_running(writer: Callable[..., Any]) -> None:
    made = writer()
    made.study(state="running")
    made.trial(0, DEEP, 0.1, outcome="running", fraction=0.25)
    with (made.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert build_report(made.folder)["study"]["state"] == "running"
    report = build_report(made.folder)
    assert report["study"]["state"] == "interrupted"
    assert report["verdict"] == "Nothing can be concluded: no trial completed (1 interrupted)."


def test_the_address_of_the_tracking_server_is_not_passed_on(writer: Callable[..., Any]) -> None:
    made = writer()
    made.study()
    about = json.loads((made.folder / "study.json").read_text())
    about["mlflow"]["uri"] = "http://me:secret@host:5000"
    (made.folder / "study.json").write_text(json.dumps(about))
    build_report(made.folder)
    assert "secret" not in (made.folder / "report.html").read_text() + (made.folder / "report.json").read_text()


def test_scales_show_points_and_raw_numbers() -> None:
    points, raw = Scale(True), Scale(False)
    assert points.spread(0.5743, 0.0371) == "57.4 ± 3.7"
    assert raw.spread(-3.21456, 0.01234) == "-3.215 ± 0.012"
    assert (points.signed(-0.00001), points.signed(0.008), raw.signed(-0.0312)) == ("+0.0", "+0.8", "-0.0312")
    assert (points.number(None), raw.number(float("nan"))) == ("-", "-")


def test_a_feature_loss_that_starts_near_zero_is_told(writer: Callable[..., Any]) -> None:
    made = writer()
    made.study()
    feature = {**DEEP, "conversion": {"supervision": "feature", "layer": 2, "weight": 0.3}}
    made.trial(0, feature, 0.5)
    made.trial(1, feature, 0.5)
    path = made.folder / "trials" / "t0001" / "reports.jsonl"
    reports = [json.loads(line) for line in path.read_text().splitlines()]
    reports[0]["history"][0]["metrics"]["loss/conversion"] = 0.01
    path.write_text("".join(json.dumps(report) + "\n" for report in reports))
    limits = " ".join(build_report(made.folder)["limits"])
    assert "The conversion loss on features started below 0.05 in 1 of 2 runs" in limits
    assert "The thinking loss on features" not in limits


def test_states_that_have_collapsed_are_told(writer: Callable[..., Any]) -> None:
    made = writer()
    made.study()
    feature = {**DEEP, "conversion": {"supervision": "feature", "layer": 2, "weight": 0.3}}
    for number, (first, last) in enumerate([(0.3, 0.01), (0.3, 0.25), (0.001, 0.0)]):
        made.trial(number, feature, 0.5)
        path = made.folder / "trials" / f"t{number:04d}" / "reports.jsonl"
        reports = [json.loads(line) for line in path.read_text().splitlines()]
        records = [record for report in reports for record in report["history"]]
        for place, record in enumerate(records):
            share = place / (len(records) - 1)
            record["metrics"]["conversion/separation"] = first + (last - first) * min(1.0, 1.5 * share)
        path.write_text("".join(json.dumps(report) + "\n" for report in reports))
    limits = " ".join(build_report(made.folder)["limits"])
    assert "The states that conversion compares may have collapsed in 1 of 3 runs" in limits
    assert "(conversion/separation; trial 0)" in limits and "The states that thinking" not in limits


def test_a_score_that_is_no_plain_mean_is_compared_by_its_items(finished: Path, tmp_path: Path) -> None:
    """Its items are kept under score/NAME; without them the comparison would know the seeds alone."""
    folder = tmp_path / "weighted"
    shutil.copytree(finished, folder)
    for home in (folder / "trials").iterdir():
        about = json.loads((home / "trial.json").read_text())
        if "test" in about and (home / "items_test.json").exists():
            items = json.loads((home / "items_test.json").read_text())
            about["test"]["score"]["value"] = 2 * about["test"]["score"]["value"] - 0.1
            items["score/facts"] = [2 * value - 0.1 for value in items["facts"]]
            (home / "trial.json").write_text(json.dumps(about))
            (home / "items_test.json").write_text(json.dumps(items))
    plain, weighted = build_report(finished)["test"], build_report(folder)["test"]
    assert (weighted["items"], weighted["clusters"]) == (plain["items"], plain["clusters"]) == (500, 500)
    assert weighted["p_value"] == pytest.approx(plain["p_value"])
