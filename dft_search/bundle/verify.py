"""Replays the first steps of a bundle and compares them, and everything that could make them differ."""

import math
from pathlib import Path
from typing import Any

from dft_search.bundle import facts
from dft_search.bundle.read import Bundle, LossRecord, is_unchanged, read_bundle
from dft_search.data.rows import read_rows
from dft_search.training.replay import replay
from dft_search.training.session import Session
from dft_search.training.workspace import Workspace

Check = dict[str, Any]
SMALLEST = 1e-8  # losses below are zero


def verify(bundle: Path, steps: int | None = None) -> dict[str, Any]:
    """Check a bundle on this machine, in this process, on one rank.

    Args:
        bundle: its folder.
        steps: how many of the noted steps to replay; all by default.

    Returns:
        ``{ok, bundle, checks: [{name, ok, expected, found}]}``. What the bundle does not know is not checked.

    Raises:
        RequestError: no bundle, a broken one, or its model or rows are not to be found.
    """
    found = read_bundle(bundle)
    about, recipe = found.bundle, found.recipe
    expected_steps = about.steps if steps is None else about.steps[:steps]
    unchanged = "as it was written"
    rows = read_rows(recipe.data.train, method=recipe.method)
    checks = [
        _check("bundle", unchanged, unchanged if is_unchanged(bundle) else "edited since it was written"),
        _check("recipe_hash", about.recipe_hash, recipe.hash),
        *_versions(found),
        _known("model_fingerprint", about.model.fingerprint, facts.model_fingerprint(recipe.model)),
        _known("data_fingerprint", about.data.fingerprint, rows.fingerprint),
        *_losses(found, expected_steps),
    ]
    kept = [check for check in checks if check is not None]
    return {"ok": all(check["ok"] for check in kept), "bundle": str(bundle), "checks": kept}


def _check(name: str, expected: Any, found: Any) -> Check:
    return {"name": name, "ok": expected == found, "expected": expected, "found": found}


def _known(name: str, expected: str | None, found: str | None) -> Check | None:
    return None if expected is None else _check(name, expected, found)


def _versions(bundle: Bundle) -> list[Check]:
    installed = facts.versions()
    return [
        {
            "name": f"version {name}",
            "ok": facts.same_version(expected, installed.get(name), name=name),
            "expected": expected,
            "found": installed.get(name),
        }
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
    ok = step.losses.keys() == found.keys() and all(
        math.isclose(value, found[term], rel_tol=tolerance, abs_tol=SMALLEST) for term, value in step.losses.items()
    )
    return {"name": f"losses of step {step.step}", "ok": ok, "expected": step.losses, "found": found}
