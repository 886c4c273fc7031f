"""A package of somebody else: a method of its own with a term and options, as an installed distribution."""

import os
from pathlib import Path

MODULE = '''
"""A method that pulls the states of both languages together by their squared distance."""

from dataclasses import dataclass

from dft_search.objectives.features import span_read
from dft_search.objectives.layers import Layer
from dft_search.objectives.methods import Method
from dft_search.objectives.section import TermContext, TermOptions
from dft_search.objectives.terms import Side, StateTerm


@dataclass(frozen=True)
class Distance(StateTerm):
    scale: float

    def compare(self, english, target):
        return self.scale * (english - target).square().mean(-1)


class ToyOptions(TermOptions):
    layer: Layer = "50%"
    weight: float = 1.0
    scale: float = 0.5

    def term(self, context: TermContext) -> Distance:
        def side(language):
            def read(row, has_bos):
                return span_read(row, language, span="query", skip_bos=True, has_bos=has_bos, pooling="mean")

            return Side(int(self.layer), read)

        return Distance("toy", self.weight, side("english"), side("target"), "mean", self.scale)


TOY = Method("Toy pull", "both languages' states pulled together", reads=("toy",), always=("toy",),
             sections={"toy": ToyOptions})
'''


def write_package(
    folder: Path, *, name: str = "toy-methods", entries: str = "toy = toy_methods:TOY", module: str = MODULE
) -> Path:
    """Write the distribution ``name`` with one module as pip leaves it; returns ``folder``, which goes on the path."""
    package = name.replace("-", "_")
    about = folder / f"{package}-1.2.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (about / "entry_points.txt").write_text(f"[dft_search.methods]\n{entries}\n")
    (folder / f"{package}.py").write_text(module)
    return folder


def with_package(folder: Path) -> dict[str, str]:
    """The environment of a process in which the distribution is installed."""
    path = os.pathsep.join([str(folder), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path.rstrip(os.pathsep)}
