"""Which parameters mattered: Optuna's PED-ANOVA over the study's journal, or the reason why it cannot be said."""

import logging
import warnings
from pathlib import Path
from typing import Any

MIN_TRIALS = 10  # below this the best quarter is two trials, and any ranking is noise
TOP = 4  # trials that make up "the good ones", where a tenth of all is fewer


def parameter_importance(journal: Path) -> dict[str, Any]:
    """Shares by parameter (they sum to 1), largest first.

    PED-ANOVA asks how differently a parameter is spread among the best trials than among all completed ones, so
    it also rates parameters that only some trials have.

    Returns:
        `{"values": {key: share}, "method": str, "trials": int, "reason": str | None}`; with a reason, no values.
    """
    if not journal.is_file():
        return _nothing("the study has no optuna.journal", 0)
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    storage = JournalStorage(JournalFileBackend(str(journal)))
    # a name with a slash is that of a sub-study, which other parameters belong to
    names = [study.study_name for study in storage.get_all_studies() if "/" not in study.study_name]
    if not names:
        return _nothing("optuna.journal holds no study", 0)
    study = optuna.load_study(study_name=names[0], storage=storage)
    trials = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if len(trials) < MIN_TRIALS:
        return _nothing(f"it takes {MIN_TRIALS} completed trials, and there are {len(trials)}", len(trials))
    if len({trial.value for trial in trials}) == 1:
        return _nothing("all completed trials have the same score", len(trials))
    share = max(0.1, TOP / len(trials))
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        values = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=share))
    for warning in heard:
        logging.getLogger(__name__).info("importance: %s", warning.message)
    if not values:
        return _nothing("the space has no parameter", len(trials))
    ordered = dict(sorted(values.items(), key=lambda pair: (-pair[1], pair[0])))
    method = f"PED-ANOVA, the best {round(share * len(trials))} of {len(trials)} completed trials against all"
    return {"values": ordered, "method": method, "trials": len(trials), "reason": None}


def _nothing(reason: str, trials: int) -> dict[str, Any]:
    return {"values": {}, "method": "PED-ANOVA", "trials": trials, "reason": reason}
