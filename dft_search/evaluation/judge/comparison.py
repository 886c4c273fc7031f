"""Two answers to one instruction, in the order in which they are shown, and what came of showing them."""

import hashlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from dft_search.evaluation.judge.prompts import Prompt

Kind = Literal["valid", "invalid", "failed"]
DRAW = 1.5


@dataclass(frozen=True)
class Comparison:
    """What the judge is shown.

    Attributes:
        id: of the prompt.
        instruction: with its input, if it has one.
        first, second: the answers as shown.
        swapped: whether ours is the first.
    """

    id: str
    instruction: str
    first: str
    second: str
    swapped: bool

    @property
    def key(self) -> str:
        """12 hex digits over all that is shown: the judge repeats them, and a kept judgement is found by them."""
        told = [self.id, self.instruction, self.first, self.second, self.swapped]
        return hashlib.sha256(json.dumps(told, ensure_ascii=False).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Verdict:
    """What came of one comparison.

    Attributes:
        kind: a judgement; answers that were none; or no answer at all.
        shown: preference between the answers as shown, from 1 (the first) to 2 (the second); None without a judgement,
            and where it is not known how they were shown.
        ours: the same as AlpacaEval counts it, from 1 (the opponent) to 2 (ours).
        reason: why there is no judgement.
        attempts: how often the judge was asked.
        troubles: what went wrong on the way, with how often.
    """

    kind: Kind
    shown: float | None = None
    ours: float | None = None
    reason: str | None = None
    attempts: int = 1
    troubles: Mapping[str, int] = field(default_factory=dict)


class Judge(Protocol):
    """Whoever compares."""

    @property
    def name(self) -> str:
        """As it is reported."""

    def judge(self, comparisons: Sequence[Comparison]) -> Iterator[tuple[Comparison, Verdict]]:
        """Judge them, in any order. An error ends it after all that was done has been given."""


class Lie(Exception):
    """An answer that is no judgement of what was shown."""


def compare(prompts: Sequence[Prompt], ours: Sequence[str], theirs: Sequence[str], seed: int) -> list[Comparison]:
    """A comparison for every prompt; ours is the first answer in every other one, which ones is drawn by the seed."""
    order = [index % 2 == 1 for index in range(len(prompts))]
    random.Random(seed).shuffle(order)
    return [
        Comparison(prompt.id, prompt.query, *((our, their) if swapped else (their, our)), swapped)
        for prompt, our, their, swapped in zip(prompts, ours, theirs, order, strict=True)
    ]


def checked(preference: object) -> float:
    """A preference from 1 to 2; 0 is AlpacaEval's other word for a draw. Raises Lie."""
    if isinstance(preference, bool) or not isinstance(preference, (int, float)):
        raise Lie("no preference")
    if preference == 0:
        return DRAW
    if not 1 <= preference <= 2:  # NaN, too
        raise Lie("out of range")
    return float(preference)


def judged(
    comparison: Comparison, shown: float, attempts: int = 1, troubles: Mapping[str, int] | None = None
) -> Verdict:
    """The verdict of a preference between the answers as shown."""
    ours = 3 - shown if comparison.swapped else shown
    return Verdict("valid", shown, ours, attempts=attempts, troubles=troubles or {})
