"""One row: a parallel instruction."""

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
