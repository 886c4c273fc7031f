"""Order of rows: every row once an epoch, a function of seed and step, shared alike by any number of ranks."""

import pytest

from dft_search.data.order import RowOrder, share


def test_every_row_once_an_epoch_across_batch_borders():
    order = RowOrder(10, 4, seed=3)
    stream = [index for step in range(15) for index in order.batch(step)]
    epochs = [stream[k : k + 10] for k in range(0, 60, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6  # shuffled anew


def test_batch_larger_than_the_data_holds_whole_epochs():
    batch = RowOrder(3, 8, seed=0).batch(1)
    assert len(batch) == 8
    assert sorted(batch[1:4]) == [0, 1, 2]  # position 8 ends epoch 2, positions 9 to 11 are epoch 3


def test_resume_needs_the_step_alone():
    whole = [RowOrder(100, 7, seed=5).batch(step) for step in range(40)]
    resumed = RowOrder(100, 7, seed=5)
    assert [resumed.batch(step) for step in range(23, 40)] == whole[23:]
    assert resumed.batch(2) == whole[2]  # asking for a step changes nothing


def test_seed_decides_and_the_order_is_fixed_for_good():
    assert RowOrder(50, 10, seed=1).batch(0) != RowOrder(50, 10, seed=2).batch(0)
    # written down: bundles replay their first steps on other machines and Python versions
    assert [RowOrder(8, 8, seed=0).batch(step) for step in (0, 1)] == FIXED


FIXED = [[0, 5, 6, 3, 7, 2, 4, 1], [5, 4, 0, 1, 6, 7, 2, 3]]


@pytest.mark.parametrize("rows", [1, 5, 8, 16, 17])
@pytest.mark.parametrize("micro", [1, 2, 3])
def test_shares_hold_the_batch_once_in_equal_numbers(rows, micro):
    batch = list(range(100, 100 + rows))
    for world in (1, 2, 3, 4):
        shares = [share(batch, rank=rank, world_size=world, micro_batch_rows=micro) for rank in range(world)]
        assert len({len(one) for one in shares}) == 1
        in_turn = [index for turn in zip(*shares, strict=True) for micro_batch in turn for index in micro_batch]
        assert in_turn == batch


def test_two_ranks_with_one_and_one_rank_with_two_hold_the_same_micro_batches():
    batch = RowOrder(40, 8, seed=9).batch(3)
    two_ranks = [share(batch, rank=rank, world_size=2, micro_batch_rows=4) for rank in (0, 1)]
    one_rank = share(batch, rank=0, world_size=1, micro_batch_rows=4)
    assert [len(one) for one in two_ranks] == [1, 1]
    assert two_ranks[0] + two_ranks[1] == one_rank


def test_a_rank_without_rows_gets_an_empty_micro_batch():
    assert share([7], rank=1, world_size=2, micro_batch_rows=4) == [[]]


def test_the_global_order_does_not_know_the_ranks():
    order = RowOrder(30, 6, seed=4)
    by_world = []
    for world in (1, 2, 3):
        seen = []
        for step in range(10):
            shares = [share(order.batch(step), rank=r, world_size=world, micro_batch_rows=1) for r in range(world)]
            seen += [index for turn in zip(*shares, strict=True) for micro in turn for index in micro]
        by_world.append(seen)
    assert by_world[0] == by_world[1] == by_world[2]


def test_senseless_numbers_are_refused():
    for size, rows in ((0, 4), (4, 0)):
        with pytest.raises(ValueError):
            RowOrder(size, rows, seed=0)
    with pytest.raises(ValueError):
        RowOrder(4, 2, seed=0).batch(-1)
    for rank, world, micro in ((2, 2, 1), (-1, 2, 1), (0, 1, 0)):
        with pytest.raises(ValueError):
            share([1, 2], rank=rank, world_size=world, micro_batch_rows=micro)
