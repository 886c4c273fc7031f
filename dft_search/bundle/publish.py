"""All that ``export`` does: the bundle, its weights, and their place in MLflow's model registry."""

from dataclasses import dataclass
from pathlib import Path

from dft_search.bundle.choice import choose
from dft_search.bundle.write import Weights, export
from dft_search.config import Problem, RequestError
from dft_search.report.collect import collect


@dataclass(frozen=True)
class Published:
    """What was written.

    Attributes:
        bundle: its folder.
        registered: a line about the registered model, None when none was asked for.
    """

    bundle: Path
    registered: str | None = None


def publish(
    folder: Path,
    out: Path,
    trial: int | None = None,
    weights: Weights | None = None,
    model_name: str | None = None,
) -> Published:
    """Export a bundle and register its weights as ``model_name``, if that is given.

    MLflow is asked first: weights that cannot be registered are not put together. A second call does what is left.

    Raises:
        RequestError: as ``export`` and ``register``, or merged weights are to be registered, which no trial has.
        InfrastructureError: as ``export`` and ``register``.
    """
    if model_name is None:
        return Published(export(folder, out, trial, weights))
    if weights is not None and weights.merge is not None:
        message, expected = "merged weights are of no trial's run", "--register without --merge"
        raise RequestError(Problem(message, key="--register", expected=expected))
    from dft_search.bundle.register import check_model_name, open_registry, register

    check_model_name(model_name)
    number = choose(collect(folder), trial).number
    registry = open_registry(folder, number)
    bundle = export(folder, out, trial, weights or Weights())
    found = register(folder, bundle, model_name, registry)
    alias = f", models:/{found.name}@champion" if found.champion else ""
    return Published(bundle, f"Registered models:/{found.name}/{found.version}{alias}, weights at {found.source}")
