"""``sdrrl`` as a run: a teacher answers once, in parts; its answers are kept, shared, and the same for any ranks."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dft_search.data.row import MadeRow
from dft_search.training import loop
from dft_search.training import teacher as module
from dft_search.training.recipe import Recipe, check_recipe
from dft_search.training.rows import training_rows
from dft_search.training.session import Session
from dft_search.training.teacher import Teacher
from dft_search.training.workspace import Workspace
from tests.synthesis.tiny_nllb import write_nllb
from tests.training.jobs import train_with_parts
from tests.training.ranks import Ranks
from tests.training.tiny import CPU, ROWS, Memory, make_recipe, near, train

PART = 6
TAUGHT = {"epochs": 12.0, "learning_rate": 1e-2, "batch_rows": 8}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PART", PART)


def make(world: Path, *, rows: int | None = None, teacher: str = "sft", **transfer: Any) -> Recipe:
    """The tiny recipe with a transfer set."""
    recipe = make_recipe(world, "sdrrl", length={"steps": 2})
    told = {"teacher": teacher, "teacher_training": TAUGHT, "max_new_tokens": 16, **transfer}
    train = recipe.data.train.model_validate({"files": recipe.data.train.files, "rows": rows, "transfer": told})
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"train": train})})


def ask(recipe: Recipe, place: Path, folder: Path, memory: Memory | None = None) -> dict[Any, Any]:
    """The teacher's answers, in a process that is new to it."""
    session = Session.from_environment(CPU)
    return Teacher(recipe, Workspace(), session, memory or Memory(), place=str(place), folder=str(folder)).answers()


def files(place: Path) -> list[str]:
    return sorted(path.name for path in place.glob("answers-*/part-*"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many questions each call of the model was given."""
    calls: list[int] = []
    honest = module.answer

    def answer(live: Any, questions: Any, *rest: Any) -> Any:
        calls.append(len(questions))
        return honest(live, questions, *rest)

    monkeypatch.setattr(module, "answer", answer)
    return calls


def test_a_run_learns_from_its_teacher(world: Path, tmp_path: Path, asked: list[int]) -> None:
    """The teacher learns the 24 rows and answers them by itself; the made rows are what is trained on."""
    recipe = make(world)
    assert not check_recipe(recipe)
    trained = train(recipe, tmp_path / "run", kept=tmp_path / "kept")
    assert set(trained.memory.losses[0]) == {"loss/total", "loss/generation", "learning_rate", "grad_norm"}
    assert asked == [PART] * (ROWS // PART)
    answers = ask(recipe, tmp_path / "kept", tmp_path / "again")
    rows = training_rows(recipe, answers)
    assert sum(asked) == ROWS and rows.made["answers_of_teacher"] > ROWS / 2, rows.made
    made = [row for row in rows.rows if isinstance(row, MadeRow) and row.teacher]
    own = {row.id: row for row in training_rows(recipe).rows}
    assert any(row.tgt_output != own[row.id].tgt_output for row in made)  # not all is learned by heart
    assert len(rows.rows) == len(own)


def test_the_teacher_is_trained_with_the_rows_that_fit(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that ran out of memory goes on with smaller micro-batches, also where it was its teacher that did."""
    sizes: list[int] = []

    class Noted(loop.Stepper):
        def __init__(self, *given: Any, **options: Any):
            super().__init__(*given, **options)
            sizes.append(self.micro_rows)

    monkeypatch.setattr(loop, "Stepper", Noted)
    run = loop.Run("tiny", 5, str(tmp_path / "run"), [], micro_batch_rows=2)
    end = loop.run_training(make(world), run, Memory(), Session.from_environment(CPU), Workspace())
    assert end.outcome == "completed" and sizes == [2, 2]


def test_another_tokenizer_is_another_teacher(world: Path, tmp_path: Path, asked: list[int]) -> None:
    model = tmp_path / "model"
    shutil.copytree(world / "llama", model)
    recipe = make(world, teacher=str(model))
    ask(recipe, tmp_path / "kept", tmp_path / "run")
    file = model / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()), indent=3))
    ask(recipe, tmp_path / "kept", tmp_path / "run")
    assert sum(asked) == 2 * ROWS


def test_cheap_options_ask_nobody_again(world: Path, tmp_path: Path, asked: list[int]) -> None:
    first = ask(make(world), tmp_path, tmp_path / "run")
    cheap: list[dict[str, Any]] = [
        {"preset": "sdrrl_dft_baseline"},
        {"kinds": {"codeswitch": 1.0}},
        {"fallback": "drop"},
        {"codeswitch": {"words": 0.9}},
        {"seed": 3},
        {"answers_target": "aligned"},
    ]
    asked.clear()
    for options in cheap:
        assert ask(make(world, **options), tmp_path, tmp_path / "run") == first
    assert not asked
    ask(make(world, teacher="base"), tmp_path, tmp_path / "run")
    ask(make(world, max_new_tokens=8), tmp_path, tmp_path / "run")
    assert sum(asked) == 2 * ROWS
    asked.clear()
    ask(make(world, teacher=str(world / "tied")), tmp_path, tmp_path / "run")
    assert sum(asked) == ROWS
    none = {"distil_en": 0.0, "cross_tgt_en": 0.0}
    assert ask(make(world, kinds=none), tmp_path / "other", tmp_path / "run") == {}  # nobody needs to be asked


def test_fewer_rows_need_fewer_answers(world: Path, tmp_path: Path, asked: list[int]) -> None:
    few = ask(make(world, rows=5, teacher="base"), tmp_path, tmp_path / "run")
    assert asked == [PART]
    everything = ask(make(world, teacher="base"), tmp_path, tmp_path / "run")
    assert sum(asked) == ROWS and few.items() <= everything.items()
    needed = [row.id.partition("/")[0] for row in training_rows(make(world, rows=5, kinds={"distil_en": 1.0})).rows]
    assert len(set(needed)) == 5


def test_two_ranks_make_the_same_answers(world: Path, ranks: Ranks, tmp_path: Path) -> None:
    """Byte for byte, whoever made which part; trained on, they give the same run."""
    recipe = make(world, teacher="base")
    first, second = ranks(train_with_parts, PART, recipe, tmp_path / "two", tmp_path / "kept2")
    one = train(recipe, tmp_path / "one", kept=tmp_path / "kept1")
    assert files(tmp_path / "kept1") == files(tmp_path / "kept2") and len(files(tmp_path / "kept1")) == ROWS // PART
    assert first.memory.losses == second.memory.losses
    assert near(first.memory.losses, one.memory.losses, 1e-4)


@pytest.mark.parametrize("before", [2, 38], ids=["training", "answering"])
def test_a_stop_keeps_what_is_there(before: int, world: Path, tmp_path: Path, asked: list[int]) -> None:
    """36 steps of the teacher's training, each of which asks whether to stop, then the parts of its answers."""
    recipe, place = make(world), tmp_path / "kept"
    stopped = train(recipe, tmp_path / "run", memory=Memory(stop_before=before), kept=place)
    assert (stopped.end.outcome, stopped.end.step) == ("interrupted", 0)
    done = sum(asked)
    assert done == (0 if before == 2 else 2 * PART)
    ended = train(recipe, tmp_path / "run", kept=place)
    assert ended.end.outcome == "completed" and sum(asked) == ROWS
    whole = train(recipe, tmp_path / "whole", kept=tmp_path / "kept2")
    assert files(tmp_path / "kept") == files(tmp_path / "kept2")
    assert not (tmp_path / "run" / "teacher").exists()  # its checkpoints
    assert ended.memory.losses == whole.memory.losses


KILLED = """
import os, signal, sys
from pathlib import Path
from dft_search.training import teacher
from tests.training.test_teacher import PART, ask, make
teacher.PART, honest, calls = PART, teacher.answer, []
def answer(live, *rest):
    calls.append(1)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return honest(live, *rest)
teacher.answer = answer
ask(make(Path(sys.argv[1]), teacher="base"), Path(sys.argv[2]), Path(sys.argv[2]))
"""


def test_killed_while_answering(world: Path, tmp_path: Path, asked: list[int]) -> None:
    place = tmp_path / "kept"
    command = [sys.executable, "-c", KILLED, str(world), str(place)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    assert subprocess.run(command, env=environment, timeout=180).returncode == -signal.SIGKILL
    assert len(files(place)) == 2
    found = ask(make(world, teacher="base"), place, tmp_path / "run")
    assert sum(asked) == ROWS - 2 * PART
    assert found == ask(make(world, teacher="base"), tmp_path / "whole", tmp_path / "run")
    assert files(place) == files(tmp_path / "whole")


def test_a_translator_translates_the_answers_once(
    world: Path, tmp_path: Path, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text to whose end the tiny translator did not come, and an unusable answer, have no translation."""
    monkeypatch.setattr(
        module, "answer", lambda live, asked, *_: [(f"hello {n}", n % 3 > 0) for n in range(len(asked))]
    )
    recipe = make(world, teacher="base", answers_target={"translator": str(write_nllb(tmp_path / "nllb", seed=6))})
    assert not check_recipe(recipe)
    answers = ask(recipe, tmp_path, tmp_path / "run")
    usable = [one for one in answers.values() if one.ended]
    assert 0 < sum(bool(one.target) for one in usable) < len(usable)
    assert not any(one.target for one in answers.values() if not one.ended)
    monkeypatch.setattr(module, "Translator", None)
    assert ask(recipe, tmp_path, tmp_path / "run") == answers  # nothing is translated again
    made = training_rows(recipe, answers).rows
    found = [row for row in made if isinstance(row, MadeRow) and row.kind == "distil_tgt" and row.mt == "nllb"]
    assert {row.tgt_output for row in found} == {one.target for one in usable if one.target}
    wrong = check_recipe(make(world, answers_target={"translator": str(world / "llama")}))
    assert [problem.key for problem in wrong] == ["recipe.data.train.transfer.answers_target.translator"]
    wrong = check_recipe(make(world, teacher=str(world / "absent")))
    assert [problem.key for problem in wrong] == ["recipe.data.train.transfer.teacher"]
