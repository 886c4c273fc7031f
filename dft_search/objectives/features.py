"""Which states of a prompt a feature term pools (`span`, `skip_bos`), for either language."""

from typing import Literal

from dft_search.data.encode import EncodedRow
from dft_search.objectives.terms import Pooling, StateRead

Span = Literal["query", "prompt", "prompt_and_answer"]
Language = Literal["english", "target"]


def span_read(
    row: EncodedRow, language: Language, *, span: Span, skip_bos: bool, has_bos: bool, pooling: Pooling
) -> StateRead:
    """States to pool for one row.

    Args:
        row: the row.
        language: whose prompt (and answer).
        span: ``query`` is instruction and input without the template around them, ``prompt`` the whole prompt,
            ``prompt_and_answer`` also the answer with its eos.
        skip_bos: leave the BOS out: its state has a huge norm of its own and would dominate a mean.
        has_bos: whether token 0 of a prompt is a BOS.
        pooling: ``last`` needs the last state alone.
    """
    prompt, answer = f"{language}_prompt", f"{language}_answer"
    path: tuple[str, ...] = (prompt,)
    if span == "query":
        positions = list(row.spans[prompt])
    else:
        end = len(row.segments[prompt])
        if span == "prompt_and_answer":
            path, end = (prompt, answer), end + len(row.segments[answer])
        positions = list(range(1 if has_bos and skip_bos else 0, end))
    return StateRead(path, positions[-1:] if pooling == "last" else positions)
