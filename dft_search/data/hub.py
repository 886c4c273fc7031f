"""Records of a hub data set or of a folder, through the ``datasets`` library; a hub out of reach is said at once."""

import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dft_search.config import Problem, RequestError, expand_path, nearest
from dft_search.data.files import Record, Table
from dft_search.data.options import HubSet

HUB_SECONDS = 5.0  # the hub answers within this time, or counts as not reachable
_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


def open_hub(source: HubSet, *, key: str, columns: Sequence[str]) -> Table:
    """Load one split.

    Args:
        source: what to load; a ``hub`` that is an existing folder is read from there.
        key: the option that names it, for messages.
        columns: the columns to read, where the data set has them.

    Raises:
        RequestError: no such folder, data set, revision, configuration or split; no access; hub not reachable.
    """
    path = expand_path(source.hub)
    local = Path(path).is_dir()
    if not local:
        if not _NAME.fullmatch(source.hub):
            expected = "a folder, or org/name on the hub"
            raise RequestError(Problem("no such folder", file=path, key=key, expected=expected))
        check_hub(source, key)
    return _load(path if local else source.hub, source, key, columns)


def _load(name: str, source: HubSet, key: str, columns: Sequence[str]) -> Table:
    import datasets

    try:
        loaded = datasets.load_dataset(name, source.config, split=source.split, revision=source.revision)
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
        raise RequestError(_load_problem(name, source, key, error)) from None
    names = tuple(loaded.column_names)
    wanted = loaded.select_columns([column for column in names if column in columns])

    def records() -> Iterator[Record]:
        yield from enumerate(wanted, 1)

    return Table(name, names, records(), False)


def _load_problem(name: str, source: HubSet, key: str, error: Exception) -> Problem:
    import datasets

    origin = error.__cause__ or error  # "an error occurred while generating" says nothing, its cause does
    text = " ".join((str(origin) or type(origin).__name__).split("\n\n")[0].split())[:300]
    if datasets.config.HF_HUB_OFFLINE and isinstance(error, OSError) and not Path(name).is_dir():
        expected = "local files, or a network without HF_HUB_OFFLINE"
        return Problem("is not in the local cache, and HF_HUB_OFFLINE is set", file=name, key=key, expected=expected)
    if text.startswith("Unknown split"):
        known = re.findall(r"'([^']+)'", text) or re.findall(r"\w+", text.partition("one of")[2])
        near = nearest(source.split, known)
        choices = "one of " + ", ".join(known) if known else None
        return Problem(f"no split '{source.split}'", file=name, key=key, expected=choices, nearest=near)
    return Problem(f"cannot be loaded: {text}", file=name, key=key)


def check_hub(source: HubSet, key: str) -> None:
    """Ask the hub once whether the data set is there: ``load_dataset`` alone would retry for half a minute.

    Raises:
        RequestError: it is not, or not for us, or the hub does not answer. Offline, nothing is asked.
    """
    import huggingface_hub
    from huggingface_hub import constants, errors

    if constants.is_offline_mode():
        return
    answer: list[Any] = []

    def ask() -> None:
        api = huggingface_hub.HfApi()
        try:
            answer.append(api.dataset_info(source.hub, revision=source.revision, timeout=HUB_SECONDS))
        except (errors.HTTPError, OSError, ValueError) as error:
            answer.append(error)

    # a thread, since looking up a host name knows no time limit
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(2 * HUB_SECONDS)
    outcome = answer[0] if answer else TimeoutError(f"no answer in {2 * HUB_SECONDS:g} s")
    if not isinstance(outcome, Exception):
        return

    def refusal(message: str, expected: str | None = None) -> RequestError:
        return RequestError(Problem(message, file=source.hub, key=key, expected=expected))

    if isinstance(outcome, errors.GatedRepoError):
        raise refusal("access to this data set is restricted", "a token with access")
    if isinstance(outcome, errors.RevisionNotFoundError):
        raise refusal(f"the hub knows no revision '{source.revision}' of it")
    if isinstance(outcome, errors.RepositoryNotFoundError):
        raise refusal("is neither a local file or folder nor a data set of the hub that may be read from here")
    if isinstance(outcome, errors.HfHubHTTPError):
        status = outcome.response.status_code
        raise refusal(f"the hub refused to show this data set (HTTP {status})")
    message = f"is no local file or folder, and the hub cannot be reached ({type(outcome).__name__})"
    hint = "a local file, or HF_HUB_OFFLINE=1 to use a copy in the cache"
    raise refusal(message, hint)
