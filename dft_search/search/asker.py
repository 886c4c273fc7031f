"""Optuna behind ask and tell: proposes points, is told every outcome, and goes on where it stopped.

The storage is the truth of a study. Sampler state is not in it, so every ask gets a fresh sampler, seeded from the
study's seed and the trial's number: the same seed at concurrency 1 gives the same suggestions, also across a resume.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from dft_search.search.options import StudyOptions
from dft_search.search.outcomes import TABLE, Outcome
from dft_search.search.samplers import make_sampler
from dft_search.search.seeds import derive_seed
from dft_search.search.space import Space, Value
from dft_search.search.storage import open_storage

POINT = "point"  # user attribute: the real values of a trial, as everybody else sees them
SEED = "seed"
OUTCOME = "outcome"
FIRST = "first_point"  # user attribute of trials that were given, not sampled: they are never pruned
RUNGS = "rungs"  # user attribute: values at rungs by rows seen, where Optuna takes none (several objectives)
GIVEN_POINTS = "given_points"  # study attribute: set once the first points are enqueued

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True)
class Proposal:
    """A trial to run: its number, its point by dotted key, its seed, whether it was given as a first point."""

    number: int
    point: dict[str, Value]
    seed: int
    first: bool


class Asker:
    """One study in Optuna's storage. Used by the driver process alone.

    Args:
        storage: where the study is kept, or the path of a journal file.
        options: the ``study`` section.
        space: what may be drawn.
        fixed: values of the template recipe by dotted key, for conditions.
    """

    def __init__(self, storage: BaseStorage | Path, options: StudyOptions, space: Space, fixed: Mapping[str, Value]):
        self.options, self.space, self.fixed = options, space, fixed
        self.study = optuna.create_study(
            storage=open_storage(None, storage) if isinstance(storage, Path) else storage,
            study_name=options.name,
            directions=["maximize" if one.sign > 0 else "minimize" for one in options.objectives],
            load_if_exists=True,
            sampler=self._sampler(0),
        )

    def enqueue_once(self, points: list[dict[str, Value]]) -> None:
        """Enqueue the first points (and, for the grid sampler, the grid) unless an earlier session did.

        Raises:
            RequestError: a point is not in the space.
        """
        if self.study.user_attrs.get(GIVEN_POINTS) is not None:
            return
        draws = [self.space.encode(point, self.fixed) for point in points]
        given = [(draw, {FIRST: True}) for draw in draws]
        if self.options.sampler == "grid":
            given += [(draw, {}) for draw in self.space.grid(self.fixed) if draw not in draws]
        for draw, attributes in given[len(self) :]:  # nothing is asked before all are there: some may be, after a crash
            self.study.enqueue_trial(draw, user_attrs=attributes)
        self.study.set_user_attr(GIVEN_POINTS, len(draws))

    def unfinished(self) -> list[Proposal]:
        """Trials that an earlier session left running; they go on under their own number."""
        running = self.study.get_trials(states=(TrialState.RUNNING,))
        for trial in running:
            if SEED not in trial.user_attrs:  # the driver died in the middle of ask
                self._ask_again(trial)
        return [_proposal(self._trial(trial.number)) for trial in running]

    def _ask_again(self, trial: FrozenTrial) -> None:
        """Finish what ``ask`` began for a trial: the same point as if it had not been cut off, drawn on a copy."""
        study = optuna.create_study(directions=self.study.directions, sampler=self._sampler(trial.number))
        others = [t for t in self._trials() if t.number != trial.number and t.state != TrialState.WAITING]
        study.add_trials(others)
        if "fixed_params" in trial.system_attrs:
            study.enqueue_trial(trial.system_attrs["fixed_params"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            point = self.space.draw(study.ask(), self.fixed)
        drawn, storage = study.trials[-1], self.study._storage
        for name, distribution in drawn.distributions.items():
            value = distribution.to_internal_repr(drawn.params[name])
            storage.set_trial_param(trial._trial_id, name, value, distribution)
        for key, value in drawn.system_attrs.items():
            storage.set_trial_system_attr(trial._trial_id, key, value)
        self._give(Trial(self.study, trial._trial_id), point)

    def proposal(self, number: int) -> Proposal:
        """What ``ask`` gave for a number."""
        return _proposal(self._trial(number))

    def __len__(self) -> int:
        """How many numbers are given out, first points that wait included."""
        return len(self._trials())

    def outcome(self, number: int) -> Outcome | None:
        """How a trial ended; None while it is open or when there is no such trial."""
        trials = self._trials()
        return _outcome(trials[number]) if number < len(trials) else None

    def spent(self) -> int:
        """How many trials count against the budget."""
        outcomes = [_outcome(trial) for trial in self._trials()]
        return sum(1 for outcome in outcomes if outcome is not None and TABLE[outcome].spent)

    def ask(self) -> Proposal | None:
        """The next point, or None when a grid is exhausted."""
        waiting = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if self.options.sampler == "grid" and not waiting:
            return None
        number = min((trial.number for trial in waiting), default=len(self))
        self.study.sampler = self._sampler(number)
        with warnings.catch_warnings():  # what a sampler leaves out is told once, by sampler_warnings
            warnings.simplefilter("ignore", UserWarning)
            trial = self.study.ask()
            point = self.space.draw(trial, self.fixed)
        self._give(trial, point)
        return _proposal(self._trial(trial.number))

    def _give(self, trial: Trial, point: dict[str, Value]) -> None:
        """Write down what everybody else sees of a trial; the seed last, which says that it is all there."""
        trial.set_user_attr(POINT, point)
        trial.set_user_attr(SEED, derive_seed(self.options.seed, "trial", trial.number))

    def preview(self, count: int) -> list[dict[str, Value]]:
        """The first ``count`` points of a study that does not exist yet, without running anything.

        Only meaningful on a throw-away study: the trials stay open in it.
        """
        proposals = [self.ask() for _ in range(count)]
        return [proposal.point for proposal in proposals if proposal is not None]

    def report(self, number: int, value: float, rows: int) -> None:
        """Keep a rung's value of the guide; ``rows`` (seen so far) is Optuna's step."""
        trial = self._open(number)
        if trial is None or not math.isfinite(value):
            return
        if len(self.options.objectives) > 1:  # Optuna has no intermediate values there
            trial.set_user_attr(RUNGS, {**trial.user_attrs.get(RUNGS, {}), str(rows): value})
            return
        with warnings.catch_warnings():  # a trial that goes on after a resume may report a rung again
            warnings.simplefilter("ignore")
            trial.report(value, rows)

    def tell(
        self,
        number: int,
        outcome: Outcome,
        values: float | Sequence[float] | None = None,
        message: str | None = None,
        violations: Mapping[str, float] | None = None,
    ) -> None:
        """Close a trial by the outcome table; interrupted trials stay open. Telling twice changes nothing.

        Args:
            number: of the trial.
            outcome: how it ended.
            values: of the objectives, in their order; of completed trials alone.
            message: kept with the trial.
            violations: by constraint, how far its bound is broken (zero or less: kept), where that is known.

        Raises:
            ValueError: a completed trial without a finite value for every objective.
        """
        meaning = TABLE[outcome]
        trial = self._open(number)
        if trial is None or not meaning.final:
            return
        told = [values] if isinstance(values, int | float) else list(values or [])
        if meaning.value and (len(told) != len(self.options.objectives) or not all(map(math.isfinite, told))):
            raise ValueError(f"trial {number} completed without a finite value for every objective: {values}")
        trial.set_user_attr(OUTCOME, outcome.value)
        if message:
            trial.set_user_attr("message", message[:4000])
        for name, violation in (violations or {}).items():
            trial.set_constraint(name, violation)
        if not meaning.runnable:  # where it holds it is left out: a constant constraint would only cost models time
            trial.set_constraint("runnable", 1.0)
        state = TrialState[meaning.optuna or "FAIL"]
        self.study.tell(trial, told if meaning.value else None, state=state)

    def _open(self, number: int) -> Trial | None:
        frozen = self._trial(number)
        if frozen.state.is_finished():
            return None
        return Trial(self.study, frozen._trial_id)  # adopts the running trial with its number and parameters

    def _trial(self, number: int) -> FrozenTrial:
        return self._trials()[number]

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        return make_sampler(self.options, derive_seed(self.options.seed, "sampler", number))


def read_outcomes(storage: BaseStorage, name: str) -> dict[int, Outcome | None]:
    """How the trials of a study in a storage ended, by number; None for open ones. Empty where there is none."""
    if name not in optuna.get_all_study_names(storage):
        return {}
    trials = optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False)
    return {trial.number: _outcome(trial) for trial in trials}


def _outcome(trial: FrozenTrial) -> Outcome | None:
    told = trial.user_attrs.get(OUTCOME)
    return Outcome(told) if told is not None and trial.state.is_finished() else None


def _proposal(trial: FrozenTrial) -> Proposal:
    attributes: dict[str, Any] = trial.user_attrs
    return Proposal(trial.number, attributes[POINT], attributes[SEED], bool(attributes.get(FIRST)))
