"""Pruning where there is one slot: a trial that is stopped leaves it to the next one, to the last of them."""

import pytest

from dft_search.search.run import search
from dft_search.search.study_folder import StudyFolder, study_path
from tests.search.small import write_world

RATES = [1e-6, 1e-5, 3e-4, 1e-4, 1e-3, 3e-3]  # high ones hurt here: half of those before beat the 3rd, 5th and 6th


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_three_of_six_trials_are_pruned_and_the_study_ends(ray_cluster, tmp_path, home):
    file = write_world(
        tmp_path / "world", budget={"trials": 6}, sampler="grid", scheduler="asha", first_points=[], rungs=[0.5]
    )
    overrides = [
        f"space={{training.optimizer.learning_rate: {{choice: {RATES}}}}}",
        "recipe.training.length.steps=24",
    ]
    assert search(str(file), name=None, resume=False, confirm=False, overrides=overrides) == 0
    trials = [trial for trial in StudyFolder(study_path("tiny")).read_trials() if trial.phase == "search"]
    outcomes = {trial.params["training.optimizer.learning_rate"]: trial.outcome for trial in trials}
    assert [outcomes[rate] for rate in RATES] == ["completed", "completed", "pruned", "completed", "pruned", "pruned"]
