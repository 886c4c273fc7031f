"""Generation: the answer after its prompt, at the top (DFT eq 2, the TFT loss), and plain language modelling."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from dft_search.config import Options
from dft_search.data.encode import EncodedRow
from dft_search.objectives.features import Language
from dft_search.objectives.readings import after_prompt
from dft_search.objectives.terms import TokenRead, TokenTerm

GENERATION, ENGLISH_GENERATION = "generation", "generation_english"


def _distinct(languages: list[Language]) -> list[Language]:
    if len(set(languages)) < len(languages):
        raise ValueError(f"{', '.join(languages)}: each language once")
    return sorted(languages, reverse=True)  # target first


class GenerationOptions(Options):
    """The ``objective.generation`` section, of methods that answer in the target language.

    Attributes:
        languages: whose answers are predicted after prompts of the same language: ``target``, ``english``, or both. The
            English part is a term of its own (``generation_english``), with its own mean.
        reduction: the mean over all tokens, or the mean over rows of each answer's sum (``sum``).

    Paper: CLO, NLL on the target language alone or on both
    Test: tests/objectives/test_preference.py::test_every_option
    Default: the target language, mean over tokens
    Open: the reduction (`reduction`)
    """

    languages: Annotated[list[Language], Field(min_length=1), AfterValidator(_distinct)] = ["target"]
    reduction: Literal["mean", "sum"] = "mean"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the terms."""
        return tuple({"target": GENERATION, "english": ENGLISH_GENERATION}[language] for language in self.languages)

    def used(self) -> dict[str, Any]:
        """What is not as it is by default."""
        return self.model_dump(exclude_defaults=True)


def generation_term(
    language: Language, num_layers: int, *, name: str = GENERATION, weight: float = 1.0, by_row: bool = False
) -> TokenTerm:
    """- log P(answer | prompt), both in ``language``, all layers.

    Paper: DFT eq 1 (SFT)
    Test: tests/objectives/test_compute.py::test_against_plain_forward_passes
    Default: mean over all tokens of the batch
    Paper: DFT eq 2 (TFT)
    Test: tests/objectives/test_compute.py::test_against_plain_forward_passes
    Default: mean over all tokens of the batch
    Open: the paper writes a sum over rows; a mean over tokens is what its base code computes
    """

    def read(row: EncodedRow, has_bos: bool) -> TokenRead:
        return after_prompt(row, f"{language}_prompt", f"{language}_answer")

    return TokenTerm(name, weight, num_layers, read, by_row=by_row)


def text_term(num_layers: int) -> TokenTerm:
    """- log P(text): every token but the first is a label."""

    def read(row: EncodedRow, has_bos: bool) -> TokenRead:
        labels = row.segments["text"][1:]
        return TokenRead(("text",), range(len(labels)), labels)

    return TokenTerm(GENERATION, 1.0, num_layers, read)
