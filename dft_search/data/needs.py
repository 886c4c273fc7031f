"""What a run reads of its rows: which languages, or plain text."""

from dataclasses import dataclass

BOTH = ("en", "tgt")


@dataclass(frozen=True)
class RowNeeds:
    """What must not be missing in a row.

    Attributes:
        sides: ``en``, ``tgt`` or both, in this order: instruction and output of these.
        text: rows are plain text; where a file has none, English prompt and answer stand for it.
        made: the rows to train on are made of these (``data/transfer.py``).
    """

    sides: tuple[str, ...]
    text: bool = False
    made: bool = False

    def __or__(self, other: "RowNeeds") -> "RowNeeds":
        """What fulfils both."""
        sides = tuple(side for side in BOTH if side in self.sides + other.sides)
        return RowNeeds(sides, self.text or other.text, self.made or other.made)

    def __str__(self) -> str:
        """In words."""
        if self.text:
            return "plain text"
        return " and ".join({"en": "English", "tgt": "the target language"}[side] for side in self.sides)


ENGLISH, TARGET, PARALLEL = RowNeeds(("en",)), RowNeeds(("tgt",)), RowNeeds(BOTH)
TEXT = RowNeeds(("en",), text=True)
MADE = RowNeeds(BOTH, made=True)
