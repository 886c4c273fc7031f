"""What a node sees, and how it is told where that is not what the driver sees. No cluster."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dft_search.config import InfrastructureError, Problem
from dft_search.launch.nodes import Needs, NodeCheck, Sight, differences, leave_word, look
from dft_search.training.places import names, remove
from tests.search.small import study, write_world


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    return study(folder)["recipe"]


@pytest.fixture(scope="module")
def own(recipe) -> Sight:
    return look(Needs(recipe))


def told(own: Sight, needs: Needs | None = None, **nodes: Sight | str) -> list[str]:
    return [problem.message for problem in differences(own, nodes, needs or Needs())]


def test_a_node_like_this_one_lacks_nothing(recipe, own):
    assert list(own.sizes.values()) == [Path(recipe["data"]["train"]["files"][0]).stat().st_size]
    assert own.model and not own.wrong and own.versions["torch"] and "+" not in own.versions["torch"]
    assert told(own, a=look(Needs(recipe)), b=look(Needs(recipe))) == []


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda s: {"versions": {**s.versions, "torch": "2.1.0"}}, "node b: torch 2.1.0 there, "),
        (lambda s: {"sources": "0"}, "node b: the files of dft-search differ (0 there, "),
        (lambda s: {"sizes": dict.fromkeys(s.sizes)}, "node b: no such file or folder: "),
        (lambda s: {"sizes": dict.fromkeys(s.sizes, 7)}, "has 7 bytes there, "),
        (lambda s: {"model": "0"}, "node b: config.json of the model is another one there"),
        (lambda s: {"wrong": (Problem("no task"),)}, "node b: no task"),
        (lambda s: {"place": "is not the folder that the driver sees"}, "node b: /runs is not the folder that the "),
    ],
)
def test_each_thing_is_a_line_that_names_the_node(own, change: Callable[[Sight], dict[str, Any]], line: str):
    lines = told(own, Needs(place="/runs"), a=own, b=replace(own, **change(own)))
    assert len(lines) == 1 and line in lines[0], lines


def test_what_is_wrong_here_too_is_no_difference(own):
    wrong = replace(own, wrong=(Problem("no task"),), place="cannot be used", sizes=dict.fromkeys(own.sizes))
    assert told(wrong, a=wrong) == []


def test_a_model_that_the_driver_cannot_load_is_not_compared(own):
    """A head that trains nothing may hold the model's config.json alone."""
    here = replace(own, model=None, wrong=(Problem("'m' holds no weights (*.safetensors)"),))
    assert told(here, a=own) == []


def test_a_node_that_goes_while_it_is_asked_lacks_nothing(monkeypatch):
    """A spot machine that is taken away ends no study."""
    import ray

    def nodes(alive: bool) -> list[dict[str, Any]]:
        shape = {"NodeManagerAddress": "10.0.0.1", "NodeManagerHostname": "n", "Resources": {"CPU": 1.0}}
        return [{"NodeID": "a", "Alive": True, **shape}, {"NodeID": "b", "Alive": alive, **shape}]

    for alive, lines in ((True, 2), (False, 1)):
        answers = iter([nodes(True), nodes(alive)])
        monkeypatch.setattr(ray, "nodes", answers.__next__)
        monkeypatch.setattr("dft_search.launch.nodes._ask", lambda asked, *_: ["worn out", "node died"][: len(asked)])
        assert len(NodeCheck(Needs(), {"CPU": 1.0}).look()) == lines


def test_many_nodes_are_one_line(own):
    other = replace(own, model="0")
    lines = told(own, **{f"n{number}": other for number in range(12)}, last="no answer within 60 s")
    assert lines == [
        "nodes n0, n1, n2 and 9 more: config.json of the model is another one there",
        "node last: no answer within 60 s",
    ]


def test_a_node_without_rows_model_or_variable_says_each(recipe, tmp_path, monkeypatch):
    monkeypatch.delenv("NOWHERE", raising=False)
    data = {**recipe["data"], "train": {"files": ["${NOWHERE}/a.jsonl", str(tmp_path / "b.jsonl"), "org/rows"]}}
    there = look(Needs({**recipe, "data": data, "model": {"path": str(tmp_path / "none")}}))
    assert there.sizes == {str(tmp_path / "b.jsonl"): None}
    assert [problem.message for problem in there.wrong] == [
        "environment variable NOWHERE is not set (used in '${NOWHERE}/a.jsonl')",
        f"no such folder: '{tmp_path}/none'",
    ]


def test_a_model_without_weights_is_told(recipe, tmp_path):
    (tmp_path / "config.json").write_bytes((Path(recipe["model"]["path"]) / "config.json").read_bytes())
    there = look(Needs({**recipe, "model": {"path": str(tmp_path)}}))
    assert [problem.message for problem in there.wrong] == [f"'{tmp_path}' holds no weights (*.safetensors)"]


@pytest.mark.parametrize("url", [False, True])
def test_a_place_is_the_drivers_or_not(tmp_path, url):
    place = "memory://bucket/runs" if url else str(tmp_path / "to" / "come")
    token = leave_word(place)
    assert look(Needs(place=place), token).place is None
    assert len(names(token)) == 2  # the driver's word and the node's
    assert look(Needs(place=place), f"{token}-elsewhere").place == "is not the folder that the driver sees"
    remove(token)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_the_driver_cannot_write_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InfrastructureError, match="file/.nodes-.* cannot be written: Not a directory"):
        leave_word(str(tmp_path / "file"))
