"""Replays the first steps of a bundle and compares them, and everything that could make them differ."""

import math
from pathlib import Path
from typing import Any

from dft_search.bundle import facts
from dft_search.bundle.read import FILE, Bundle, LossRecord, changed_sections, read_bundle
from dft_search.data.rows import read_rows
from dft_search.training.replay import replay
from dft_search.training.session import Session
from dft_search.training.workspace import Workspace

Check = dict[str, Any]
SMALLEST = 1e-8  # losses below are zero
NOISE = 0.01  # of the tolerance of a step's whole loss: what a term may be off that is zero but for rounding


def verify(bundle: Path, steps: int | None = None) -> dict[str, Any]:
    """Check a bundle on this machine. Collective where there is a process group, of whatever size.

    Args:
        bundle: its folder.
        steps: how many of the noted steps to replay; all by default.

    Returns:
        ``{ok, bundle, checks: [{name, ok, expected, found, message}]}``; ``message`` is a line that says what is wrong,
        None where nothing is. What the bundle does not know is not checked.

    Raises:
        RequestError: no bundle, a broken one, or its model or rows are not to be found.
    """
    found = read_bundle(bundle)
    about, recipe = found.bundle, found.recipe
    expected_steps = about.steps if steps is None else about.steps[:steps]
    rows = read_rows(recipe.data.train, needs=recipe.needs)
    checks = [
        *_sections(bundle),
        _check("recipe_hash", about.recipe_hash, recipe.hash, "the recipe is not the one that was exported"),
        *_versions(found),
        _known("model_fingerprint", about.model.fingerprint, facts.model_fingerprint(recipe.model), "weights"),
        _known("data_fingerprint", about.data.fingerprint, rows.fingerprint, "training rows"),
        *_losses(found, expected_steps),
    ]
    kept = [check for check in checks if check is not None]
    return {"ok": all(check["ok"] for check in kept), "bundle": str(bundle), "checks": kept}


def _check(name: str, expected: Any, found: Any, wrong: str, *, ok: bool | None = None) -> Check:
    ok = expected == found if ok is None else ok
    return {"name": name, "ok": ok, "expected": expected, "found": found, "message": None if ok else wrong}


def _sections(bundle: Path) -> list[Check]:
    """One check that all sections are as written, or one for each that is not."""
    unchanged = "as it was written"
    return [
        _check(name, unchanged, "edited", f"{name} in {FILE} was edited since the bundle was written")
        for name in changed_sections(bundle)
    ] or [_check("bundle", unchanged, unchanged, "")]


def _known(name: str, expected: str | None, found: str | None, what: str) -> Check | None:
    wrong = f"the {what} here are not those of the study ({expected}, here {found})"
    return None if expected is None else _check(name, expected, found, wrong)


def _versions(bundle: Bundle) -> list[Check]:
    installed = facts.versions(bundle.recipe.method)
    return [
        _check(
            f"version {name}",
            expected,
            installed.get(name),
            f"{name} {installed.get(name) or 'is not installed'} here, {expected} in the study",
            ok=facts.same_version(expected, installed.get(name), name=name),
        )
        for name, expected in bundle.bundle.versions.items()
    ]


def _losses(bundle: Bundle, steps: list[LossRecord]) -> list[Check]:
    about = bundle.bundle
    records = replay(bundle.recipe, bundle.seed, len(steps), Session.from_environment(), Workspace())
    replayed = {
        record.step: {
            key.removeprefix("loss/"): value for key, value in record.metrics.items() if key.startswith("loss/")
        }
        for record in records
    }
    return [_loss_check(step, replayed.get(step.step, {}), about.tolerance) for step in steps]


def _loss_check(step: LossRecord, found: dict[str, float], tolerance: float) -> Check:
    small = max(SMALLEST, NOISE * tolerance * abs(step.losses.get("total", 0.0)))
    apart = [
        term
        for term, value in step.losses.items()
        if term not in found or not math.isclose(value, found[term], rel_tol=tolerance, abs_tol=small)
    ]
    told = ", ".join(f"{term} {found.get(term, math.nan):.7g} instead of {step.losses[term]:.7g}" for term in apart)
    wrong = f"step {step.step}: {told or 'other terms'} (more than {tolerance:g} apart)"
    ok = not apart and step.losses.keys() == found.keys()
    return _check(f"losses of step {step.step}", step.losses, found, wrong, ok=ok)
