"""One row: a parallel instruction; and one that a study made."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One parallel instruction; a side that the file does not have is empty, ``text`` is set for ``lm`` alone."""

    id: str
    en_instruction: str = ""
    en_input: str = ""
    en_output: str = ""
    tgt_instruction: str = ""
    tgt_input: str = ""
    tgt_output: str = ""
    text: str | None = None


@dataclass(frozen=True, slots=True)
class MadeRow(Row):
    """A row that a study made of others. What is trained stands in the ``tgt`` fields, in whatever language it is.

    Attributes:
        kind: ``distil_en``, ``distil_tgt``, ``cross_tgt_en``, ``cross_en_tgt``, ``codeswitch``, ``translation`` or
            ``completion``.
        teacher: who wrote the answer: ``sft``, ``base`` or the path of a model; empty for the row's own answer.
        mt: where a translation comes from: ``aligned`` (the row's own other side), or the path of a file.
        seed: of the draws that made it.
    """

    kind: str = ""
    teacher: str = ""
    mt: str = ""
    seed: int = 0
