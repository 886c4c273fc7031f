"""A model that is sharded over two processes against HFLM and one process with the whole model."""

from dataclasses import asdict
from pathlib import Path

import pytest
from lm_eval.models.huggingface import HFLM

from dft_search.evaluation import Scorer
from tests.evaluation.conftest import MAX_LENGTH, make_answers, make_live, make_model, make_task, scoring
from tests.evaluation.samples import SEVEN, answers, assert_same
from tests.two_ranks import run_ranks

MODES = ("gathered", "lock-step")
PARAMETERS = 21  # of two blocks of 9 each, embedding, norm and head


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    make_task(folder, items=7)
    make_answers(folder)
    return folder


@pytest.fixture(scope="module")
def ranks(folder):
    """What each of two ranks saw."""
    return run_ranks(Path(__file__).with_name("rank.py"), folder)


@pytest.fixture(scope="module")
def model(tokenizer):
    """The whole model."""
    return make_model(tokenizer, dropout=0.5, steps=3).eval()


@pytest.fixture(scope="module")
def expected(model, tokenizer):
    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, max_length=MAX_LENGTH)


@pytest.mark.parametrize("mode", MODES)
def test_both_ranks_answer_as_hflm(ranks, expected, mode):
    found = [rank[mode] for rank in ranks]
    assert_same(found[0]["all"], answers(expected))
    assert found[0]["all"] == found[1]["all"], "to the last bit"
    assert min(rank["batches"] for rank in found) > 0, "the work must be spread"


@pytest.mark.parametrize("mode", MODES)
def test_unequal_work_ends(ranks, expected, mode):
    one = answers(expected, SEVEN[:1], ["The cow"], [("The cat sat on", {"max_gen_toks": 7})])
    seven = answers(expected, SEVEN, [], [])["loglikelihood"]
    for rank in ranks:
        assert_same(rank[mode]["one"], one)
        assert_same({**one, "loglikelihood": rank[mode]["seven"]}, {**one, "loglikelihood": seven})
        assert rank[mode]["none"] == {"loglikelihood": [], "rolling": [], "generate": []}
        assert rank[mode]["trained"], "the next training step must find the ranks together"
    # a pair and a text: one request leaves a rank without work
    assert [rank[mode]["one_batches"] for rank in ranks] == [2, 0]


@pytest.mark.parametrize("mode", MODES)
def test_an_error_on_one_rank_is_raised_on_both(ranks, mode):
    assert ranks[1][mode]["failure"] == "ValueError: a broken block"
    assert ranks[0][mode]["failure"] == "RuntimeError: rank 1 failed: ValueError: a broken block"


@pytest.mark.parametrize("what", ["again", "trained_again", "sharded", "unchanged", "training"])
@pytest.mark.parametrize("mode", MODES)
def test_scoring_leaves_the_shards_as_they_were(ranks, mode, what):
    assert [rank[mode][what] for rank in ranks] == [True, True]


def test_in_lock_step_one_block_is_whole_at_a_time(ranks):
    for rank in ranks:
        assert set(rank["gathered"]["whole"]) == {PARAMETERS}
        # the next block is on its way while one computes, and is whole only when its turn comes
        assert set(rank["lock-step"]["whole"]) == {12}


def test_weights_are_gathered_only_where_they_fit_on_every_rank(ranks, model):
    for rank in ranks:
        needed = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
        assert rank["choice"] == {"fits": True, "bytes": needed, "narrow": False}


def test_both_ranks_hold_the_scores_of_one_process(ranks, folder, model, tokenizer):
    tasks = [folder / f"{name}.yaml" for name in ("places", "answers")]
    whole = asdict(Scorer(scoring(["places.margin", "answers"], *tasks)).score(make_live(model, tokenizer), "steer"))
    assert ranks[0]["scores"] == ranks[1]["scores"]
    found = ranks[0]["scores"]
    assert found["items"].keys() == whole["items"].keys()
    for name, items in whole["items"].items():
        assert found["items"][name] == pytest.approx(items, abs=1e-6)
    for name, score in whole["values"].items():
        assert found["values"][name] == pytest.approx(score, abs=1e-6)
