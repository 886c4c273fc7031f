"""Rows as a model gets them: every token of every segment, with its label, for ``data show``."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from dft_search.data.encode import Encoded, EncodedRow
from dft_search.data.row import MadeRow
from dft_search.data.rows import Rows

if TYPE_CHECKING:  # a slow import, needed for the names of types alone
    from transformers import PreTrainedTokenizerBase

STYLES = {"read": ("cyan", "bright_cyan"), "label": ("green", "bright_green")}  # neighbors take turns
SPECIAL, SPAN = "bold magenta", "underline"
_VISIBLE = {"\n": "↵", "\r": "␍", "\t": "⇥", " ": "·"}
_HALF = "\N{REPLACEMENT CHARACTER}"  # what a tokenizer gives for bytes that are no whole character


def role(segment: str) -> str:
    """``read`` for a prompt, which is context alone; ``label`` for a segment that a loss may predict."""
    return "read" if segment.endswith("_prompt") else "label"


def examples(rows: Rows, encoded: Encoded, count: int) -> list[EncodedRow]:
    """The first ``count`` rows; of rows that were made, the first ones of every kind."""
    kinds = {row.id: row.kind for row in rows.rows if isinstance(row, MadeRow)}
    seen: Counter[str] = Counter()
    chosen = []
    for row in encoded:
        kind = kinds.get(row.id, "")
        if seen[kind] < count:
            seen[kind] += 1
            chosen.append(row)
    return chosen


def render(rows: Sequence[EncodedRow], tokenizer: "PreTrainedTokenizerBase", console: Console) -> None:
    """Print every segment of ``rows``: tokens apart by ``|``, the query underlined, special tokens by name."""
    for row in rows:
        console.rule(Text(f"row {_visible(row.id)}"), align="left", style="dim")
        for name, tokens in row.segments.items():
            span = row.spans.get(name, [])
            counts = f"{len(tokens)} tokens" + (f", {len(span)} of the query" if span else "")
            console.print(Text.assemble((name, "bold"), f"  {role(name)}  ", (counts, "dim")))
            console.print(_line(name, tokens, span, tokenizer), soft_wrap=False)
    legend = Text.assemble(
        ("read", STYLES["read"][1]), " context  ", ("label", STYLES["label"][1]), " may be predicted  ",
        ("query", SPAN), " pooled for feature terms  ", ("special", SPECIAL), " token  ",
        "| between tokens, ~n after a character of n tokens",
    )  # fmt: skip
    console.print(legend, style="dim")


def render_counts(rows: Rows, encoded: Encoded, console: Console) -> None:
    """Print how many rows there are, and how many were dropped or cut, and why."""
    console.print(f"{len(encoded)} rows, fingerprint {rows.fingerprint}, tokens {encoded.fingerprint}")
    for kind, count in rows.made.items():
        console.print(f"  made: {count} {kind}")
    for what, counts in (("dropped", rows.dropped), ("dropped", encoded.dropped), ("cut", encoded.truncated)):
        for reason, count in sorted(counts.items()):
            console.print(f"  {what}: {count} rows, {reason}")


def describe(rows: Sequence[EncodedRow], tokenizer: "PreTrainedTokenizerBase") -> list[dict[str, Any]]:
    """The same as plain data: for each segment its role, token ids, texts of the pieces and positions of the query."""
    return [{"id": row.id, "segments": _describe(row, tokenizer)} for row in rows]


def _describe(row: EncodedRow, tokenizer: "PreTrainedTokenizerBase") -> Mapping[str, Any]:
    return {
        name: {
            "role": role(name),
            "tokens": tokens,
            "pieces": [{"text": text, "tokens": end - start} for text, start, end in pieces(tokens, tokenizer)],
            "query": row.spans.get(name, []),
        }
        for name, tokens in row.segments.items()
    }


def pieces(tokens: Sequence[int], tokenizer: "PreTrainedTokenizerBase") -> list[tuple[str, int, int]]:
    """Shortest runs of tokens ``[start, end)`` that are whole characters, with their text.

    A character of several bytes may be several tokens. A run is decoded behind the one before it, since many tokenizers
    drop a space at the start of a text.
    """
    found: list[tuple[str, int, int]] = []
    before: list[int] = []
    start = 0
    for end in range(1, len(tokens) + 1):
        run = list(tokens[start:end])
        text = _decode(before + run, tokenizer).removeprefix(_decode(before, tokenizer))
        if text.endswith(_HALF) and end < len(tokens) and end - start < 4:
            continue
        found.append((text, start, end))
        before, start = run, end
    return found


def _decode(tokens: list[int], tokenizer: "PreTrainedTokenizerBase") -> str:
    return tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False) if tokens else ""


def _line(name: str, tokens: Sequence[int], span: Sequence[int], tokenizer: "PreTrainedTokenizerBase") -> Text:
    line = Text()
    special, query = set(tokenizer.all_special_ids), set(span)
    for number, (text, start, end) in enumerate(pieces(tokens, tokenizer)):
        if number:
            line.append("|", "dim")
        style = SPECIAL if tokens[start] in special else STYLES[role(name)][number % 2]
        if not query.isdisjoint(range(start, end)):
            style += f" {SPAN}"
        line.append(_visible(text) + (f"~{end - start}" if end - start > 1 else ""), style)
    return line


def _visible(text: str) -> str:
    """White space by a sign, control characters by their code: a data file must not steer the terminal."""
    shown = (_VISIBLE.get(c) or (c if c.isprintable() else c.encode("unicode_escape").decode()) for c in text)
    return "".join(shown)
