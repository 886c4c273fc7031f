"""What ``doctor`` looks at without a study: versions, disk, threads, the cluster, MLflow, the data folder."""

import os
import shutil
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from dft_search.config import InfrastructureError, RequestError, home
from dft_search.search.doctor.findings import Finding, ok, trouble
from dft_search.tracking.audit import check_access, check_writable
from dft_search.tracking.secrets import mask
from dft_search.tracking.uri import check_uri, resolve_uri, sqlite_file

LEAST_DISK = 2e9  # bytes that a small study may well write
DATA, HOME = "DFT_SEARCH_DATA", "DFT_SEARCH_HOME"


def check_versions() -> list[Finding]:
    """Python and every package against what this release asks for."""
    about = f"Python {sys.version.split()[0]}"
    try:
        requirements = [Requirement(text) for text in metadata.requires("dft-search") or []]
        wanted = metadata.metadata("dft-search")["Requires-Python"] or ""
    except metadata.PackageNotFoundError:
        return [trouble("versions", f"{about}; dft-search is not installed here", "pip install dft-search")]
    wrong = []
    if not Requirement(f"python{wanted}").specifier.contains(sys.version.split()[0]):
        wrong.append(f"Python {sys.version.split()[0]} is not {wanted}")
    needed = [each for each in requirements if each.marker is None or each.marker.evaluate({"extra": ""})]
    for requirement in needed:
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} {version} is not {requirement.specifier}")
    if wrong:
        return [trouble("versions", "; ".join(wrong), "pip install --upgrade dft-search, in an environment of its own")]
    main = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "ray", "optuna", "mlflow"))
    return [ok("versions", f"{about}, {main}; all {len(needed)} packages are in range")]


def check_home() -> list[Finding]:
    """Whether the home folder can be written, and has room."""
    place = home()
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        return [trouble("home", f"{place} cannot be written", "DFT_SEARCH_HOME elsewhere, or other rights")]
    free = shutil.disk_usage(there).free
    told = f"{place}: {free / 1e9:.1f} GB free"
    if free < LEAST_DISK:
        return [trouble("home", told, "make room, or DFT_SEARCH_HOME on another disk")]
    return [ok("home", told)]


def check_threads() -> list[Finding]:
    """Cores, and what OMP_NUM_THREADS says. Workers get theirs from ``slots.cpus_per_worker``."""
    cores, given = os.cpu_count() or 1, os.environ.get("OMP_NUM_THREADS")
    if given is None:
        return [ok("threads", f"{cores} cores; workers use study.slots.cpus_per_worker threads each")]
    if not given.isdigit() or not 1 <= int(given) <= cores:
        advice = f"unset it, or 1 to {cores}"
        return [trouble("threads", f"OMP_NUM_THREADS is '{given}' on {cores} cores", advice)]
    return [ok("threads", f"{cores} cores, OMP_NUM_THREADS {given}")]


def check_cluster() -> list[Finding]:
    """Whether the Ray cluster of RAY_ADDRESS lets us in, and what it has."""
    from dft_search.launch.cluster import survey
    from dft_search.launch.connect import ADDRESS, connected, is_answered
    from dft_search.launch.nodes import Needs, NodeCheck

    address = os.environ.get(ADDRESS)
    if not address:
        return [ok("ray", "RAY_ADDRESS is not set: studies start a Ray of their own on this machine")]
    try:
        if not is_answered(address):
            raise InfrastructureError(f"nobody answers at {address}")
        with connected():
            room = survey()
            lacking = NodeCheck(Needs(place=str(home()), key=HOME), {}).look()
    except InfrastructureError as error:
        return [trouble("ray", mask(str(error)), "unset RAY_ADDRESS for a Ray of your own, or start the cluster")]
    has = {kind: sum(node.get(kind, 0.0) for node in room.nodes) for kind in ("CPU", "GPU")}
    free = {kind: sum(node.get(kind, 0.0) for node in room.free) for kind in ("CPU", "GPU")}
    counts = ", ".join(f"{free[kind]:g} of {has[kind]:g} {kind}s free" for kind in has if has[kind])
    found = [ok("ray", f"{mask(address)}: {len(room.nodes)} node{'s' if len(room.nodes) > 1 else ''}, {counts}")]
    for problem in lacking:
        if problem.key == HOME:  # a study may keep its checkpoints elsewhere, and is refused where it does not
            found.append(ok("nodes", f"{problem.message}: studies need study.storage, runs production.storage"))
        else:
            found.append(trouble("nodes", str(problem), "the same packages on every node"))
    return found


def check_tracking() -> list[Finding]:
    """Whether the MLflow store that studies use here can be read and written."""
    try:
        uri = resolve_uri(home(), None)
        problems = check_uri(uri)
        if problems:
            raise RequestError(problems)
        database = sqlite_file(uri)
        if database is not None and not database.exists():
            return [ok("mlflow", f"{mask(uri)} will be made by the first study")]
        away = check_access(uri)
        if away is not None:
            advice = "start it: until then studies keep their record in a file and send it later"
            return [trouble("mlflow", f"{mask(uri)} does not answer: {away}", advice)]
        check_writable(uri)
    except (RequestError, InfrastructureError) as error:
        return [trouble("mlflow", str(error), "MLFLOW_TRACKING_URI, or unset it for SQLite in the home folder")]
    return [ok("mlflow", f"{mask(uri)} answers" + ("" if uri.startswith("http") else " and can be written"))]


def check_data() -> list[Finding]:
    """The folder of rows and evaluation sets that shipped studies name."""
    folder = os.environ.get(DATA)
    if not folder:
        return [ok("data", f"{DATA} is not set: only files that name it need it")]
    if not Path(folder).is_dir() or not os.access(folder, os.R_OK | os.X_OK):
        return [trouble("data", f"{DATA} is {folder}, which is no folder that can be read", f"{DATA}=FOLDER")]
    return [ok("data", f"{DATA} is {folder}")]


CHECKS: list[Callable[[], list[Finding]]] = [
    check_versions,
    check_home,
    check_threads,
    check_cluster,
    check_tracking,
    check_data,
]
