"""A small SVG builder and the scales and ticks that the figures share."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure ready for the page: its title, the drawing, what to see in it, and its numbers as a table.

    `name` becomes its files' name, `source` is the key of the report that it shows, `controls` is HTML below it.
    """

    title: str
    drawing: str
    caption: str
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    name: str = ""
    source: str = ""
    controls: str = ""


@dataclass(frozen=True, slots=True)
class Axis:
    """Map from values to pixels, linear or logarithmic."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        low, high, here = (
            (math.log(v) for v in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        )
        return self.start + (self.stop - self.start) * ((here - low) / (high - low) if high > low else 0.5)

    def ticks(self, count: int) -> list[float]:
        """About `count` round values within the axis."""
        return log_ticks(self.low, self.high, count) if self.log else nice_ticks(self.low, self.high, count)


@dataclass(slots=True)
class Svg:
    """Collects elements. Text and attributes are escaped; looks come from CSS classes."""

    width: float
    height: float
    parts: list[str] = field(default_factory=list)

    def add(self, tag: str, content: str = "", title: str = "", **attributes: Any) -> None:
        """One element; `title` becomes its tooltip, a trailing underscore of a name is dropped (`class_`)."""
        shown = " ".join(f'{_name(key)}="{escape(_text(value))}"' for key, value in attributes.items())
        inner = (f"<title>{escape(title)}</title>" if title else "") + escape(content)
        self.parts.append(f"<{tag} {shown}>{inner}</{tag}>" if inner else f"<{tag} {shown}/>")

    def text(self, x: float, y: float, content: str, class_: str = "", anchor: str = "start") -> None:
        """A line of text with its baseline at y."""
        self.add("text", content, x=x, y=y, class_=f"t {class_}".strip(), text_anchor=anchor)

    def line(self, x1: float, y1: float, x2: float, y2: float, class_: str) -> None:
        """A straight line."""
        self.add("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)

    def polyline(self, points: Iterable[tuple[float, float]], class_: str, title: str = "", **attributes: Any) -> None:
        """A line through points."""
        path = " ".join(f"{_text(x)},{_text(y)}" for x, y in points)
        self.add("polyline", title=title, points=path, class_=class_, **attributes)

    def render(self, label: str, *, fixed: bool = False, wide: bool = False) -> str:
        """The `<svg>` with its alternative text. A `fixed` drawing keeps its size, others fit their box; a `wide` one
        scrolls where that is too narrow for it."""
        size = f'width="{_text(self.width)}" height="{_text(self.height)}"' if fixed else 'class="fit"'
        size = 'class="fit wide"' if wide else size
        return (
            f'<svg viewBox="0 0 {_text(self.width)} {_text(self.height)}" {size} role="img" '
            f'aria-label="{escape(label)}">{"".join(self.parts)}</svg>'
        )


def tick_anchor(axis: Axis, x: float) -> str:
    """How to align a tick's label so that it stays within the drawing."""
    if x > axis.stop - 14:
        return "end"
    return "start" if x < axis.start + 4 else "middle"


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten within [low, high], about `count` of them."""
    if high <= low:
        return [low]
    raw = (high - low) / max(1, count)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def log_ticks(low: float, high: float, count: int) -> list[float]:
    """Powers of ten within [low, high], with 2 and 5 times them where that still is about `count` of them."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [v for p in powers for f in factors if low * 0.999 <= (v := float(f"{f}e{p}")) <= high * 1.001]
        if len(found) <= count + 1:
            break
    return found if len(found) > 1 else [low, high]


def padded(values: Sequence[float], share: float = 0.08) -> tuple[float, float]:
    """Lowest and highest value with some room on both sides."""
    low, high = min(values), max(values)
    room = (high - low) * share or abs(high) * share or 1.0
    return low - room, high + room


def _name(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def _text(value: Any) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
