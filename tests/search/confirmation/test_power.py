"""The smallest effect that `plan` tells: from an earlier study's noise, else from an assumption that it states."""

import json
from pathlib import Path
from typing import Any

import pytest

from dft_search.config.document import to_yaml
from dft_search.report.statistics import RunScores, compare
from dft_search.search.confirmation.power import plan_power
from dft_search.search.definition import load_study
from dft_search.search.planning import plan
from dft_search.search.study_folder import StudyFolder, studies_folder
from tests.search.small import study, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    return folder


def power(world: Path, mean: str = "tiny_questions", **confirm: Any) -> dict[str, Any]:
    plain = study(world, confirm={"top": 1, "seeds": 8, "arms": ["tft"], **confirm})
    plain["recipe"]["scoring"]["score"]["mean"] = [mean]
    path = world / "power.yaml"
    path.write_text(to_yaml(plain))
    return plan_power(load_study(path))


def test_without_an_earlier_study_the_assumption_is_told(world, home):
    found = power(world)
    assert found["unit"] == "points" and found["items"] == 8 and "assumed 1 point between seeds" in found["assumption"]
    # (t(0.975) + t(0.8)) * sqrt(0.15 / 8 + 2 * 0.01**2 / 8), with about 7 degrees of freedom
    assert found["value"] == pytest.approx(100 * (2.36 + 0.90) * (0.15 / 8 + 2 * 0.01**2 / 8) ** 0.5, rel=0.02)
    assert power(world, seeds=16)["value"] < found["value"] < power(world, top=5)["value"]
    assert found["enough_seeds"] and not power(world, seeds=5)["enough_seeds"]
    other = power(world, "tiny_questions.margin")
    assert other["unit"] == "seed deviations" and other["value"] == pytest.approx((2.365 + 0.896) * 0.5, rel=1e-3)


def test_an_earlier_study_of_this_model_and_score_tells_its_noise(world, home):
    gaps = [0.5, -0.1, 0.3, 0.2]
    result = compare([RunScores(k, gap) for k, gap in enumerate(gaps)], [RunScores(k, 0.0) for k in range(4)])
    assert result.noise is not None
    noise = {name: getattr(result.noise, name) for name in result.noise.__slots__}
    folder = StudyFolder(studies_folder() / "pilot")
    folder.path.mkdir(parents=True)
    plain = study(world)
    folder.study_file.write_text(to_yaml(plain))
    test = {"noise": noise, "seeds": 4, "items": 8, "clusters": 8, "points": False}
    folder.confirmation.write_text(json.dumps({"test": test}))
    found = power(world, "tiny_questions.margin", seeds=4)
    assert found["unit"] == "score" and "study 'pilot', 4 seeds" in found["assumption"]
    assert found["value"] == pytest.approx(result.smallest_effect, abs=1e-3)
    assert power(world, "tiny_questions.margin", seeds=16)["value"] < found["value"] / 1.9
    assert "assumed" in power(world)["assumption"]  # another score


def test_plan_tells_it(world, home):
    power(world)
    found = plan(str(world / "power.yaml"), offline=True, overrides=["study.confirm=paper"])
    assert found["valid"] and found["smallest_effect"]["seeds"] == 8
    assert found["smallest_effect"]["value"] == power(world, top=3)["value"]
