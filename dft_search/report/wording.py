"""How the report says things: numbers in a metric's unit, what a recipe is in a few words, names of arms."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dft_search.objectives.registry import all_methods

ARM_LABELS = {
    "tft": "plain TFT",
    "sft": "plain SFT",
    "base": "the untuned base",
    "thinking_at_top": "thinking at the top layer",
    "shuffled_english": "shuffled English",
    "tft_english": "TFT with the same English rows",
    "tft_equal_flops": "plain TFT for as many FLOPs",
    "paper": "the paper's layers",
}

MISSING = "-"


@dataclass(frozen=True, slots=True)
class Scale:
    """How a metric is shown. Proportions are shown as points (x 100, one decimal), all else as it is."""

    points: bool

    @property
    def unit(self) -> str:
        """What follows a difference, with its leading space."""
        return " points" if self.points else " in the score"

    def number(self, value: float | None) -> str:
        """A score or a deviation."""
        if value is None or not math.isfinite(value):
            return MISSING
        return f"{100 * value:.1f}" if self.points else f"{value:.4g}"

    def signed(self, value: float | None) -> str:
        """A difference, always with its sign."""
        if value is None or not math.isfinite(value):
            return MISSING
        text = f"{100 * value:+.1f}" if self.points else f"{value:+.3g}"
        return text if float(text) else f"+{text[1:]}"  # never "-0.0"

    def gap(self, value: float) -> str:
        """The size of a difference, with its unit."""
        return f"{100 * value:.1f}{self.unit}" if self.points else f"{value:.3g}{self.unit}"

    def spread(self, mean: float | None, deviation: float | None) -> str:
        """A mean with what follows the plus-minus sign, when there is one. No digits that the deviation drowns."""
        if mean is None or deviation is None:
            return self.number(mean)
        if self.points or not deviation:
            return f"{self.number(mean)} ± {self.number(deviation)}"
        digits = max(0, 1 - math.floor(math.log10(deviation)))
        return f"{mean:.{digits}f} ± {deviation:.{digits}f}"

    def interval(self, mean: float, half: float) -> str:
        """From a half width below a mean to as much above it, with the digits of `spread`."""
        if self.points or not half:
            return f"{self.number(mean - half)} to {self.number(mean + half)}"
        digits = max(0, 1 - math.floor(math.log10(half)))
        return f"{mean - half:.{digits}f} to {mean + half:.{digits}f}"

    def brief(self, value: float) -> str:
        """A score where there is room for a few characters."""
        return self.number(value) if self.points else f"{value:.2g}"

    def tick(self, value: float) -> str:
        """A value on an axis, without digits it does not need."""
        return f"{100 * value:.6g}" if self.points else f"{value:.4g}"


def describe_recipe(recipe: Mapping[str, Any]) -> str:
    """A resolved recipe's objective in a few words (`describe_objective`)."""
    return describe_objective(recipe.get("objective") or {})


def describe_objective(objective: Mapping[str, Any]) -> str:
    """An objective in a few words: "plain TFT", "conversion logits at layer 1, thinking feature at layer 4".

    Args:
        objective: canonical, or with all defaults written out; what is absent is off.
    """
    name = str(objective.get("method", "unknown recipe"))
    method = all_methods().get(name)
    if method is None:
        return name
    on = {term: objective.get(term) or {"supervision": "none"} for term in method.reads}
    on = {term: told for term, told in on.items() if term in method.always or told.get("supervision") != "none"}
    english = english_answers(objective)
    if not on:
        plain = "" if method.makes_rows else "plain "
        return ", ".join([f"{plain}{method_label(method.reduces_to.get((), name))}", *english])
    own = [f"at layer {on[term]['layer']}" for term in method.always if "layer" in on[term]]
    terms = [describe_term(term, told) for term, told in on.items() if term not in method.always]
    if method.reduces_to:  # nothing but its terms
        return ", ".join([*terms, *english])
    return ", ".join([f"{method.label} {listed(own)}".strip(), *terms, *english])


def english_answers(objective: Mapping[str, Any]) -> list[str]:
    """What is to be said of generation in English, where that is not what the method is about."""
    languages = (objective.get("generation") or {}).get("languages", [])
    return [] if "english" not in languages else ["English answers too" if "target" in languages else "English answers"]


def describe_term(term: str, options: Mapping[str, Any]) -> str:
    """A term of several that a method may have."""
    kind = options.get("supervision")
    what = f"{term} {kind}" if kind in ("logits", "feature") else term
    return f"{what} at layer {options['layer']}" if "layer" in options else what


def method_label(name: str) -> str:
    """What a method is called; one that is not installed here by its own name."""
    method = all_methods().get(name)
    return name if method is None else method.label


def arm_label(name: str) -> str:
    """An arm's name as a reader sees it; names of later arms fall back to their own words."""
    return ARM_LABELS.get(name, name.replace("_", " "))


def plural(count: int, noun: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def listed(words: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def duration(seconds: float | None) -> str:
    """Seconds as a person reads them: `48 s`, `3 min 20 s`, `5 h 12 min`."""
    if seconds is None:
        return MISSING
    whole = int(round(seconds))
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def device_time(hours: float, device: str) -> str:
    """Hours of a device, minutes where there is not a whole one: `3.2 GPU hours`, `9 CPU core minutes`."""
    return f"{hours:.3g} {device} hours" if hours >= 1 else f"{60 * hours:.2g} {device} minutes"


def compact(count: float | None) -> str:
    """A count as a person reads it: `950`, `12.3 k`, `4.1 M`, `2.0 G`, up to `1.5 E` (exa)."""
    if count is None:
        return MISSING
    for size, letter in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(count) >= size:
            return f"{count / size:.1f} {letter}"
    return f"{count:.0f}"


def setting(value: Any) -> str:
    """A parameter's value: short numbers, `none` for what is absent."""
    if value is None:
        return "none"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def short_key(key: str) -> str:
    """A dotted key without its section, as a column head: `conversion.layer`, `learning_rate`."""
    parts = key.split(".")
    return parts[-1] if parts[0] == "training" else ".".join(parts[1:]) or key
