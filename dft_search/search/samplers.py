"""Optuna's samplers by name, made anew for every ask, and what is to be said where one suits a study badly."""

import warnings
from collections.abc import Mapping

import optuna

from dft_search.search.options import StudyOptions
from dft_search.search.space import Space, Value

GENERATIONS = 5  # that a genetic search should see at least
CMAES_TRIALS = 20  # per continuous parameter, below which CMA-ES has hardly moved
RELATIVE = ("nsga2", "gp", "cmaes")  # model jointly what every trial has; all else they draw at random


def make_sampler(options: StudyOptions, seed: int) -> optuna.samplers.BaseSampler:
    """A fresh sampler. All of its state that matters is in the study's storage; the seed makes the rest repeatable."""
    startup = max(4, min(10, options.budget.trials // 4))
    with warnings.catch_warnings():  # group is marked experimental; conditional spaces need it
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if options.sampler == "tpe":
            return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, n_startup_trials=startup)
        if options.sampler == "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed, population_size=population_size(options))
        if options.sampler == "gp":
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)
        if options.sampler == "cmaes":
            return optuna.samplers.CmaEsSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)
    return optuna.samplers.RandomSampler(seed=seed)


def population_size(options: StudyOptions) -> int:
    """Of NSGA-II: Optuna's 50 where the budget has room for some generations of that, less in a smaller study."""
    return max(4, min(50, options.budget.trials // GENERATIONS))


def sampler_warnings(options: StudyOptions, space: Space, fixed: Mapping[str, Value] | None = None) -> list[str]:
    """Where the sampler suits the space or the budget badly; each a sentence for the user.

    ``fixed`` are the values of the template recipe, for conditions.
    """
    said: list[str] = []
    name, trials = options.sampler, options.budget.trials
    conditional = [parameter.key for parameter in space.parameters if parameter.when]
    choices = [parameter.key for parameter in space.parameters if parameter.kind == "choice"]
    numbers = [parameter for parameter in space.parameters if parameter.kind in ("int", "float")]
    if name in RELATIVE and conditional:
        said.append(f"sampler {name} draws conditional parameters at random ({_some(conditional)}); tpe models them")
    if name == "cmaes" and choices:
        said.append(f"sampler cmaes draws choices at random ({_some(choices)}); tpe models them")
    if name == "cmaes" and trials < CMAES_TRIALS * max(1, len(numbers)):
        said.append(f"sampler cmaes wants some {CMAES_TRIALS * max(1, len(numbers))} trials here; there are {trials}")
    if name in ("random", "grid", "cmaes") and options.constraints:
        said.append(f"sampler {name} does not learn from constraints; tpe, nsga2 and gp do")
    if name == "nsga2" and trials < 10 * GENERATIONS:
        said.append(f"sampler nsga2 wants at least {10 * GENERATIONS} trials for {GENERATIONS} generations of 10")
    if name == "gp" and trials > 500:
        said.append("sampler gp takes long per suggestion after some 500 trials; tpe does not")
    if name == "grid" and options.budget.trials < (points := sum(1 for _ in space.grid(fixed or {}))):
        said.append(f"the grid has {points} points, of which the budget of {trials} trials sees the first ones only")
    return said


def grid_size(space: Space) -> int:
    """Points of a grid, at most, as if no condition left any out."""
    points = 1
    for parameter in space.parameters:
        points *= len(parameter.values())
    return points


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")
