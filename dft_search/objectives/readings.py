"""How the English tokens of a logits term are read at a layer (`reading`): three answers to one unclear sentence.

DFT (arXiv 2503.01275) writes P(x_en | x_tgt; theta_1:i, W_out) and does not say which positions predict.

* teacher_forced: x_en follows the target prompt as a branch of its own; a conditional likelihood like that of eq 2.
* position_wise: no branch; English token n is predicted one position ahead of target token n.
* aligned: no branch; English token n is decoded from target token n.
"""

from collections.abc import Sequence
from typing import Literal

from dft_search.data.encode import EncodedRow
from dft_search.objectives.terms import Path, TokenRead

Reading = Literal["teacher_forced", "position_wise", "aligned"]


def after_prompt(row: EncodedRow, prompt: str, continuation: str) -> TokenRead:
    """The tokens of ``continuation``, each predicted from all before it; the first one from the prompt's last token."""
    labels = row.segments[continuation]
    first = len(row.segments[prompt]) - 1
    return TokenRead((prompt, continuation), range(first, first + len(labels)), labels)


def beside(path: Path, places: Sequence[int], labels: Sequence[int], reading: Reading) -> TokenRead:
    """Pair ``labels[n]`` with ``places[n]``, as far as both go.

    Args:
        path: the segments that hold the places.
        places: positions of target tokens on the path, ascending.
        labels: English tokens.
        reading: ``position_wise`` reads the state before a place, ``aligned`` the state at it.

    Paper: DFT eq 4 and 6, position by position
    Test: tests/objectives/test_batch.py::test_dropped_english_tokens_are_counted
    Default: off (`reading: teacher_forced`)
    Open: the paper's prose allows `position_wise` and `aligned`, its formulas are those of `teacher_forced`
    """
    back = 1 if reading == "position_wise" else 0
    pairs = [(place - back, label) for place, label in zip(places, labels, strict=False) if place >= back]
    return TokenRead(path, [place for place, _ in pairs], [label for _, label in pairs], len(labels) - len(pairs))
