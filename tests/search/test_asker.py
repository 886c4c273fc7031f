"""Optuna is told every outcome rightly, proposes the same again after a resume, and enqueues first points once."""

import errno
from pathlib import Path

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from dft_search.config import InfrastructureError, RequestError, parse_document
from dft_search.search.asker import Asker
from dft_search.search.options import Budget, StudyOptions
from dft_search.search.outcomes import TABLE, Outcome
from dft_search.search.space import read_space
from dft_search.search.storage import Journal

SPACE = read_space(
    parse_document("space: {x: {float: [0, 1]}, k: {int: [1, 6]}, m: {int: [1, 9], above: k}}", "s"), 8, ["x", "k", "m"]
)
FIRST = {"x": 0.5, "k": 2, "m": 5}


def asker(folder: Path, **options) -> Asker:
    settings = {"name": "s", "budget": Budget(trials=20), **options}
    return Asker(folder / "optuna.journal", StudyOptions(**settings), SPACE, {})


@pytest.mark.parametrize("sampler", ["tpe", "random"])
@pytest.mark.parametrize("outcome", list(Outcome))
def test_outcomes_as_in_the_table(tmp_path, sampler, outcome):
    study = asker(tmp_path, sampler=sampler)
    number = study.ask().number
    study.report(number, 0.25, 32)
    study.tell(number, outcome, 0.5 if outcome is Outcome.COMPLETED else None, "because")
    trial = study.study.trials[number]
    meaning = TABLE[outcome]
    assert trial.state == (TrialState[meaning.optuna] if meaning.optuna else TrialState.RUNNING)
    assert trial.value == (0.5 if outcome is Outcome.COMPLETED else 0.25 if outcome is Outcome.PRUNED else trial.value)
    assert trial.intermediate_values == {32: 0.25}
    assert study.spent() == (1 if meaning.final and meaning.spent else 0)
    assert len(study.unfinished()) == (0 if meaning.final else 1)
    if meaning.final:
        study.tell(number, Outcome.FAILED)  # telling again changes nothing
        assert study.study.trials[number].state == trial.state
    study.ask()  # the sampler copes with what it was told


def test_completed_needs_a_finite_value(tmp_path):
    study = asker(tmp_path)
    number = study.ask().number
    with pytest.raises(ValueError, match="without a finite value"):
        study.tell(number, Outcome.COMPLETED, float("nan"))


def test_the_same_suggestions_after_a_resume(tmp_path):
    def run(folder: Path, resume_after: int | None) -> list:
        folder.mkdir()
        study, proposals = asker(folder), []
        study.enqueue_once([FIRST])
        for count in range(16):
            if count == resume_after:
                study = asker(folder)
                study.enqueue_once([FIRST])
            proposals.append(study.ask())
            x = proposals[-1].point["x"]
            outcome = (Outcome.COMPLETED, Outcome.DIVERGED, Outcome.COMPLETED, Outcome.FAILED)[count % 4]
            study.tell(proposals[-1].number, outcome, x if outcome is Outcome.COMPLETED else None)
        return proposals

    straight = run(tmp_path / "a", None)
    assert straight == run(tmp_path / "b", 9)
    assert straight[0].point == FIRST and straight[0].first and not straight[1].first
    assert len({proposal.seed for proposal in straight}) == 16


def test_interrupted_trials_go_on_under_their_number(tmp_path):
    study = asker(tmp_path)
    first, second = study.ask(), study.ask()
    study.tell(first.number, Outcome.INTERRUPTED)
    study.tell(second.number, Outcome.COMPLETED, 1.0)
    again = asker(tmp_path)
    assert again.unfinished() == [first]
    again.tell(first.number, Outcome.COMPLETED, 0.5)
    assert again.unfinished() == [] and again.spent() == 2


class Cut(Exception):
    """The driver dies."""


def dying(monkeypatch: pytest.MonkeyPatch, writes: int) -> None:
    """From now on, the journal takes so many writes; then the driver dies."""
    left, append = [writes], Journal.append_logs

    def counted(self: Journal, logs: list) -> None:
        if not left[0]:
            raise Cut
        left[0] -= 1
        append(self, logs)

    monkeypatch.setattr(Journal, "append_logs", counted)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
@pytest.mark.parametrize("given", [0, 7])
def test_wherever_ask_is_cut_off_the_same_trial_is_given_again(tmp_path, monkeypatch, sampler, given):
    """Before each of its writes in turn: the number, the point and the seed are those of an undisturbed study."""

    def six(folder: Path) -> Asker:
        study = asker(folder, sampler=sampler, budget=Budget(trials=8))
        study.enqueue_once([FIRST] * given)
        for count in range(6):
            study.tell(study.ask().number, Outcome.COMPLETED, float(count % 4))
        return study

    straight = six(tmp_path).ask()
    for writes in range(12):
        folder = tmp_path / str(writes)
        folder.mkdir()
        study = six(folder)
        with monkeypatch.context() as patch:
            dying(patch, writes)
            try:
                study.ask()
                break
            except Cut:
                pass
        again = asker(folder, sampler=sampler, budget=Budget(trials=8))
        open_trials = again.unfinished()
        assert (open_trials or [again.ask()]) == [straight], writes
        assert len(again) == 7
    assert writes > 3, "ask was never cut off"


def test_points_whose_enqueueing_was_cut_off_are_enqueued_once(tmp_path, monkeypatch):
    points = [FIRST, {**FIRST, "x": 0.25}, {**FIRST, "x": 0.75}]
    for writes in range(4):
        folder = tmp_path / str(writes)
        folder.mkdir()
        study = asker(folder)
        with monkeypatch.context() as patch:
            dying(patch, writes)
            with pytest.raises(Cut):
                study.enqueue_once(points)
        again = asker(folder)
        again.enqueue_once(points)
        assert [again.ask().point for _ in points] == points and len(again) == 3


def test_a_line_that_the_disk_had_no_room_for_is_taken_back(tmp_path, monkeypatch):
    study = asker(tmp_path)
    first = study.ask()
    before = (tmp_path / "optuna.journal").read_bytes()

    def full(self, logs):
        self.path.write_bytes(self.path.read_bytes() + b'{"op_code": 8, "tri')
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(JournalFileBackend, "append_logs", full)
        with pytest.raises(InfrastructureError, match="No space left"):
            study.tell(first.number, Outcome.COMPLETED, 1.0)
    assert (tmp_path / "optuna.journal").read_bytes() == before
    study.tell(first.number, Outcome.COMPLETED, 1.0)
    with open(tmp_path / "optuna.journal", "ab") as file:  # what a crash of the machine leaves
        file.write(b'{"op_code": 8, "tri')
    assert asker(tmp_path).spent() == 1


def test_a_first_point_outside_the_space_is_refused(tmp_path):
    with pytest.raises(RequestError, match="m: 2 is outside its range"):
        asker(tmp_path).enqueue_once([{"x": 0.5, "k": 3, "m": 2}])
    with pytest.raises(RequestError, match="needs a value"):
        asker(tmp_path).enqueue_once([{"x": 0.5, "k": 3}])


def test_diverging_corners_are_avoided(tmp_path):
    """A violated constraint teaches the sampler; trials told FAIL would teach nothing."""
    study = asker(tmp_path, budget=Budget(trials=60))
    bad = []
    for _ in range(60):
        proposal = study.ask()
        diverges = proposal.point["x"] > 0.5
        bad.append(diverges)
        outcome = Outcome.DIVERGED if diverges else Outcome.COMPLETED
        study.tell(proposal.number, outcome, None if diverges else proposal.point["x"])
    assert sum(bad[30:]) < 0.6 * 30


def test_the_grid_is_walked_once(tmp_path):
    space = read_space(parse_document("space: {k: {int: [1, 3]}, x: {choice: [a, b]}}", "s"), 8, ["k", "x"])
    study = Asker(tmp_path / "journal", StudyOptions(name="s", sampler="grid"), space, {})
    study.enqueue_once([{"k": 2, "x": "b"}])
    points = []
    while (proposal := study.ask()) is not None:
        points.append(tuple(proposal.point.values()))
        study.tell(proposal.number, Outcome.COMPLETED, 0.0)
    assert points[0] == (2, "b") and sorted(points) == [(k, x) for k in (1, 2, 3) for x in "ab"]


def test_the_journal_is_an_ordinary_optuna_study(tmp_path):
    asker(tmp_path).ask()
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / "optuna.journal"))
    )
    assert len(optuna.load_study(study_name="s", storage=storage).trials) == 1
