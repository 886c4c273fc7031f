"""What a run says that it took: tokens and floating-point operations of the steps that it made."""

import pytest

from dft_search.data.order import RowOrder
from dft_search.objectives.batch import collate
from dft_search.objectives.flops import batch_flops
from dft_search.training.seeds import derive
from dft_search.training.workspace import Workspace
from tests.training.tiny import Memory, make_recipe, train


@pytest.mark.parametrize("objective", ["tft", "logits"])
def test_flops_are_those_of_the_rows_that_were_read(world, tmp_path, objective):
    recipe, workspace = make_recipe(world, objective), Workspace()
    reports = train(recipe, tmp_path, workspace, rungs=(0.5,)).memory.reports
    data, built = workspace.encoded(recipe), workspace.latest
    order = RowOrder(len(data), 8, derive(5, "order"))
    layers = built.model.config.num_hidden_layers
    steps = []
    for step in range(6):
        rows = [data[row] for row in order.batch(step)]
        steps.append(batch_flops(built.module, collate(rows, recipe.objective, layers, has_bos=data.has_bos)).total)
    assert [report.flops for report in reports] == [sum(steps[:3]), sum(steps)]


def test_a_resumed_run_counts_all_of_its_steps(world, tmp_path):
    recipe = make_recipe(world, "logits")
    whole = train(recipe, tmp_path / "whole").memory.reports[-1]
    train(recipe, tmp_path / "halted", memory=Memory(stop_before=4))
    resumed = train(recipe, tmp_path / "halted").memory.reports[-1]
    assert (resumed.flops, resumed.tokens) == (whole.flops, whole.tokens) and whole.flops > 0
