"""The report of a study with every arm: what it says beside the primary comparison, and what it could not conclude."""

import json
from pathlib import Path
from typing import Any

import pytest

from dft_search.report import build_report
from dft_search.report.english import english_change
from dft_search.report.evidence import evidence
from dft_search.report.statistics import Comparison
from dft_search.report.verdict import confirmed_verdict
from dft_search.report.wording import Scale
from tests.report.conftest import paper_study
from tests.report.test_report import Page, printed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paper_study(tmp_path_factory.mktemp("studies") / "paper").folder


def test_all_of_it_is_told_on_page_and_terminal(folder: Path) -> None:
    report = build_report(folder)
    page, terminal = Page((folder / "report.html").read_text()), " ".join(printed(report, 200).split())
    told = dict(evidence(report))
    assert set(told) == {"Equal rows", "Equal FLOPs", "English", "Tuning", "Sealed"}
    for sentence in told.values():
        assert sentence in page.words and sentence in terminal
    assert "1.42 times the FLOPs" in told["Equal rows"] and "5eal5eal5eal5eal" in told["Sealed"]
    assert told["Tuning"].startswith("plain TFT had 4 trials (1 of the search, 3 of its own), the search 12")
    assert "trial 20001, the best of 4 of plain TFT" in page.words
    assert "3.0 T" in page.words  # FLOPs of a run of the champion
    assert report["test"]["clusters"] == 100 and report["test"]["items"] == 500
    assert "500 items in 100 clusters" in report["test"]["method"]


def test_many_arms_do_not_hide_a_large_lead(folder: Path) -> None:
    """Eight seeds reach p = 2/256 at best; times nine arms that would be nothing, whatever the lead."""
    arms = build_report(folder)["arms"]
    large = {name: arm["champion_minus_arm"] for name, arm in arms.items() if name in ("base", "sft", "tft_english")}
    assert all(lead["conclusion"] == "better" and 2 / 256 <= lead["p_holm"] < 0.05 for lead in large.values())


def test_what_is_left_open_is_said(folder: Path) -> None:
    limits = " ".join(build_report(folder)["limits"])
    assert "Test was read before, for other arms or seeds (2025-11-20 00:53 UTC): this is look number 2" in limits
    assert "Plain TFT was tuned with 4 trials, the search had 12" in limits
    assert "The arm shuffled English did not run" in limits
    assert "look number 2 at test" in build_report(folder)["verdict"]


def test_equal_compute_is_asked_for_where_it_is_missing(folder: Path) -> None:
    from dft_search.report.caveats import of_the_confirmation
    from dft_search.report.collect import collect

    view, report = collect(folder), build_report(folder)
    assert "no TFT run had as many" not in " ".join(of_the_confirmation(view, report))
    arms = {name: arm for name, arm in report["arms"].items() if name != "tft_equal_flops"}
    less: dict[str, Any] = {**report, "arms": arms, "test": {**report["test"], "english": None}}
    said = " ".join(of_the_confirmation(view, less))
    assert "took 1.42 times the FLOPs of plain TFT, and no TFT run had as many" in said
    assert "Nothing was asked in English" in said


def answers(share: float, seeds: int = 8, items: int = 2000) -> list[tuple[int, dict[str, list[float]]]]:
    return [(seed, {"en": [float((n + seed) % 100 < 100 * share) for n in range(items)]}) for seed in range(seeds)]


def test_english_holds_when_its_bound_is_within_the_margin() -> None:
    base = answers(0.8, seeds=1)
    same = english_change(answers(0.8), base, fixed=True)
    assert same is not None and same["holds"] and same["change"] == pytest.approx(0.0)
    lost = english_change(answers(0.77), base, fixed=True)
    assert lost is not None and not lost["holds"] and lost["bound"] < -0.03
    few = english_change([(seed, {"en": [1.0, 0.0, 1.0, float(seed % 2)]}) for seed in range(3)], answers(0.5, 3, 4))
    assert few is not None and not few["holds"]  # too few items to rule a loss out
    assert english_change([], base) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bound": -0.004, "change": 0.001, "holds": True}, "its English holds, at most 0.4 points below the base"),
        ({"bound": -0.02, "change": -0.002, "holds": False}, "its English is not shown to hold, it may be 2.0 points"),
        ({"bound": -0.05, "change": -0.03, "holds": False}, "it loses English, 3.0 points against the base"),
    ],
)
def test_the_verdict_says_what_became_of_english(change: dict[str, Any], said: str) -> None:
    result = Comparison(0.03, (0.01, 0.05), 0.01, 0.02, 0.01, 8, 400, True, "m", "better")
    english = {"holds": change["holds"], "against": {"base": {"label": "the base", "margin": 0.01, **change}}}
    verdict = confirmed_verdict(
        result, Scale(True), champion="x", baseline="plain TFT", champion_test=0.5, seeds=8, english=english
    )
    assert said in verdict and "is better than plain TFT on test" in verdict and verdict.count(". ") == 0


def test_the_kept_file_says_the_same(folder: Path) -> None:
    kept = json.loads((folder / "confirmation.json").read_text())
    assert kept["test"]["seal"]["hash"] == "5eal5eal5eal5eal" and kept["test"]["english"]["part"] == "test"
    assert kept["arms"]["base"]["champion_minus_arm"]["seeds"] == 8  # against one run without luck of its own
    assert kept["test"]["candidates"] == 2
