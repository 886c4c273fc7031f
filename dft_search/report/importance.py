"""Which parameters mattered: Optuna's PED-ANOVA over the completed trials, or the reason why it cannot be said."""

import json
import logging
import warnings
from typing import Any

from dft_search.report.collect import StudyView

MIN_TRIALS = 10  # below this the best quarter is two trials, and any ranking is noise
TOP = 4  # trials that make up "the good ones", where a tenth of all is fewer


def parameter_importance(view: StudyView) -> dict[str, Any]:
    """Shares by parameter (they sum to 1), largest first.

    PED-ANOVA asks how differently a parameter is spread among the best trials than among all completed ones, so
    it also rates parameters that only some trials have. Values are the real ones, as in the recipes.

    Returns:
        `{"values": {key: share}, "method": str, "trials": int, "reason": str | None}`; with a reason, no values.
    """
    trials = view.ranked
    if len(trials) < MIN_TRIALS:
        return _nothing(f"it takes {MIN_TRIALS} completed trials, and there are {len(trials)}", len(trials))
    if len({trial.dev[view.metric].value for trial in trials}) == 1:
        return _nothing("all completed trials have the same score", len(trials))
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # as the search does: a study in memory is no news

    keys = sorted({key for trial in trials for key in trial.params})
    spread = {key: _distribution(key, view) for key in keys}
    varied = {key for key, distribution in spread.items() if not distribution.single()}
    if not varied:
        return _nothing("no parameter took more than one value", len(trials))
    study = optuna.create_study(direction="maximize" if view.maximize else "minimize")
    for trial in trials:
        params = {key: _plain(value) for key, value in trial.params.items() if key in varied}
        distributions = {key: spread[key] for key in params}
        value = trial.dev[view.metric].value
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=value))
    share = max(0.1, TOP / len(trials))
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        values = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=share))
    for warning in heard:
        logging.getLogger(__name__).info("importance: %s", warning.message)
    ordered = dict(sorted(values.items(), key=lambda pair: (-pair[1], pair[0])))
    method = f"PED-ANOVA, the best {round(share * len(trials))} of {len(trials)} completed trials against all"
    return {"values": ordered, "method": method, "trials": len(trials), "reason": None}


def _distribution(key: str, view: StudyView) -> Any:
    """Of one parameter over the completed trials: their range, on the scale that the space draws it on."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    values = [_plain(trial.params[key]) for trial in view.ranked if key in trial.params]
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
        return CategoricalDistribution(sorted(set(values), key=repr))
    log = bool((view.space.get(key) or {}).get("log")) and min(values) > 0
    if all(isinstance(value, int) for value in values):
        return IntDistribution(min(values), max(values), log=log)
    return FloatDistribution(min(values), max(values), log=log)


def _plain(value: Any) -> Any:
    """A value as Optuna takes it: lists and mappings as their JSON."""
    return json.dumps(value, sort_keys=True) if isinstance(value, list | dict) else value


def _nothing(reason: str, trials: int) -> dict[str, Any]:
    return {"values": {}, "method": "PED-ANOVA", "trials": trials, "reason": reason}
