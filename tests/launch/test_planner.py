"""Arithmetic of slots: what could ever fit, what fits now, what may come."""

import pytest

from dft_search.launch.planner import Room, free_now, plan_on, plan_slots

ONE = {"CPU": 4.0, "GPU": 1.0}
NODE = {"CPU": 16.0, "GPU": 2.0}


def test_workers_of_a_slot_may_span_nodes():
    assert plan_slots([NODE, NODE], ONE, 4, None).slots == 1
    assert plan_slots([NODE, NODE], ONE, 2, 1).slots == 1


def test_nothing_fits_is_said_in_numbers():
    found = plan_slots([NODE], ONE, 4, None)
    assert found.slots == 0
    assert found.missing == (
        "one slot needs 4 workers of 4 CPU and 1 GPU each (16 CPU, 4 GPU in all); "
        "the cluster has 16 CPU, 2 GPU on 1 node, room for 2 such workers"
    )


@pytest.mark.parametrize(
    ("free", "growth", "most", "slots", "now", "grows"),
    [
        ([NODE, NODE], [], 9, 4, 4, False),  # all is free
        ([NODE, NODE], [], 3, 3, 3, False),  # more is of no use
        ([{}, {"CPU": 4.0, "GPU": 1.0}], [], 9, 1, 1, False),  # another study holds the rest: what is left is taken
        ([{}, {}], [], 9, 4, 0, False),  # it holds everything: waited for
        ([NODE, NODE], [NODE], 9, 6, 4, True),  # more may come
        ([{}, {}], [NODE], 1, 1, 0, True),
    ],
)
def test_what_is_free_and_what_may_come(free, growth, most, slots, now, grows):
    found = plan_on(Room([NODE, NODE], free, growth), ONE, 1, most)
    assert (found.slots, found.now, found.grows, found.unsure) == (slots, now, grows, False)


def test_a_shape_that_no_node_type_holds_is_refused():
    found = plan_on(Room([{"CPU": 1.0}], [{"CPU": 1.0}], [{"CPU": 2.0}] * 5), {"CPU": 4.0}, 1, 9)
    assert found.slots == 0
    assert "has 1 CPU on 1 node, room for 0 such workers; autoscaling can bring 10 CPU on 5 nodes" in found.missing


@pytest.mark.parametrize(("nodes", "unsure"), [([], True), ([NODE], False)])
def test_an_autoscaler_that_does_not_say_what_it_can_bring_is_asked(nodes, unsure):
    found = plan_on(Room(nodes, nodes, None), ONE, 1, 5)
    assert (found.slots, found.grows, found.unsure) == (5, True, unsure)


def test_what_is_free_in_words():
    room = Room([NODE, NODE], [{"CPU": 4.0}, {}])
    assert free_now(room, ONE) == (
        "free now: 4 CPU, 0 GPU of 32 CPU, 4 GPU on 2 nodes, room for 4 such workers; others hold the rest"
    )
