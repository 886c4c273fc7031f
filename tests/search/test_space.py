"""Draws obey bounds, conditions and order, can be inverted, and wrong entries are told."""

import optuna
import pytest

from dft_search.config import RequestError, parse_document
from dft_search.search.space import read_space

KNOWN = ["a.mode", "a.layer", "b.layer", "rate", "rank"]
TEXT = """
space:
  b.layer: {int: [1, 100%], above: a.layer}
  a.mode: {choice: [logits, feature, none]}
  a.layer: {int: [1, 50%], when: {a.mode: [logits, feature]}}
  rate: {float: [1.0e-5, 1.0e-3], log: true}
"""


def space_of(text: str, layers: int = 8):
    return read_space(parse_document(text, "study.yaml"), layers, KNOWN)


def test_percents_are_floors_of_at_least_one():
    space = space_of(TEXT, layers=7)
    assert (space.by_key["a.layer"].low, space.by_key["a.layer"].high) == (1, 3)
    assert space_of("space: {a.layer: {int: [1%, 30%]}}", layers=3).by_key["a.layer"].high == 1


def test_draws_obey_above_and_when():
    space = space_of(TEXT)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    above, alone = set(), set()
    for _ in range(300):
        point = space.draw(study.ask(), {})
        if point["a.mode"] == "none":
            assert "a.layer" not in point
            alone.add(point["b.layer"])
        else:
            assert 1 <= point["a.layer"] <= 4 and point["a.layer"] < point["b.layer"] <= 8
            above.add((point["a.layer"], point["b.layer"]))
    assert alone == set(range(1, 9))  # void when the other key is absent
    assert above == {(i, j) for i in range(1, 5) for j in range(i + 1, 9)}  # and nothing is out of reach


def test_bounds_are_static_for_optuna():
    space = space_of(TEXT)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(30):
        trial = study.ask()
        space.draw(trial, {})
    for name in ("b.layer (relative)", "rate", "a.mode"):
        assert len({repr(t.distributions[name]) for t in study.trials}) == 1


def test_encode_inverts_draw():
    space = space_of(TEXT)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(100):
        point = space.draw(study.ask(), {})
        assert space.draw(optuna.trial.FixedTrial(space.encode(point, {})), {}) == point


def test_conditions_may_look_at_the_recipe():
    space = space_of("space: {rank: {int: [1, 8], when: {a.mode: logits}}}")
    study = optuna.create_study()
    assert "rank" in space.draw(study.ask(), {"a.mode": "logits"})
    assert "rank" not in space.draw(study.ask(), {"a.mode": "none"})


def test_grid_holds_every_distinct_point_once():
    space = space_of(
        "space: {a.mode: {choice: [logits, none]}, a.layer: {int: [1, 2], when: {a.mode: logits}}, "
        "b.layer: {int: [1, 3], above: a.layer}, rate: {fixed: 0.1}}"
    )
    points = [space.draw(optuna.trial.FixedTrial(draw), {}) for draw in space.grid({})]
    pairs = [(p["a.mode"], p.get("a.layer"), p["b.layer"]) for p in points]
    assert sorted(map(str, pairs)) == sorted(
        map(str, [("logits", 1, 2), ("logits", 1, 3), ("logits", 2, 3), *(("none", None, n) for n in (1, 2, 3))])
    )


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("rate: {int: [1, 2], float: [1, 2]}", "needs exactly one of int, float, choice and fixed"),
        ("rate: {flaot: [1, 2]}", "did you mean 'float'?"),
        ("rate: {int: [3, 1]}", "the range is empty: 3 to 1"),
        ("rate: {int: [1]}", "needs two bounds"),
        ("rate: {float: [0, 1], log: true}", "log needs a lower bound above 0"),
        ("rate: {int: [1, high]}", "'high' is not a bound"),
        ("rate: {int: [1, 120%]}", "'120%' is not between 0% and 100%"),
        ("rate: {int: [1, 2.5]}", "2.5 is not accepted"),
        ("rate: {choice: []}", "the list of choices is empty"),
        ("rate: {choice: [1, 1]}", "a choice stands twice"),
        ("rate: 3", "3 is not accepted (expected a mapping)"),
        ("rate: {float: [0.1, 1], step: 0.1, log: true}", "step needs an int or float parameter without log"),
        ("rat: {float: [0.1, 1]}", "space.rat: unknown key of the recipe (did you mean 'rate'?)"),
        ("rate: {float: [0.1, 1], when: {rnk: 1}}", "names the unknown key 'rnk' (did you mean 'rank'?)"),
        ("rank: {int: [1, 4], above: rank}", "depends on itself"),
        ("a.layer: {int: [1, 9], above: b.layer}\n  b.layer: {int: [1, 5], above: a.layer}", "form a cycle"),
        ("a.layer: {int: [1, 5], above: b.layer}\n  b.layer: {int: [1, 5]}", "no value is left above b.layer = 5"),
        ("a.layer: {int: [1, 5], above: a.mode}\n  a.mode: {choice: [1, 2]}", "which is no int parameter"),
    ],
)
def test_wrong_entries(entry: str, message: str):
    with pytest.raises(RequestError) as caught:
        space_of(f"space:\n  {entry}\n")
    assert message in str(caught.value)
    assert str(caught.value).startswith("study.yaml:2")


@pytest.mark.parametrize("text", ["space: {}", "space:", "other: 1"])
def test_an_empty_space_is_refused(text: str):
    with pytest.raises(RequestError, match="the space is empty"):
        space_of(text)
