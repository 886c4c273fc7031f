"""The studies that come with the package: top-level ``search_spaces/`` in a checkout, inside the package in a wheel."""

from importlib import resources
from pathlib import Path

from dft_search.config.problems import Problem, RequestError, nearest


def _folder() -> Path | None:
    """The folder of shipped studies, or None where the package came without them (sent along with a job)."""
    package = Path(str(resources.files("dft_search")))
    for folder in (package / "search_spaces", package.parent / "search_spaces"):
        if folder.is_dir():
            return folder
    return None


def shipped_studies() -> list[str]:
    """Names of the shipped studies, sorted."""
    folder = _folder()
    return sorted(path.stem for path in folder.glob("*.yaml")) if folder else []


def shipped_study(name: str) -> Path:
    """Path of a shipped study. Raises RequestError, with the nearest name, when there is none of that name."""
    folder, names = _folder(), shipped_studies()
    if folder is None or name not in names:
        expected = "one of " + ", ".join(names) if names else None
        raise RequestError(Problem(f"no shipped study '{name}'", expected=expected, nearest=nearest(name, names)))
    return folder / f"{name}.yaml"
