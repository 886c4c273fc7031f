"""Generation: the answer after its prompt, at the top (DFT eq 2, the TFT loss), and plain language modelling."""

from dft_search.data.encode import EncodedRow
from dft_search.objectives.features import Language
from dft_search.objectives.readings import after_prompt
from dft_search.objectives.terms import TokenRead, TokenTerm


def generation_term(language: Language, num_layers: int) -> TokenTerm:
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

    return TokenTerm("generation", 1.0, num_layers, read)


def text_term(num_layers: int) -> TokenTerm:
    """- log P(text): every token but the first is a label."""

    def read(row: EncodedRow, has_bos: bool) -> TokenRead:
        labels = row.segments["text"][1:]
        return TokenRead(("text",), range(len(labels)), labels)

    return TokenTerm("generation", 1.0, num_layers, read)
