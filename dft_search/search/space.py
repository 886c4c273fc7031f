"""What a study may change in its recipe: parameters as data, and how a draw becomes values of the recipe.

Optuna models parameters jointly only while their bounds never move, so a parameter that lies ``above`` another one is
drawn from its full static range and then mapped onto what is left above the other. Everybody else sees the mapped one.
"""

import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from pydantic import Field, model_validator

from dft_search.config import Document, Options, Problem, RequestError, build, nearest

Value = int | float | str | bool | None | list[Any] | dict[str, Any]
RELATIVE = " (relative)"  # ends Optuna's name of a parameter whose real value depends on another one


class Entry(Options):
    """One parameter of the space: exactly one of ``int``, ``float``, ``choice`` and ``fixed``."""

    integer: list[int | str] | None = Field(None, alias="int")
    real: list[float] | None = Field(None, alias="float")
    choice: list[Value] | None = None
    fixed: Value = None
    log: bool = False
    step: float | None = Field(None, gt=0)
    above: str | None = None
    when: dict[str, Value | list[Value]] = {}

    @model_validator(mode="after")
    def _kind(self) -> Self:
        kinds = self.model_fields_set & {"integer", "real", "choice", "fixed"}
        if len(kinds) != 1:
            raise ValueError("needs exactly one of int, float, choice and fixed")
        bounds = self.integer if self.integer is not None else self.real
        if bounds is not None and len(bounds) != 2:
            raise ValueError(f"needs two bounds, [low, high], not {len(bounds)}")
        if self.choice is not None and not self.choice:
            raise ValueError("the list of choices is empty")
        if self.choice is not None and len(set(map(repr, self.choice))) < len(self.choice):
            raise ValueError("a choice stands twice")
        if self.above is not None and self.integer is None:
            raise ValueError("above needs an int parameter")
        if self.log and bounds is None:
            raise ValueError("log needs an int or float parameter")
        if self.step is not None and (bounds is None or self.log):
            raise ValueError("step needs an int or float parameter without log")
        return self


class Drawer(Protocol):
    """The part of an Optuna trial that a space needs."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...
    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float: ...
    def suggest_categorical(self, name: str, choices: list[Any]) -> Any: ...


@dataclass(frozen=True)
class Parameter:
    """An entry whose percents are resolved for a model of known depth."""

    key: str
    kind: str
    low: float = 0
    high: float = 0
    choices: tuple[Value, ...] = ()
    log: bool = False
    step: float | None = None
    above: str | None = None
    when: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)

    @property
    def optuna_name(self) -> str:
        return self.key + RELATIVE if self.above else self.key

    def takes(self, value: Value) -> bool:
        """Whether a value is one of its choices, or within its bounds."""
        if self.kind in ("choice", "fixed"):
            return value in self.choices
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high

    def nearest(self, wanted: float, point: Mapping[str, Value]) -> int | float:
        """The value of a number's range, above what it lies above in ``point``, that is nearest to ``wanted``."""
        low, high = self.low, self.high
        floor = point.get(self.above) if self.above else None
        if isinstance(floor, int):
            low = max(low, floor + 1)
        value = min(max(wanted, low), high)
        if self.step:
            value = low + round((value - low) / self.step) * self.step
        return round(value) if self.kind == "int" else float(value)

    def values(self) -> list[Value]:
        """All values, for a grid. Raises RequestError when there are infinitely many."""
        if self.kind in ("choice", "fixed"):
            return list(self.choices)
        if self.kind == "int":
            return list(range(int(self.low), int(self.high) + 1, int(self.step or 1)))
        if self.step is None:
            raise RequestError(Problem("the grid sampler needs a step for every float", key=f"space.{self.key}"))
        count = math.floor((self.high - self.low) / self.step + 1e-9) + 1
        return [self.low + index * self.step for index in range(count)]


class Space:
    """The parameters of a study, in an order in which each one comes after those that it depends on."""

    def __init__(self, parameters: list[Parameter]):
        self.parameters = parameters
        self.by_key = {parameter.key: parameter for parameter in parameters}

    def draw(self, drawer: Drawer, fixed: Mapping[str, Value]) -> dict[str, Value]:
        """Draw one point.

        Args:
            drawer: an Optuna trial.
            fixed: values of the template recipe, for conditions on keys that are not in the space.

        Returns:
            real values by dotted key; parameters whose condition does not hold are absent.
        """
        point: dict[str, Value] = {}
        for parameter in self.parameters:
            if self.is_active(parameter, point, fixed):
                point[parameter.key] = self._draw_one(parameter, drawer, point)
        return point

    def _draw_one(self, parameter: Parameter, drawer: Drawer, point: Mapping[str, Value]) -> Value:
        name = parameter.optuna_name
        if parameter.kind == "fixed":
            return parameter.choices[0]
        if parameter.kind == "choice":
            labels = [_label(choice) for choice in parameter.choices]
            return parameter.choices[labels.index(drawer.suggest_categorical(name, labels))]
        if parameter.kind == "float":
            return drawer.suggest_float(name, parameter.low, parameter.high, step=parameter.step, log=parameter.log)
        drawn = drawer.suggest_int(
            name, int(parameter.low), int(parameter.high), step=int(parameter.step or 1), log=parameter.log
        )
        return self._real(parameter, drawn, point)

    def is_active(self, parameter: Parameter, point: Mapping[str, Value], fixed: Mapping[str, Value]) -> bool:
        """Whether all conditions of a parameter hold for what is drawn so far."""
        for key, allowed in parameter.when.items():
            present = key in point or (key not in self.by_key and key in fixed)
            if not present or point.get(key, fixed.get(key)) not in allowed:
                return False
        return True

    @staticmethod
    def _real(parameter: Parameter, drawn: int, point: Mapping[str, Value]) -> int:
        """Map ``drawn`` from [low, high] onto the part above the other parameter (onto itself when that is absent)."""
        floor = point.get(parameter.above) if parameter.above else None
        low, high = int(parameter.low), int(parameter.high)
        if not isinstance(floor, int) or floor < low:
            return drawn
        return floor + 1 + (drawn - low) * (high - floor) // (high - low + 1)

    def encode(self, point: Mapping[str, Value], fixed: Mapping[str, Value]) -> dict[str, Value]:
        """The draw that gives ``point``, by Optuna's names.

        Raises:
            RequestError: a key that is not in the space or does not apply, a value outside its range, or one missing.
        """
        drawn: dict[str, Value] = {}
        for key in point:
            if key not in self.by_key:
                raise RequestError(Problem("is not in the space", key=key, nearest=nearest(key, self.by_key)))
        for parameter in self.parameters:
            if not self.is_active(parameter, point, fixed):
                if parameter.key in point:
                    raise RequestError(Problem("does not apply: its 'when' does not hold", key=parameter.key))
                continue
            if parameter.kind == "fixed":
                continue
            if parameter.key not in point:
                raise RequestError(Problem("needs a value", key=parameter.key))
            drawn[parameter.optuna_name] = self._encode_one(parameter, point)
        return drawn

    def _encode_one(self, parameter: Parameter, point: Mapping[str, Value]) -> Value:
        value = point[parameter.key]
        if parameter.kind == "choice":
            if value not in parameter.choices:
                expected = "one of " + ", ".join(map(str, parameter.choices))
                raise RequestError(Problem(f"{value!r} is not a choice", key=parameter.key, expected=expected))
            return _label(value)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise RequestError(Problem(f"{value!r} is not a number", key=parameter.key))
        if parameter.kind == "float":
            if not parameter.low <= value <= parameter.high:
                raise RequestError(_outside(parameter, value))
            return float(value)
        for drawn in range(int(parameter.low), int(parameter.high) + 1, int(parameter.step or 1)):
            if self._real(parameter, drawn, point) == value:
                return drawn
        raise RequestError(_outside(parameter, value))

    def grid(self, fixed: Mapping[str, Value]) -> Iterator[dict[str, Value]]:
        """Every distinct point, as draws by Optuna's names. Raises RequestError for a float without step."""
        seen: set[str] = set()

        def extend(index: int, point: dict[str, Value], drawn: dict[str, Value]) -> Iterator[dict[str, Value]]:
            if index == len(self.parameters):
                if repr(point) not in seen:
                    seen.add(repr(point))
                    yield drawn
                return
            parameter = self.parameters[index]
            if not self.is_active(parameter, point, fixed):
                yield from extend(index + 1, point, drawn)
                return
            for value in parameter.values():
                real = self._real(parameter, value, point) if parameter.kind == "int" else value  # type: ignore[arg-type]
                told = drawn if parameter.kind == "fixed" else {**drawn, parameter.optuna_name: _label(value)}
                yield from extend(index + 1, {**point, parameter.key: real}, told)

        yield from extend(0, {}, {})

    def combinations(self, keys: Collection[str]) -> list[dict[str, Value]]:
        """What values some parameters may have together, each combination once; conditions on others count as met.

        Raises RequestError for a float without step.
        """
        found: list[dict[str, Value]] = [{}]
        for parameter in self.parameters:
            if parameter.key not in keys:
                continue
            among = {key: allowed for key, allowed in parameter.when.items() if key in keys}
            wider: list[dict[str, Value]] = []
            for point in found:
                met = all(point.get(key) in allowed for key, allowed in among.items())
                wider += [{**point, parameter.key: value} for value in parameter.values()] if met else [point]
            found = wider
        return [point for point in found if point]


def _label(value: Value) -> Value:
    """What stands for a choice in Optuna, which stores plain values alone: JSON for lists and mappings."""
    return json.dumps(value, sort_keys=True) if isinstance(value, list | dict) else value


def _outside(parameter: Parameter, value: float) -> Problem:
    above = f" and above {parameter.above}" if parameter.above else ""
    expected = f"{parameter.low:g} to {parameter.high:g}{above}"
    return Problem(f"{value} is outside its range", key=parameter.key, expected=expected)


def read_space(document: Document, num_layers: int, known: Collection[str]) -> Space:
    """The ``space`` section, with percents resolved as floor(p x L), at least 1.

    Args:
        document: the study file.
        num_layers: depth L of the model.
        known: all dotted keys that a recipe has.

    Raises:
        RequestError: with one Problem for every mistake: empty space, wrong entries, empty ranges, unknown keys in
            ``when`` and ``above``, cycles.
    """
    section = document.data.get("space")
    if not isinstance(section, dict) or not section:
        raise RequestError(document.problem("the space is empty: there is nothing to search", ("space",)))
    problems: list[Problem] = []
    parameters: dict[str, Parameter] = {}
    for key in section:
        try:
            parameters[key] = _parameter(key, build(Entry, document, ("space", key)), num_layers)
        except RequestError as error:
            problems.extend(error.problems)
        except ValueError as error:
            problems.append(document.problem(str(error), ("space", key)))
    if problems:
        raise RequestError(problems)
    for key, parameter in parameters.items():
        if key not in known:
            problems.append(document.problem("unknown key of the recipe", ("space", key), nearest=nearest(key, known)))
        for name in [*parameter.when, *([parameter.above] if parameter.above else [])]:
            if name == key:
                problems.append(document.problem(f"depends on itself ('{name}')", ("space", key)))
            elif name not in known:
                near = nearest(name, known)
                problems.append(document.problem(f"names the unknown key '{name}'", ("space", key), nearest=near))
    if problems:
        raise RequestError(problems)
    ordered = _ordered(parameters, document)
    for key, parameter in parameters.items():
        if parameter.above is not None and parameter.above not in parameters:
            message = f"lies above '{parameter.above}', which is not in the space"
            problems.append(document.problem(message, ("space", key), expected="a lower bound instead"))
        floor = parameters.get(parameter.above or "")
        if floor is not None and floor.kind == "int" and floor.high >= parameter.high:
            message = f"no value is left above {floor.key} = {floor.high:g}"
            problems.append(document.problem(message, ("space", key), expected="a higher upper bound"))
        if floor is not None and floor.kind != "int":
            problems.append(document.problem(f"lies above '{floor.key}', which is no int parameter", ("space", key)))
    if problems:
        raise RequestError(problems)
    return Space(ordered)


def _parameter(key: str, entry: Entry, num_layers: int) -> Parameter:
    when = {name: tuple(v) if isinstance(v, list) else (v,) for name, v in entry.when.items()}
    if entry.choice is not None:
        return Parameter(key, "choice", choices=tuple(entry.choice), when=when)
    if entry.integer is None and entry.real is None:
        return Parameter(key, "fixed", choices=(entry.fixed,), when=when)
    kind = "int" if entry.integer is not None else "float"
    low, high = (
        _bound(value, num_layers) for value in (entry.integer if entry.integer is not None else entry.real) or []
    )
    if low > high:
        raise ValueError(f"the range is empty: {low:g} to {high:g}")
    if entry.log and low <= 0:
        raise ValueError("log needs a lower bound above 0")
    if kind == "int" and entry.step is not None and entry.step != int(entry.step):
        raise ValueError("an int parameter needs a whole step")
    if kind == "int" and entry.above is not None and entry.step is not None:
        raise ValueError("above and step do not go together")
    return Parameter(key, kind, low, high, (), entry.log, entry.step, entry.above, when)


def _bound(value: int | float | str, num_layers: int) -> int | float:
    if not isinstance(value, str):
        return value
    if not value.endswith("%"):
        raise ValueError(f"'{value}' is not a bound (expected a number or a percentage of the depth)")
    try:
        share = float(value[:-1])
    except ValueError:
        raise ValueError(f"'{value}' is not a percentage") from None
    if not 0 <= share <= 100:
        raise ValueError(f"'{value}' is not between 0% and 100%")
    return max(1, math.floor(share * num_layers / 100))


def _ordered(parameters: dict[str, Parameter], document: Document) -> list[Parameter]:
    """Topological order by ``when`` and ``above``, stable in the order of the file. Raises RequestError on a cycle."""
    ordered: dict[str, Parameter] = {}
    waiting = dict(parameters)
    while waiting:
        ready = [
            key
            for key, parameter in waiting.items()
            if all(name not in waiting for name in [*parameter.when, *([parameter.above] if parameter.above else [])])
        ]
        if not ready:
            names = " -> ".join(waiting)
            key = next(iter(waiting))
            raise RequestError(document.problem(f"'above' and 'when' form a cycle: {names}", ("space", key)))
        ordered[ready[0]] = waiting.pop(ready[0])
    return list(ordered.values())
