"""What ``doctor`` looks at in a study: its folder, its driver, and whether Optuna, its records and MLflow agree."""

import json
import os
import time
from collections.abc import Mapping
from typing import Any

from dft_search.config import InfrastructureError, RequestError, home, load_document
from dft_search.launch.connect import ADDRESS, connected, is_answered
from dft_search.search.asker import read_outcomes
from dft_search.search.confirmation.substudy import OFFSET, SUFFIX
from dft_search.search.definition import load_study
from dft_search.search.doctor.findings import Finding, numbers, ok, trouble
from dft_search.search.doctor.record import RecordDoctor
from dft_search.search.nodes import node_check, study_needs
from dft_search.search.outcomes import RUNNING, TABLE, Outcome
from dft_search.search.planning import slot_spec
from dft_search.search.storage import open_storage
from dft_search.search.study_folder import BASELINES, StudyFolder, TrialRecord
from dft_search.tracking.uri import resolve_uri
from dft_search.training.places import names


def examine(folder: StudyFolder, *, fix: bool = False) -> list[Finding]:
    """Look at a study; with ``fix`` (its lock held by the caller) set right what can be."""
    try:
        state, records = folder.read_state(), folder.read_trials()
        section = load_document(folder.study_file).data["study"]
    except (OSError, ValueError, TypeError, KeyError, RequestError) as error:
        return [trouble("study", f"{folder.path} cannot be read: {error}", "a copy of its files, or a new study")]
    found = [_definition(folder, records), *_nodes(folder)]
    if not fix:
        holder = folder.lock.holder()
        if holder is not None:
            return [*found, ok("driver", f"{holder} runs it: nothing else is compared while it does")]
    found.append(ok("driver", "nobody runs it"))
    told, finding = _told(folder, section)
    found += [finding] if finding is not None else []
    expected = {record.trial: _expected(record, told) for record in records}
    found += _records(folder, records, told, expected, fix)
    found += _state(folder, state, fix)
    found += _checkpoints(folder, section, records, expected)
    found += _mlflow(folder, section, records, expected, fix)
    return found


def _definition(folder: StudyFolder, records: list[TrialRecord]) -> Finding:
    """Whether the study could go on here: its model, rows and tasks are there."""
    try:
        load_study(folder.study_file)
    except RequestError as error:
        return trouble("study", str(error).replace("\n", "; "), "bring back what is missing before the study goes on")
    return ok("study", f"{folder.path}: {len(records)} trials")


def _nodes(folder: StudyFolder) -> list[Finding]:
    """What the nodes of the cluster of RAY_ADDRESS lack for it; whether there is one is looked at elsewhere."""
    address = os.environ.get(ADDRESS)
    if not address or not is_answered(address):
        return []
    try:
        definition = load_study(folder.study_file)
        needs = study_needs(definition.recipe, folder.path, definition.options.storage)
        check = node_check(needs, slot_spec(definition.options.slots, ""))
        with connected():
            problems = check.look()
    except (RequestError, InfrastructureError):
        return []  # told of the study, or of the cluster
    advice = "the same packages, files and storage on every node"
    if not check.asked:
        return [ok("nodes", "none is there yet that could hold a worker: nothing was asked")]
    return [trouble("nodes", str(problem), advice) for problem in problems] or [ok("nodes", "they have what it needs")]


def _told(folder: StudyFolder, section: Mapping[str, Any]) -> tuple[dict[int, Outcome | None], Finding | None]:
    """What Optuna knows, by our numbers of trials, and what is wrong with asking it."""
    if section.get("database") is None and not folder.journal.exists():
        return {}, None
    try:
        storage = open_storage(section.get("database"), folder.journal)
        told = read_outcomes(storage, folder.read_state().get("name", folder.path.name))
        tuning = read_outcomes(storage, folder.read_state().get("name", folder.path.name) + SUFFIX)
    except (RequestError, InfrastructureError) as error:
        return {}, trouble("optuna", str(error), "bring the database back")
    return {**told, **{number + OFFSET: outcome for number, outcome in tuning.items()}}, None


def _expected(record: TrialRecord, told: Mapping[int, Outcome | None]) -> Outcome:
    """How a trial stands when nobody runs it: as Optuna was told, whose word is final; else as its record says."""
    outcome = told.get(record.trial)
    if outcome is not None:
        return outcome
    return Outcome.INTERRUPTED if record.outcome == RUNNING else Outcome(record.outcome)


def _records(
    folder: StudyFolder,
    records: list[TrialRecord],
    told: Mapping[int, Outcome | None],
    expected: Mapping[int, Outcome],
    fix: bool,
) -> list[Finding]:
    """Records that say something else than what is so."""
    wrong = [record for record in records if record.outcome != expected[record.trial]]
    running = [record.trial for record in wrong if record.outcome == RUNNING]
    other = [record.trial for record in wrong if record.outcome != RUNNING]
    for record in wrong if fix else []:
        record.outcome, record.ended = expected[record.trial].value, record.ended or time.time()
        folder.write_trial(record)
    found = []
    if running:
        found.append(_set_right("trials", f"{numbers(running)} said running, and nobody runs them", fix))
    if other:
        found.append(_set_right("trials", f"{numbers(other)} did not say what Optuna was told", fix))
    search = [r for r in records if r.phase in ("search", "baseline") and r.trial != BASELINES and r.trial in told]
    again = [r.trial for r in search if told[r.trial] is None and TABLE[expected[r.trial]].final]
    if again:
        found.append(trouble("trials", f"{numbers(again)} ended, and Optuna was not told", "resume runs them again"))
    return found or [ok("trials", "every trial says what became of it")]


def _state(folder: StudyFolder, state: Mapping[str, Any], fix: bool) -> list[Finding]:
    """A study that says running although its driver is gone."""
    if state.get("state") != "running":
        return []
    if fix:
        folder.update_state(state="interrupted")
    return [_set_right("study", "it said running, and its driver is gone", fix)]


def _checkpoints(
    folder: StudyFolder, section: Mapping[str, Any], records: list[TrialRecord], expected: Mapping[int, Outcome]
) -> list[Finding]:
    """Interrupted trials that have reported, so had a checkpoint, and have none any more."""
    waiting = [r for r in records if expected[r.trial] is Outcome.INTERRUPTED and r.steps > 0]
    if not waiting:
        return []
    try:
        lost = [r.trial for r in waiting if not _has_checkpoint(folder.checkpoints(r.trial, section.get("storage")))]
    except (InfrastructureError, RequestError) as error:
        return [trouble("storage", str(error), "the storage back before the study goes on")]
    if lost:
        return [trouble("storage", f"the checkpoints of {numbers(lost)} are gone", "nothing: resume begins them anew")]
    return [ok("storage", f"{numbers(r.trial for r in waiting)} can go on from a checkpoint")]


def _has_checkpoint(place: str) -> bool:
    return any(name.startswith("step-") for name in names(place))


def _mlflow(
    folder: StudyFolder,
    section: Mapping[str, Any],
    records: list[TrialRecord],
    expected: Mapping[int, Outcome],
    fix: bool,
) -> list[Finding]:
    """What MLflow holds, against the study's own records."""
    tracking = section.get("tracking") or {}
    try:
        uri = resolve_uri(home(), tracking.get("uri"))
        doctor = RecordDoctor(folder, uri, tracking.get("experiment") or section["name"], records, expected)
        return doctor.mend() if fix else doctor.look()
    except (RequestError, InfrastructureError) as error:
        return [trouble("mlflow", str(error), "MLFLOW_TRACKING_URI, or start the server, then doctor --fix")]
    except (OSError, json.JSONDecodeError) as error:
        return [trouble("spill", f"what waits for MLflow cannot be read: {error}", "look at the spill files")]


def _set_right(check: str, message: str, fix: bool) -> Finding:
    if fix:
        return Finding(check, "fixed", message)
    return trouble(check, message, "doctor --fix, or resume")
