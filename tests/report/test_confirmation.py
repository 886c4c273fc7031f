"""confirmation.json: who becomes champion, what is compared on test, and the sentence that follows."""

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from dft_search.report import Arm, ArmRun, compare_arms
from dft_search.report.statistics import Comparison
from dft_search.report.verdict import confirmed_verdict
from dft_search.report.wording import Scale


def arm(dev: float, test: float | None, *, seeds: int = 8, label: str = "recipe", trial: int | None = None) -> Arm:
    """An arm whose runs answer a share `test` of 400 items rightly, the same ones but for a few by seed."""
    made = []
    for seed in range(seeds):
        draw = random.Random(seed)
        items = [float(index < 400 * (test or 0.0)) for index in range(400)]
        for index in draw.sample(range(400), 8):
            items[index] = float(draw.random() < 0.5)
        score = None if test is None else sum(items) / 400
        made.append(ArmRun(100 + seed, seed, dev + 0.002 * seed, score, None if test is None else {"facts": items}))
    return Arm(made, label=label, trial=trial, params={"objective.thinking.layer": 3})


def test_champion_and_baseline_are_chosen_on_dev_alone() -> None:
    arms = {
        "best1": arm(0.60, 0.50, label="first", trial=7),
        "best2": arm(0.55, 0.90, label="second", trial=3),
        "tft": arm(0.50, 0.40, label="plain TFT"),
        "sft": arm(0.30, 0.70, label="plain SFT"),
        "thinking_at_top": arm(0.70, 0.80, label="thinking logits at layer 6"),
    }
    result = compare_arms(arms, candidates=["best1", "best2"])
    assert result["champion"]["arm"] == "best1"
    assert result["champion"]["trial"] == 7
    assert result["test"]["baseline"] == "tft"
    assert result["test"]["difference"] == pytest.approx(0.1, abs=0.02)
    assert result["test"]["conclusion"] == "better"
    assert result["verdict"].startswith("The champion (first) is better than plain TFT on test: +")
    assert "p_holm" not in result["test"]
    assert result["arms"]["best1"]["champion_minus_arm"]["p_value"] is None


def test_secondary_comparisons_are_corrected() -> None:
    arms = {
        "best1": arm(0.60, 0.50),
        "tft": arm(0.50, 0.40),
        "paper": arm(0.50, 0.40),
        "thinking_at_top": arm(0.50, 0.50),
    }
    result = compare_arms(arms, candidates=["best1"])
    secondary = {name: entry["champion_minus_arm"] for name, entry in result["arms"].items() if name not in ("best1",)}
    assert "p_holm" not in secondary["tft"]
    assert secondary["paper"]["p_value"] <= secondary["paper"]["p_holm"] < 0.05
    assert secondary["thinking_at_top"]["p_holm"] == 1.0
    assert secondary["thinking_at_top"]["conclusion"] == "no_difference"


def test_less_is_better_when_the_objective_says_so() -> None:
    arms = {"best1": arm(0.60, 0.50), "best2": arm(0.40, 0.30, label="low"), "tft": arm(0.50, 0.40)}
    result = compare_arms(arms, candidates=["best1", "best2"], maximize=False)
    assert result["champion"]["arm"] == "best2"
    assert result["test"]["difference"] < 0
    assert result["test"]["conclusion"] == "better"


def test_an_arm_whose_runs_all_failed_is_told_and_not_compared() -> None:
    arms = {"best1": arm(0.6, 0.5), "tft": Arm([], label="plain TFT")}
    result = compare_arms(arms, candidates=["best1"])
    assert result["arms"]["tft"]["test"] == {"mean": None, "sd": None, "n": 0}
    assert result["test"]["p_value"] is None
    assert "no baseline ran beside it" in result["verdict"]
    with pytest.raises(ValueError, match="no candidate"):
        compare_arms({"best1": Arm([], label="x")}, candidates=["best1"])


def test_the_result_is_plain_json() -> None:
    result = compare_arms({"best1": arm(0.6, 0.5), "tft": arm(0.5, 0.4)}, candidates=["best1"])
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert {"champion", "arms", "test", "verdict"} <= set(result)
    assert {"trial", "params", "dev", "test", "seeds"} <= set(result["champion"])
    assert {"trials", "seeds", "dev", "test"} <= set(result["arms"]["tft"])
    assert {"p_value", "method", "smallest_effect", "difference", "interval"} <= set(result["test"])


def test_a_folder_gives_the_same_as_its_runs(writer: Callable[..., Any]) -> None:
    made = writer()
    made.study()
    goal = {"method": "dft", "conversion": {"supervision": "none"}, "thinking": {"supervision": "logits", "layer": 4}}
    plain = {"method": "dft", "conversion": {"supervision": "none"}, "thinking": {"supervision": "none"}}
    for seed in range(3):
        made.trial(10_000 + seed, goal, 0.4, phase="confirm", arm="best1", seed=seed)
        made.trial(10_100 + seed, plain, 0.1, phase="confirm", arm="tft", seed=seed)
    made.trial(10_003, goal, 0.4, phase="confirm", arm="best1", seed=3, outcome="failed", fraction=0.25)
    result = made.confirm({"best1": 5})
    assert result["champion"]["label"] == "thinking logits at layer 4"
    assert result["arms"]["best1"]["trials"] == [10_000, 10_001, 10_002]
    scores = [
        json.loads((made.folder / f"trials/t{10_000 + seed}/trial.json").read_text())["test"]["score"]["value"]
        for seed in range(3)
    ]
    assert result["champion"]["test"]["mean"] == pytest.approx(sum(scores) / 3)
    assert result["test"]["items"] == 500
    assert set(result["arms"]["tft"]["tasks"]) == {"facts", "facts.margin"}
    assert result["arms"]["best1"]["tasks"]["facts"]["mean"] == pytest.approx(sum(scores) / 3)
    assert result["test"]["points"] is True


def outcome(**changes: Any) -> Comparison:
    values: dict[str, Any] = {
        "difference": 0.008,
        "interval": (-0.019, 0.036),
        "p_value": 0.4,
        "smallest_effect": 0.04,
        "seed_deviation": 0.012,
        "seeds": 8,
        "items": 500,
        "paired": True,
        "method": "bootstrap",
        "conclusion": "no_difference",
    }
    return Comparison(**(values | changes))


@pytest.mark.parametrize(
    ("result", "sentence"),
    [
        (
            outcome(),
            "No difference could be shown between the champion (X) and plain TFT on test: +0.8 points, "
            "95 % interval -1.9 to +3.6, 8 seeds each.",
        ),
        (
            outcome(seeds=3),
            "No difference could be shown between the champion (X) and plain TFT on test: +0.8 points, "
            "95 % interval -1.9 to +3.6, 3 seeds each (fewer than 6 seeds cannot reach p < 0.05).",
        ),
        (
            outcome(p_value=0.01, interval=(0.002, 0.014)),
            "No difference could be shown between the champion (X) and plain TFT on test: +0.8 points, "
            "95 % interval +0.2 to +1.4, 8 seeds each (below the deviation between seeds, 1.2 points).",
        ),
        (
            outcome(difference=0.042, interval=(0.01, 0.074), p_value=0.012, conclusion="better"),
            "The champion (X) is better than plain TFT on test: +4.2 points, 95 % interval +1.0 to +7.4, "
            "p = 0.012, 8 seeds each.",
        ),
        (
            outcome(difference=-0.03, interval=(-0.05, -0.01), p_value=0.0078, conclusion="worse"),
            "The champion (X) is worse than plain TFT on test: -3.0 points, 95 % interval -5.0 to -1.0, "
            "p = 0.0078, 8 seeds each.",
        ),
        (
            outcome(seeds=1, interval=None, p_value=1.0),
            "No difference could be shown between the champion (X) and plain TFT on test: +0.8 points, "
            "1 seed each (fewer than 6 seeds cannot reach p < 0.05).",
        ),
    ],
)
def test_the_verdict_says_what_the_numbers_carry(result: Comparison, sentence: str) -> None:
    said = confirmed_verdict(
        result, Scale(True), champion="X", baseline="plain TFT", champion_test=0.5, seeds=result.seeds
    )
    assert said == sentence


def test_the_verdict_without_a_comparison_claims_nothing() -> None:
    def said(baseline: str | None, test: float | None) -> str:
        return confirmed_verdict(None, Scale(True), champion="X", baseline=baseline, champion_test=test, seeds=3)

    assert said(None, 0.574) == (
        "The champion (X) scored 57.4 on test (3 seeds); no baseline ran beside it, so no gain can be claimed."
    )
    assert "plain TFT has none to compare with" in said("plain TFT", 0.574)
    assert "no score on test" in said("plain TFT", None)


def test_scores_that_are_no_shares_have_no_points() -> None:
    said = confirmed_verdict(outcome(), Scale(False), champion="X", baseline="plain TFT", champion_test=0.5, seeds=8)
    assert "+0.008 in the score, 95 % interval -0.019 to +0.036" in said
    assert "points" not in said


def test_a_baseline_that_nothing_beat_is_said_to_be_one():
    said = confirmed_verdict(
        None, Scale(True), champion="plain TFT", baseline="SFT", champion_test=0.5, seeds=3, is_baseline=True
    )
    assert said.startswith("The best that the search found is a baseline, plain TFT") and "50" in said
