"""``search`` and ``resume``: a study from its file to its report."""

import errno
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from dft_search.config import InfrastructureError, Problem, RequestError, home
from dft_search.config.document import to_yaml
from dft_search.config.files import write_text
from dft_search.launch.connect import connected, in_ray_job
from dft_search.search.definition import ENTROPY, Definition, load_study
from dft_search.search.entropy_point import with_entropy
from dft_search.search.inputs import StudyInputs
from dft_search.search.mirror import fetch_if_known, find_study, is_known, mirrored
from dft_search.search.nodes import node_check, study_needs
from dft_search.search.options import Transfer
from dft_search.search.phases import go_on, run_phases
from dft_search.search.planning import slot_spec
from dft_search.search.progress import Progress
from dft_search.search.refusal import locked_or_undone
from dft_search.search.signals import stop_signals
from dft_search.search.study_folder import SESSIONS, StudyFolder, check_name, studies_folder
from dft_search.tracking.audit import check_access
from dft_search.tracking.secrets import mask
from dft_search.tracking.uri import check_uri, resolve_uri


def search(path: str, *, name: str | None, resume: bool, confirm: bool | None, overrides: Iterable[str]) -> int:
    """Run a study, or go on with it. Returns the exit code: 0 done, 1 nothing completed, 3 interrupted.

    ``confirm`` says whether the confirmation phase runs: None for what an earlier session was told, else yes.

    Raises:
        RequestError: the file is wrong, or the study exists and ``resume`` is not set.
        InfrastructureError: no cluster, or it cannot hold one slot, or MLflow refuses our credentials.
    """
    definition = load_study(path, overrides, name=name)
    check_name(definition.options.name)
    folder = StudyFolder(studies_folder() / definition.options.name)
    if resume:  # on a new machine, what an earlier one did lies in the study's storage alone
        fetch_if_known(definition.options.name, definition.options.storage)
    if folder.study_file.exists():
        if not resume:
            raise RequestError(
                Problem(
                    f"study '{definition.options.name}' exists in {folder.path}",
                    expected="--resume to go on with it, or --name for another one",
                )
            )
        _same_study(definition, folder)
    elif not resume and (storage := definition.options.storage) and is_known(definition.options.name, storage):
        raise RequestError(
            Problem(
                f"study '{definition.options.name}' exists in {storage}",
                expected="--resume to go on with it, or --name for another one",
            )
        )
    return _run(definition, folder, confirm=confirm)


def resume(name: str, *, confirm: bool | None = None) -> int:
    """Go on with an existing study as it stands in its folder. Arguments and exit codes as ``search``.

    ``name`` is its name, the path of its folder, or the URL where its storage lies.
    """
    folder = StudyFolder(find_study(name))
    # another machine may have gone on with it since
    fetch_if_known(folder.path.name, load_study(folder.study_file).options.storage, folder.path)
    return _run(load_study(folder.study_file), folder, confirm=confirm)


def _same_study(definition: Definition, folder: StudyFolder) -> None:
    """A study that goes on may change its budget, not what it searches. Raises RequestError."""
    stored = load_study(folder.study_file)
    same = [
        ("recipe",),
        ("space",),
        ("study", "seed"),
        ("study", "objective"),
        ("study", "guard"),
        ("study", "constraints"),
        ("study", "rungs"),
        ("study", "sampler"),
    ]
    for key in same:
        if _value(stored, key) != _value(definition, key):
            message = f"differs from that of the study in {folder.path}"
            place = definition.document.problem(message, key)
            raise RequestError(replace(place, expected="--name for another study"))


def _value(definition: Definition, key: tuple[str, ...]) -> Any:
    if key[0] == "study":
        return getattr(definition.options, key[1])
    return _study_data(definition)[key[0]]


def _study_data(definition: Definition) -> dict[str, Any]:
    """The study file as it is kept: overrides applied, paths absolute."""
    recipe = definition.recipe.model_dump(mode="json", exclude_unset=True, by_alias=True)
    data = definition.document.data
    study = dict(data["study"])
    if any(isinstance(given, Transfer) for given in definition.options.first_points):
        # the study that they come from may be gone tomorrow
        study["first_points"] = [*definition.first_points(), *([ENTROPY] if ENTROPY in study["first_points"] else [])]
    return {"study": study, "recipe": recipe, "space": data["space"]}


def _run(definition: Definition, folder: StudyFolder, *, confirm: bool | None) -> int:
    options = definition.options
    uri = resolve_uri(home(), options.tracking.uri)
    problems = check_uri(uri, job=in_ray_job())
    if options.tracking.uri is not None and mask(options.tracking.uri) != options.tracking.uri:
        place = definition.document.problem("holds a password, which would be written down", ("study", "tracking"))
        problems.append(replace(place, expected="${VARIABLE} in its place, or MLFLOW_TRACKING_URI"))
    if problems:
        raise RequestError(problems)
    facts, data, inputs = _read_data(definition)
    check_access(uri)
    with locked_or_undone(folder, options.storage):
        folder.stop_flag.unlink(missing_ok=True)
        state = folder.read_state()
        confirm = state.get("confirm", True) if confirm is None else confirm
        try:
            folder.update_state(
                id=state.get("id") or uuid.uuid4().hex,
                sessions=state.get("sessions", 0) + 1,
                session_ids=[*state.get(SESSIONS, []), uuid.uuid4().hex],
                confirm=confirm,
            )
            write_text(folder.study_file, to_yaml(_study_data(definition)))
            with Progress(options, definition.space) as progress, mirrored(folder, options.storage):
                definition = with_entropy(definition, folder, progress.line)
                for warning in definition.warnings:
                    progress.line(f"note: {warning}")
                progress.phase("Connecting to Ray")
                with connected(f"; go on with: {go_on(folder)}") as ours, stop_signals(_wish(folder, progress)):
                    needs = study_needs(definition.recipe, folder.path, options.storage)
                    nodes = None if ours else node_check(needs, slot_spec(options.slots, ""))
                    return run_phases(definition, folder, uri, facts, data, inputs, progress, nodes, confirm=confirm)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise InfrastructureError(f"{folder.path}: {error.strerror}; make room, then {go_on(folder)}") from error


def _wish(folder: StudyFolder, progress: Progress) -> Callable[[], None]:
    """What a stop signal does: it sets the flag. Another one changes nothing, and says so."""
    signals: list[float] = []

    def wish() -> None:
        signals.append(time.monotonic())
        if len(signals) == 1:
            progress.line("Stopping: trials write a checkpoint at their next step")
            folder.ask_to_stop("stop")
        else:
            waited = f"{signals[-1] - signals[0]:.0f} s"
            progress.line(f"Still stopping, for {waited} so far: running trials write their checkpoints")

    return wish


def _read_data(definition: Definition) -> tuple[dict[str, Any], dict[str, Any], StudyInputs]:
    """Read the rows once, before anything expensive: params for MLflow, what study.json says about the data, and what
    MLflow says."""
    from dft_search.data.rows import read_rows
    from dft_search.search.row_check import check_rows
    from dft_search.training.rows import training_rows

    recipe = definition.recipe
    rows = read_rows(recipe.data.train, needs=recipe.needs)
    facts = {
        "model": recipe.model.path,
        "language": recipe.data.target_language,
        "workers": definition.options.slots.workers,
        "batch_rows": recipe.training.batch_rows,
        "data_fingerprint": rows.fingerprint,
    }
    if recipe.needs.made:
        training_rows(recipe)  # what is wrong with other files is said now
    check_rows(definition)
    data = {"rows": len(rows.rows), "dropped": rows.dropped, "fingerprint": rows.fingerprint}
    return facts, data, StudyInputs(recipe, rows)
