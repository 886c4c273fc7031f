"""Where a base model is: a local folder, or a repository of the hub, which is asked once and not waited for."""

import re
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from dft_search.config import Problem, RequestError, expand_path, nearest
from dft_search.models.families import KEY
from dft_search.models.options import ModelOptions

HUB_SECONDS = 5.0  # the hub answers within this time, or counts as not reachable
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True)
class Source:
    """Where to load from.

    Attributes:
        name: a folder, or a hub name.
        revision: of a hub repository.
        config: path of config.json.
        local_only: do not ask the hub (again).
    """

    name: str
    revision: str | None
    config: str
    local_only: bool


def find_model(options: ModelOptions) -> Source:
    """Find the model's config.json; downloads nothing but that file.

    Raises:
        RequestError: no such folder, no config.json in it, or the hub does not have it, refuses it or is not there.
    """
    path = expand_path(options.path)
    folder = Path(path)
    if folder.is_dir():
        config = folder / "config.json"
        if not config.is_file():
            raise RequestError(Problem(f"'{path}' holds no config.json", key=KEY, expected="a folder with config.json"))
        return Source(path, None, str(config), True)
    if folder.exists():
        raise RequestError(Problem(f"'{path}' is a file", key=KEY, expected="a folder, or org/name on the hub"))
    if path != options.path or not _HUB_NAME.fullmatch(path):
        parent = folder.parent
        siblings = [entry.name for entry in parent.iterdir() if entry.is_dir()] if parent.is_dir() else []
        near = nearest(folder.name, siblings)
        hint = None if near else "a folder with config.json, or org/name on the hub"
        raise RequestError(Problem(f"no such folder: '{path}'", key=KEY, expected=hint, nearest=near))
    return _on_hub(path, options.revision)


@lru_cache(maxsize=64)
def _on_hub(name: str, revision: str | None) -> Source:
    from huggingface_hub import constants, errors, hf_hub_download

    offline = constants.is_offline_mode()
    unreachable = None if offline else _ask_hub(name, revision)
    local_only = offline or unreachable is not None
    try:
        config = str(hf_hub_download(name, "config.json", revision=revision, local_files_only=local_only))
    except (errors.HTTPError, OSError, ValueError) as error:
        if local_only:
            why = "HF_HUB_OFFLINE is set" if offline else f"the hub cannot be reached ({unreachable})"
            message = f"'{name}' is no folder, it is not in the local cache, and {why}"
        elif isinstance(error, errors.EntryNotFoundError):
            message = f"'{name}' holds no config.json"
        else:
            message = f"config.json of '{name}' cannot be loaded: {type(error).__name__}"
        raise RequestError(Problem(message, key=KEY)) from None
    return Source(name, revision, config, local_only)


def _ask_hub(name: str, revision: str | None) -> str | None:
    """Ask once whether the repository is there: a download alone would retry for half a minute without a network.

    Returns:
        Why the hub cannot be reached, or None.

    Raises:
        RequestError: the hub says no.
    """
    import huggingface_hub
    from huggingface_hub import errors

    answer: list[object] = []

    def ask() -> None:
        try:
            answer.append(huggingface_hub.HfApi().model_info(name, revision=revision, timeout=HUB_SECONDS))
        except (errors.HTTPError, OSError, ValueError) as error:
            answer.append(error)

    # a thread, since looking up a host name knows no time limit
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(2 * HUB_SECONDS)
    outcome = answer[0] if answer else TimeoutError()
    if not isinstance(outcome, Exception):
        return None
    if isinstance(outcome, errors.GatedRepoError):
        raise RequestError(Problem(f"access to '{name}' is restricted", key=KEY, expected="a token with access"))
    if isinstance(outcome, errors.RevisionNotFoundError):
        raise RequestError(Problem(f"'{name}' has no revision '{revision}'", key="recipe.model.revision"))
    if isinstance(outcome, errors.RepositoryNotFoundError):
        message = f"'{name}' is neither a folder nor a model on the hub that this token may read"
        raise RequestError(Problem(message, key=KEY))
    if isinstance(outcome, errors.HfHubHTTPError) and outcome.response.status_code < 500:
        message = f"the hub refused to show '{name}' (HTTP {outcome.response.status_code})"
        raise RequestError(Problem(message, key=KEY))
    return type(outcome).__name__
