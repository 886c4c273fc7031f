"""What the untrained base says: computed once a study, alike on any number of ranks, checked, used by every run."""

import tempfile
from pathlib import Path

import pytest
import torch

from dft_search.data.encode import EncodedRow
from dft_search.objectives import preference, retention
from dft_search.objectives.preference import read_pairs
from dft_search.objectives.readings import after_prompt
from dft_search.objectives.terms import Pair, TokenRead
from dft_search.training import kept, reference
from dft_search.training.places import names
from dft_search.training.reference import Reference
from dft_search.training.replay import replay
from dft_search.training.session import Session
from dft_search.training.workspace import Workspace
from tests.training.jobs import KEPT_ROWS, read_base, train_all
from tests.training.ranks import Ranks
from tests.training.tiny import CPU, ROWS, Memory, make_recipe, near, same, train

ALONE = Session(0, 1, CPU)
LORA = {"lora": {"rank": 4, "targets": ["q_proj", "v_proj", "down_proj"], "dropout": 0.1}}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several parts of the few rows."""
    monkeypatch.setattr(reference, "PART_ROWS", KEPT_ROWS)
    monkeypatch.setattr(reference, "PASS_ROWS", 2)
    monkeypatch.setattr(kept, "PAUSE", 0.0)


def files(place: Path) -> dict[str, tuple[int, bytes]]:
    """Time and content of every kept file."""
    found = (file for folder in place.iterdir() for file in folder.iterdir())
    return {f"{file.parent.name}/{file.name}": (file.stat().st_mtime_ns, file.read_bytes()) for file in found}


def contents(place: Path) -> dict[str, bytes]:
    return {name: content for name, (_, content) in files(place).items()}


def equal(a: Reference, b: Reference, error: float = 0.0) -> bool:
    """Whether two agree, their numbers to ``error``, relative."""
    if a.ends != b.ends or a.tensors.keys() != b.tensors.keys():
        return False
    pairs = [(x, b.tensors[term][name]) for term, found in a.tensors.items() for name, x in found.items()]
    return all(torch.allclose(x.double(), y.double(), rtol=error, atol=error) for x, y in pairs)


def test_it_is_what_the_base_says(world: Path, tmp_path: Path) -> None:
    """Against transformers' own model, one sequence at a time."""
    recipe = make_recipe(world, "clo")
    workspace = Workspace()
    found = read_base(recipe, tmp_path, workspace)
    data, base = workspace.encoded(recipe), workspace.base(recipe.model)
    plain = type(base).from_pretrained(recipe.model.path, dtype=torch.float32).eval()
    for number, row in enumerate(data):
        expected = []
        for own, other in (("target", "english"), ("english", "target")):
            for said in (own, other):
                prompt, answer = row.segments[f"{own}_prompt"], row.segments[f"{said}_answer"]
                with torch.no_grad():
                    logits = plain(input_ids=torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
                expected.append(logits.log_softmax(-1)[range(len(answer)), answer].sum())
        said = found.row(number)["preference"]["log_probs"]
        assert torch.allclose(said.flatten().float(), torch.stack(expected), rtol=1e-5)


def test_once_for_all_runs_that_ask_the_same(world: Path, tmp_path: Path) -> None:
    """Other options of the loss, LoRA, a cold process: nothing is computed again. Other rows or tokens are others."""
    place = tmp_path / "kept"
    recipe = make_recipe(world, "clo")
    first = train(recipe, tmp_path / "a", kept=place)
    before = files(place)
    assert len(before) == -(-ROWS // KEPT_ROWS)
    preference = recipe.objective.preference.model_copy(update={"beta": 0.7, "variant": "kto"})
    other = recipe.model_copy(update={"objective": recipe.objective.model_copy(update={"preference": preference})})
    train(other, tmp_path / "b", kept=place)
    train(make_recipe(world, "clo", trainable=LORA), tmp_path / "c", kept=place)
    again = train(recipe, tmp_path / "d", kept=place)
    assert files(place) == before
    assert same(first.weights, again.weights) and first.memory.losses == again.memory.losses
    train(make_recipe(world, "retained"), tmp_path / "e", kept=place)
    assert len(names(place)) == 2
    train(make_recipe(world, "tft"), tmp_path / "f", kept=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_terms_of_one_name_that_read_other_places_are_asked_anew(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an option of a plug-in may decide. In a warm process and a cold one: no term gets what another one asked."""

    def swapped(row: EncodedRow, has_bos: bool) -> list[Pair]:
        return [(rejected, chosen) for chosen, rejected in read_pairs(row, has_bos)]

    def of_target(row: EncodedRow, prompt: str, answer: str) -> TokenRead:
        return after_prompt(row, "target_prompt", "target_answer")

    workspaces = {name: Workspace() for name in ("clo", "retained")}
    first = {name: read_base(make_recipe(world, name), tmp_path, workspace) for name, workspace in workspaces.items()}
    monkeypatch.setattr(preference, "read_pairs", swapped)
    monkeypatch.setattr(retention, "after_prompt", of_target)
    for workspace in (workspaces["clo"], Workspace()):
        found = read_base(make_recipe(world, "clo"), tmp_path, workspace)
        said, before = (one.tensors["preference"]["log_probs"] for one in (found, first["clo"]))
        assert torch.allclose(said, before.flip(1), rtol=1e-5) and not torch.allclose(said, before, rtol=1e-5)
    for workspace in (workspaces["retained"], Workspace()):
        recipe = make_recipe(world, "retained")
        data, found = workspace.encoded(recipe), read_base(recipe, tmp_path, workspace)
        sizes = [len(found.row(number)["retention"]["ids"]) for number in range(len(data))]
        assert sizes == [len(row.segments["target_answer"]) for row in data]


@pytest.mark.parametrize(
    ("name", "term", "part"), [("clo", "preference", "log_probs"), ("retained", "retention", "ids")]
)
def test_rows_without_anything_to_read_have_nothing_said(
    name: str, term: str, part: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a plug-in's term may leave rows out: those of a whole pass here, and then the run trains."""
    recipe, workspace = make_recipe(world, name), Workspace()
    silent = [row.segments["target_prompt"] for row in workspace.encoded(recipe)][:3]

    def some_pairs(row: EncodedRow, has_bos: bool) -> list[Pair]:
        return [] if row.segments["target_prompt"] in silent else list(read_pairs(row, has_bos))

    def some_tokens(row: EncodedRow, prompt: str, answer: str) -> TokenRead:
        found = after_prompt(row, prompt, answer)
        return TokenRead(found.path, (), ()) if row.segments["target_prompt"] in silent else found

    monkeypatch.setattr(preference, "read_pairs", some_pairs)
    monkeypatch.setattr(retention, "after_prompt", some_tokens)
    found = read_base(recipe, tmp_path / "kept", workspace)
    sizes = [len(found.row(number)[term][part]) for number in range(ROWS)]
    assert sizes[:3] == [0, 0, 0] and all(sizes[3:])
    run = train(recipe, tmp_path / "run", kept=tmp_path / "kept")
    assert all(torch.isfinite(torch.tensor(list(losses.values()))).all() for losses in run.memory.losses)


def test_any_number_of_ranks_says_the_same(world: Path, ranks: Ranks, tmp_path: Path) -> None:
    """Two ranks that share the parts, one rank, and adapters, whose base weights nobody trains."""
    for objective in ("clo", "retained"):
        alone = read_base(make_recipe(world, objective), tmp_path / objective / "one")
        for two in ranks(read_base, make_recipe(world, objective), tmp_path / objective / "two", parts=KEPT_ROWS):
            assert equal(two, alone, 1e-6)
        lora = read_base(make_recipe(world, objective, trainable=LORA), tmp_path / objective / "lora")
        assert equal(lora, alone)


def test_two_ranks_train_as_one(world: Path, ranks: Ranks, tmp_path: Path) -> None:
    recipes = [make_recipe(world, name, length={"steps": 3}) for name in ("clo", "retained")]
    first, second = ranks(train_all, recipes, tmp_path / "two")
    for number, recipe in enumerate(recipes):
        one = train(recipe, tmp_path / "one" / str(number))
        assert first[number].memory.losses == second[number].memory.losses
        assert near(first[number].memory.losses, one.memory.losses, 1e-4)
        assert all((first[number].weights[name] - weight).abs().max() < 1e-4 for name, weight in one.weights.items())


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_what_is_lost_or_damaged_is_computed_again(damage: str, world: Path, tmp_path: Path) -> None:
    recipe, place = make_recipe(world, "clo", length={"steps": 2}), tmp_path / "kept"
    first = train(recipe, tmp_path / "a", kept=place)
    before = contents(place)
    file = next(file for file in sorted(place.glob("*/part-*")) if "000001" in file.name)
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.unlink() if damage == "gone" else file.write_bytes(bytes(content))
    again = train(recipe, tmp_path / "b", kept=place)
    assert same(first.weights, again.weights) and contents(place) == before


def test_a_stop_before_the_first_step(world: Path, tmp_path: Path) -> None:
    """Between two parts: what was computed is kept, and the run begins where that ends."""
    recipe, place = make_recipe(world, "clo", length={"steps": 2}), tmp_path / "kept"
    stopped = train(recipe, tmp_path / "a", kept=place, memory=Memory(stop_before=2))
    assert stopped.end.outcome == "interrupted" and stopped.end.step == 0
    before = contents(place)
    assert len(before) == 2
    whole = train(recipe, tmp_path / "a", kept=place)
    assert whole.end.outcome == "completed" and before.items() <= contents(place).items()
    assert same(whole.weights, train(recipe, tmp_path / "b").weights)


def test_a_run_that_goes_on_ends_with_the_same_bits(world: Path, tmp_path: Path) -> None:
    """In another process, after a stop: its model is trained by then, and what it compares with is still the base."""
    recipe, place = make_recipe(world, "clo"), tmp_path / "kept"
    whole = train(recipe, tmp_path / "whole", kept=place, rungs=(0.5,))  # computes all that the next one reads
    stopped = train(recipe, tmp_path / "parts", kept=place, rungs=(0.5,), memory=Memory(stop_before=3))
    assert stopped.end.outcome == "interrupted" and stopped.end.step == 3
    memory = Memory()
    ended = train(recipe, tmp_path / "parts", kept=place, rungs=(0.5,), memory=memory)
    assert same(ended.weights, whole.weights)
    cold = train(recipe, tmp_path / "cold", kept=tmp_path / "other", rungs=(0.5,))
    assert same(cold.weights, whole.weights) and cold.memory.losses == whole.memory.losses


@pytest.mark.parametrize("objective", ["clo", "retained"])
def test_a_replay_asks_for_its_own_rows_alone(
    objective: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(world, objective, batch_rows=4)
    whole = train(recipe, tmp_path, kept=tmp_path / "kept").memory.losses
    workspace, scratch = Workspace(), tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    records = replay(recipe, 5, 2, ALONE, workspace)
    assert [
        {name: record.metrics[name] for name in step} for record, step in zip(records, whole, strict=False)
    ] == whole[:2]
    [found] = workspace._reference.values()
    assert found is not None and found.places is not None and 8 <= len(found.places) < ROWS
    assert not list(scratch.iterdir())


def test_a_warm_process_trains_as_a_cold_one(world: Path, tmp_path: Path) -> None:
    place, workspace = tmp_path / "kept", Workspace()
    recipe = make_recipe(world, "clo", length={"steps": 3})
    cold = train(recipe, tmp_path / "cold", kept=tmp_path / "fresh")
    for number, name in enumerate(("tft", "clo", "retained", "clo")):
        warm = train(make_recipe(world, name, length={"steps": 3}), tmp_path / str(number), workspace, kept=place)
    assert same(warm.weights, cold.weights) and warm.memory.losses == cold.memory.losses


def test_preference_is_learnt_and_told(world: Path, tmp_path: Path) -> None:
    losses = train(make_recipe(world, "clo", length={"steps": 25}), tmp_path).memory
    records = [record.metrics for report in losses.reports for record in report.history]
    assert records[0]["loss/preference"] == pytest.approx(0.6931, abs=1e-3)
    assert records[-1]["loss/preference"] < 0.4 and records[-1]["loss/generation"] < records[0]["loss/generation"]
    assert records[-1]["preference/accuracy"] == 1.0 and records[-1]["preference/margin"] > 1.0
    total = (records[0]["loss/generation"] + records[0]["loss/preference"]) / 2
    assert records[0]["loss/total"] == pytest.approx(total, rel=1e-5)


def test_retention_holds_the_model_near_its_base(world: Path, tmp_path: Path) -> None:
    def drift(weight: float) -> float:
        recipe = make_recipe(world, "retained", length={"steps": 20})
        kept_near = recipe.objective.retention.model_copy(update={"weight": weight})
        objective = recipe.objective.model_copy(update={"retention": kept_near})
        changed = recipe.model_copy(update={"objective": objective})
        return train(changed, tmp_path / str(weight)).memory.losses[-1]["loss/retention"]

    assert drift(5.0) < 0.3 * drift(0.0)
