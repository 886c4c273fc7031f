"""What ``plan`` says of memory, without a cluster."""

import pytest

from dft_search.search.definition import Definition, load_study
from dft_search.search.plan_memory import gpu_memory, plan_memory
from dft_search.search.planning import plan
from tests.search.small import write_world

GPUS = ["study.slots.gpus_per_worker=1", "recipe.model.dtype=bfloat16"]


@pytest.fixture(scope="module")
def definition(tmp_path_factory: pytest.TempPathFactory) -> Definition:
    return load_study(write_world(tmp_path_factory.mktemp("world")), GPUS)


def test_the_document_has_memory(definition):
    found = plan(str(definition.document.path), offline=True, overrides=[])["memory"]
    assert set(found) == {"gpu_gb", "typical", "worst", "does_not_fit"}
    assert set(found["worst"]) == {"gb", "micro_batch_rows", "params"}
    assert found["gpu_gb"] is None and found["does_not_fit"] == []  # it runs on CPUs


def test_what_does_not_fit_is_named_the_worst_first(definition):
    found = plan_memory(definition, 10**12)
    assert found["gpu_gb"] == 1000 and found["does_not_fit"] == []
    assert found["typical"]["micro_batch_rows"] == 4  # all rows of a step, on two workers
    sizes = [point["gb"] for point in plan_memory(definition, 10**6)["does_not_fit"]]
    assert len(sizes) > 5 and sizes == sorted(sizes, reverse=True)
    assert plan_memory(definition, None)["worst"]["micro_batch_rows"] == 1


def test_the_deepest_reads_are_the_worst(definition):
    large = load_study(definition.document.path, [*GPUS, "recipe.data.max_length=100000"])
    worst = plan_memory(large, None)["worst"]["params"]
    assert worst["objective.conversion.supervision"] != "none" and worst["objective.thinking.supervision"] != "none"


@pytest.mark.parametrize(
    ("kinds", "gigabytes"),
    [(["H100"], 80), (["H100", "T4"], 16), (["V100"], None), (["H100", "V100"], None), ([], None)],
)
def test_the_memory_of_a_gpu_by_its_name(kinds, gigabytes):
    nodes = [{"GPU": 1.0, f"accelerator_type:{kind}": 1.0} for kind in kinds]
    assert gpu_memory(nodes) == (None if gigabytes is None else gigabytes * 10**9)
