"""From rows to token segments: prompts and answers tokenised apart, cut to length, with the place of the query."""

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, overload

from dft_search.config import Problem, RequestError
from dft_search.data.options import DataOptions
from dft_search.data.row import Row
from dft_search.data.rows import Rows
from dft_search.data.template import Prompt, render_prompt, render_query

if TYPE_CHECKING:  # a slow import, needed for the names of types alone
    from transformers import PreTrainedTokenizerBase

QueryText = Literal["query", "instruction", "prompt"]
CHUNK_ROWS = 1000  # rows that a fast tokenizer gets at once: enough to keep its threads busy, and little memory


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """Token ids of one row.

    Attributes:
        id: of the row.
        segments: by name: ``target_prompt``, ``target_answer``, ``english_prompt``, ``english_answer``,
            ``english_query`` for the sides that the row has, or ``text`` alone. Prompts and texts start with what the
            tokenizer puts first (BOS), the others end with EOS unless they were cut.
        spans: by name of a prompt, the positions in it of the tokens that touch the query (instruction and input).
    """

    id: str
    segments: dict[str, list[int]]
    spans: dict[str, list[int]]


@dataclass(frozen=True)
class Encoded(Sequence[EncodedRow]):
    """All rows of a run as tokens.

    Attributes:
        rows: the rows that fit.
        truncated: segment -> number of rows in which it was cut.
        dropped: reason -> number of rows that could not be used, such as ``target_prompt_too_long``.
        has_bos: whether token 0 of a prompt is one that the tokenizer adds.
        fingerprint: 16 hex digits over ids, tokens and spans, in order.
    """

    rows: list[EncodedRow]
    truncated: dict[str, int]
    dropped: dict[str, int]
    has_bos: bool
    fingerprint: str

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> EncodedRow: ...
    @overload
    def __getitem__(self, index: slice) -> list[EncodedRow]: ...
    def __getitem__(self, index: int | slice) -> EncodedRow | list[EncodedRow]:
        return self.rows[index]


def encode_rows(
    rows: Rows,
    tokenizer: "PreTrainedTokenizerBase",
    options: DataOptions,
    *,
    query_text: QueryText = "query",
    crossed: bool = False,
) -> Encoded:
    """Encode all rows; those whose prompt leaves no room for an answer are dropped and counted.

    A segment is cut where prompt and segment together exceed ``options.max_length``: target answer and English query
    after the target prompt, the English answer after the longer one of both prompts; so is the target answer where
    both prompts are followed by both (``crossed``).

    Args:
        rows: what ``read_rows`` gave.
        tokenizer: of the model.
        options: of the data.
        query_text: what ``english_query`` holds: instruction and input, the instruction alone, or the whole prompt.
        crossed: the target answer is read after the English prompt too.

    Raises:
        RequestError: the tokenizer has no EOS token, or no row fits.
    """
    special = _special_tokens(tokenizer)
    encoded: list[EncodedRow] = []
    truncated: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    for start in range(0, len(rows.rows), CHUNK_ROWS):
        for row in _tokenized(rows.rows[start : start + CHUNK_ROWS], tokenizer, special, query_text):
            reason = _misfit(row, options.max_length)
            if reason is not None:
                dropped[reason] += 1
                continue
            fitted, cut = _fitted(row, options.max_length, crossed)
            truncated.update(cut)
            encoded.append(fitted)
    if not encoded:
        counts = ", ".join(f"{reason} {count}" for reason, count in dropped.items())
        message = f"no row fits into {options.max_length} tokens; dropped: {counts}"
        raise RequestError(Problem(message, key="recipe.data.max_length"))
    return Encoded(encoded, dict(truncated), dict(dropped), bool(special.first), _fingerprint(encoded))


def encode_row(
    row: Row,
    tokenizer: "PreTrainedTokenizerBase",
    *,
    max_length: int,
    query_text: QueryText = "query",
    crossed: bool = False,
) -> EncodedRow:
    """Encode one row as ``encode_rows`` does.

    Raises:
        RequestError: the row does not fit, or the tokenizer has no EOS token.
    """
    encoded = next(_tokenized([row], tokenizer, _special_tokens(tokenizer), query_text))
    reason = _misfit(encoded, max_length)
    if reason is not None:
        raise RequestError(Problem(f"row '{row.id}' cannot be used with max_length {max_length}: {reason}"))
    return _fitted(encoded, max_length, crossed)[0]


def encode_prompt(instruction: str, given: str, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """The tokens of a prompt, as in the rows."""
    return [*_special_tokens(tokenizer).first, *_ids(tokenizer, [render_prompt(instruction, given).text])[0]]


def has_bos(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Whether the tokenizer puts a token of its own before a text."""
    return bool(_special_tokens(tokenizer).first)


@dataclass(frozen=True, slots=True)
class _Special:
    first: list[int]  # what the tokenizer puts before a text
    eos: int


def _special_tokens(tokenizer: "PreTrainedTokenizerBase") -> _Special:
    """Learn from one text what the tokenizer puts first. What it may put last is left out: answers follow a prompt."""
    eos = tokenizer.eos_token_id
    if not isinstance(eos, int):
        message = f"the tokenizer {tokenizer.name_or_path or ''} has no EOS token".replace("  ", " ")
        raise RequestError(Problem(message, key="recipe.model.path", expected="a tokenizer with eos_token"))
    probe = render_prompt("a", "").text
    bare = _ids(tokenizer, [probe])[0]
    full = tokenizer(probe, add_special_tokens=True, verbose=False)["input_ids"]
    start = next((k for k in range(len(full) - len(bare) + 1) if full[k : k + len(bare)] == bare), 0)
    return _Special(list(full[:start]), eos)


def _ids(tokenizer: "PreTrainedTokenizerBase", texts: list[str]) -> list[list[int]]:
    if not texts:
        return []
    return tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]


def _tokenized(
    rows: Sequence[Row], tokenizer: "PreTrainedTokenizerBase", special: _Special, query_text: QueryText
) -> Iterator[EncodedRow]:
    """All segments of each row, uncut."""
    prompts: list[Prompt] = []
    texts: list[str] = []
    for row in rows:
        if row.text is not None:
            texts.append(row.text)
            continue
        for side in _sides(row):
            instruction, given, output = _parts(row, side)
            prompts.append(render_prompt(instruction, given))
            texts.append(output)
            if side == "english":
                texts.append(_query(instruction, given, query_text))
    prompt_tokens = iter(_prompt_tokens(prompts, tokenizer))
    text_tokens = iter(_ids(tokenizer, texts))
    # one int object a token id instead of one a token: an eighth of the memory on long files
    shared: dict[int, int] = {}

    def tokens(ids: list[int]) -> list[int]:
        return [shared.setdefault(token, token) for token in ids]

    for row in rows:
        if row.text is not None:
            yield EncodedRow(row.id, {"text": tokens([*special.first, *next(text_tokens), special.eos])}, {})
            continue
        segments: dict[str, list[int]] = {}
        spans: dict[str, list[int]] = {}
        for side in _sides(row):
            ids, span = next(prompt_tokens)
            segments[f"{side}_prompt"] = tokens([*special.first, *ids])
            spans[f"{side}_prompt"] = [position + len(special.first) for position in span]
            segments[f"{side}_answer"] = tokens([*next(text_tokens), special.eos])
            if side == "english":
                segments["english_query"] = tokens([*next(text_tokens), special.eos])
        yield EncodedRow(row.id, segments, spans)


def _sides(row: Row) -> list[str]:
    return [side for side in ("target", "english") if any(_parts(row, side))]


def _parts(row: Row, side: str) -> tuple[str, str, str]:
    """Instruction, input and output of one side."""
    if side == "english":
        return row.en_instruction, row.en_input, row.en_output
    return row.tgt_instruction, row.tgt_input, row.tgt_output


def _query(instruction: str, given: str, query_text: QueryText) -> str:
    if query_text == "prompt":
        return render_prompt(instruction, given).text
    return instruction if query_text == "instruction" else render_query(instruction, given)


def _prompt_tokens(
    prompts: list[Prompt], tokenizer: "PreTrainedTokenizerBase"
) -> Iterator[tuple[list[int], list[int]]]:
    """Ids of each prompt, without special tokens, and the positions of its query."""
    if not prompts:
        return
    texts = [prompt.text for prompt in prompts]
    if not tokenizer.is_fast:
        for prompt, ids in zip(prompts, _ids(tokenizer, texts), strict=True):
            yield ids, _span_without_offsets(prompt, ids, tokenizer)
        return
    output: Any = tokenizer(
        texts, add_special_tokens=False, return_attention_mask=False, return_offsets_mapping=True, verbose=False
    )
    for prompt, ids, offsets in zip(prompts, output["input_ids"], output["offset_mapping"], strict=True):
        span = [k for k, (a, b) in enumerate(offsets) if any(a < end and start < b for start, end in prompt.query)]
        yield ids, span


def _span_without_offsets(prompt: Prompt, ids: list[int], tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Positions of the query for a tokenizer that tells no offsets.

    The tokens that the text before a part shares with the whole prompt from the left lie before that part, those that
    the text after it shares from the right lie after it; what is left touches the part.
    """
    positions: set[int] = set()
    for start, end in prompt.query:
        before, after = _ids(tokenizer, [prompt.text[:start], prompt.text[end:]])
        positions.update(range(_shared(before, ids), len(ids) - _shared(after[::-1], ids[::-1])))
    return sorted(positions)


def _shared(left: Sequence[int], right: Sequence[int]) -> int:
    """Length of the common beginning."""
    length = 0
    while length < min(len(left), len(right)) and left[length] == right[length]:
        length += 1
    return length


def _misfit(row: EncodedRow, max_length: int) -> str | None:
    """Why a row cannot be used, or None."""
    for name, span in row.spans.items():
        if len(row.segments[name]) >= max_length:
            return f"{name}_too_long"
        if not span:
            return f"{name}_without_query"
    return None


def _fitted(row: EncodedRow, max_length: int, crossed: bool) -> tuple[EncodedRow, list[str]]:
    """The row cut to length, and the names of the segments that were cut."""
    room = {name: max_length - before for name, before in _before(row, crossed).items()}
    cut = [name for name, left in room.items() if len(row.segments[name]) > left]
    if not cut:
        return row, cut
    return replace(row, segments=row.segments | {name: row.segments[name][: room[name]] for name in cut}), cut


def _before(row: EncodedRow, crossed: bool) -> dict[str, int]:
    """Tokens before each answer-like segment; an English answer may follow either prompt, a target one if crossed."""
    target, english = (len(row.segments.get(f"{side}_prompt", ())) for side in ("target", "english"))
    longer = max(target, english)
    before = {
        "target_answer": longer if crossed else target,
        "english_query": target,
        "english_answer": longer,
        "text": 0,
    }
    return {name: tokens for name, tokens in before.items() if name in row.segments}


def _fingerprint(rows: Sequence[EncodedRow]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(f"{row.id!r}".encode())
        for kind, lists in (("tokens", row.segments), ("span", row.spans)):
            for name, numbers in lists.items():
                digest.update(f"|{kind} {name} {len(numbers)}:".encode() + array("i", numbers).tobytes())
    return digest.hexdigest()[:16]
