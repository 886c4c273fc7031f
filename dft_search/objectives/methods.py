"""What a method is: which rows it generates, and which sections of the objective add a term to that."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from dft_search.data.needs import ENGLISH, TARGET, TEXT, RowNeeds
from dft_search.objectives.section import TermOptions


@dataclass(frozen=True)
class Method:
    """A named set of terms: generation, and those of the sections that it reads.

    Attributes:
        label: what reports call it.
        description: what it trains on, in one line.
        generates: what the generation term predicts: answers in the target language or in English, or plain text.
        reads: the sections of the objective that may add a term to it, in the order of their terms.
        always: those of them that do, whatever their supervision says.
        sections: by name, options of sections that the method brings along (a plug-in's own).
        makes_rows: what it trains on is made of parallel rows (the ``transfer`` section of the data).
        reimplements: of a re-implementation which paper it follows, and what of it is our own reading; reports say so
            below their tables. Empty for all others.
        reduces_to: by the sections that are on, the name of the method that it then is, so that one loss has one name.
    """

    label: str
    description: str
    generates: Literal["target", "english", "text"] = "target"
    reads: tuple[str, ...] = ()
    always: tuple[str, ...] = ()
    sections: Mapping[str, type[TermOptions]] = field(default_factory=dict)
    makes_rows: bool = False
    reimplements: str = ""
    reduces_to: Mapping[tuple[str, ...], str] = field(default_factory=dict)

    @property
    def needs(self) -> RowNeeds:
        """What its generation term reads of a row."""
        return {"target": TARGET, "english": ENGLISH, "text": TEXT}[self.generates]


DFT = Method(
    "DFT",
    "answers in the target language, with the inner supervisions that are on",
    reads=("conversion", "thinking", "alignment", "retention"),
    reduces_to={
        (): "tft",
        ("retention",): "tft",
        ("alignment",): "mid_align",
        ("alignment", "retention"): "mid_align",
    },
)
TFT = Method("TFT", "answers in the target language", reads=("retention",))
SFT = Method("SFT", "answers in English", generates="english")
LM = Method("language modelling", "plain text", generates="text")
MID_ALIGN = Method(
    "mid-align",
    "answers in the target language, with queries of both languages aligned at a middle layer",
    reads=("alignment", "retention"),
    always=("alignment",),
    reimplements="Liu & Niehues 2025; rows and prompts are ours, and queries are read within them",
)
CLO = Method(
    "CLO",
    "answers in the target language, and a preference for answers in the language of the prompt",
    reads=("preference", "retention"),
    always=("preference",),
    reimplements="Lee et al. 2025, who published no code; beta, balance and reduction are defaults of ours",
)
SDRRL = Method(
    "SDRRL",
    "answers that a teacher wrote, in pairings of languages, code-switched questions, translations and completions",
    makes_rows=True,
    reimplements="Zhang et al. 2024; shares and rates of its rows and the tool that switches words are ours",
)
