"""``data join``: a file of English rows and one of target rows made one file of parallel rows, with a report."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from dft_search.config import Problem, RequestError, expand_path, nearest
from dft_search.data.alignment import PROBABLE, align
from dft_search.data.join import by_id, by_index
from dft_search.data.output import check_outputs, write_rows
from dft_search.data.pairing import LEAST, TOLD, Candidate, Match, Matching, match_texts
from dft_search.data.reader import Reader, open_side

By = Literal["index", "id", "fuzzy"]
PARTS = ("instruction", "input", "output")
MATCHED = "match_"  # our names of the columns of English text in the target file


@dataclass(frozen=True)
class Side:
    """The rows of one file: ids, whether the file has them, and texts under our names."""

    ids: list[str]
    has_id: list[bool]
    texts: list[dict[str, str]]


def join_files(
    english: str,
    target: str,
    out: Path,
    *,
    by: By,
    fields: Mapping[str, str],
    match: Sequence[str] = (),
    least: float | None = None,
    replace: bool = False,
) -> dict[str, Any]:
    """Join two files and write the rows that belong together.

    Args:
        english, target: one language each, in the Alpaca layout (``instruction``, ``input``, ``output``, maybe ``id``),
            or parallel rows of which one side is taken.
        out: the file to write, JSON lines. Rows of a fuzzy join also say by what they were joined, and how surely.
        by: ``index``, ``id``, or ``fuzzy``: by the English text of the columns ``match``, else by numbers, names, order
            and length.
        fields: our name of a field -> column.
        match: columns of the target file with the English instruction, or instruction and input, or these and output.
        least: similarity (with ``match``) or probability (without) from which rows are joined, None for the usual one.
        replace: whether ``out`` may exist.

    Returns:
        The report: {english, target, joined, by: {how: rows}, unclear: [{row, id, reason, near}],
        english_left: [{row, id}], target_left: [{row, id, near}], out}; a join by id has no rows in it.

    Raises:
        RequestError: files, columns or values are wrong, ``out`` exists, or nothing could be joined.
    """
    paths = [expand_path(english), expand_path(target)]
    if match and by != "fuzzy":
        raise RequestError(Problem(f"a join by {by} compares no texts", key="--match", expected="--by fuzzy"))
    if len(match) > len(PARTS):
        raise RequestError(Problem(f"{len(match)} columns", key="--match", expected=f"at most {len(PARTS)}"))
    check_outputs([out], paths, key="--out", replace=replace)
    more = {f"{MATCHED}{number}": column for number, column in enumerate(match)}
    left = open_side(paths[0], "en", key="ENGLISH", fields=fields)
    right = open_side(paths[1], "tgt", key="TARGET", fields=fields, more=more)
    if by == "fuzzy":
        records, report = _fuzzy(_side(left), _side(right), match, least)
    else:
        records, report = _exact(left, right, by)
    if not records:
        raise RequestError(Problem(f"no row of {paths[1]} belongs to one of {paths[0]}", key="--by"))
    write_rows(out, records)
    return report | {"out": str(out)}


def _side(reader: Reader) -> Side:
    rows = list(reader)
    return Side([row[0] for row in rows], [row[1] for row in rows], [row[3] for row in rows])


def _exact(english: Reader, target: Reader, by: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    join = by_id if by == "id" else by_index
    pairs = list(join(english, target, "--by"))
    records = [{"id": row, **left, **right} for row, left, right in pairs if left is not None and right is not None]
    missing = {
        "english_left": [identity for identity, _, right in pairs if right is None],
        "target_left": [identity for identity, left, _ in pairs if left is None],
    }
    near = {"english_left": missing["target_left"], "target_left": missing["english_left"]}
    left_over = {
        name: [{"id": identity, "near": _nearest_id(identity, near[name])} for identity in identities]
        for name, identities in missing.items()
    }
    report: dict[str, Any] = {
        "english": len(records) + len(missing["english_left"]),
        "target": len(records) + len(missing["target_left"]),
        "joined": len(records),
        "by": {by: len(records)},
        "unclear": [],
    }
    return records, report | left_over


def _nearest_id(identity: str, others: Sequence[str]) -> list[dict[str, Any]]:
    near = nearest(identity, others)
    return [] if near is None else [{"id": near}]


def _fuzzy(
    english: Side, target: Side, match: Sequence[str], least: float | None
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    if match:
        parts = [f"en_{part}" for part in PARTS[: len(match)]]
        left = ["\n".join(texts[name] for name in parts) for texts in english.texts]
        names = [f"{MATCHED}{number}" for number in range(len(match))]
        right = ["\n".join(texts[name] for name in names) for texts in target.texts]
        found = match_texts(left, right, least=least or LEAST)
    else:
        found = align(_texts(english, "en"), _texts(target, "tgt"), least=least or PROBABLE)
    matches = sorted(found.matches, key=lambda pair: pair.english)
    records = [_record(english, target, pair) for pair in matches]
    return records, _report(english, target, found, matches)


def _texts(side: Side, name: str) -> list[tuple[str, str]]:
    return [(f"{t[f'{name}_instruction']}\n{t[f'{name}_input']}", t[f"{name}_output"]) for t in side.texts]


def _record(english: Side, target: Side, pair: Match) -> dict[str, Any]:
    """A joined row under the English id, or the target one where only that file has ids."""
    only_target = target.has_id[pair.target] and not english.has_id[pair.english]
    identity = target.ids[pair.target] if only_target else english.ids[pair.english]
    texts = {name: text for name, text in target.texts[pair.target].items() if not name.startswith(MATCHED)}
    return {"id": identity, **english.texts[pair.english], **texts, "joined_by": pair.by, "join_score": pair.score}


def _report(english: Side, target: Side, found: Matching, matches: Sequence[Match]) -> dict[str, Any]:
    def candidates(near: Sequence[Candidate]) -> list[dict[str, Any]]:
        return [{"row": row, "id": english.ids[row], "score": score} for row, score in near[:TOLD]]

    taken = {pair.english for pair in matches}
    given = {pair.target for pair in matches} | found.unclear.keys()
    unclear = [
        {"row": row, "id": target.ids[row], "reason": reason, "near": candidates(near)}
        for row, (reason, near) in sorted(found.unclear.items())
    ]
    left = [
        {"row": row, "id": identity, "near": candidates(found.near.get(row, []))}
        for row, identity in enumerate(target.ids)
        if row not in given
    ]
    return {
        "english": len(english.ids),
        "target": len(target.ids),
        "joined": len(matches),
        "by": dict(Counter(pair.by for pair in matches)),
        "lowest_score": min((pair.score for pair in matches), default=None),
        "unclear": unclear,
        "english_left": [{"row": row, "id": name} for row, name in enumerate(english.ids) if row not in taken],
        "target_left": left,
    }


def render_join(report: Mapping[str, Any], examples: int, console: Console) -> None:
    """Print the report: how many rows were joined and by what, and the first of those that were not."""
    how = ", ".join(f"{count} by {name}" for name, count in report["by"].items())
    console.print(
        f"{report['joined']} rows joined of {report['english']} English and {report['target']} target ({how})"
    )
    for name, what in (("unclear", "unclear, not joined"), ("target_left", "target rows left over"),
                       ("english_left", "English rows left over")):  # fmt: skip
        rows = report[name]
        if rows:
            console.print(f"{len(rows)} {what}")
            grid = Grid(box=None, show_header=False, padding=(0, 1))
            for row in rows[:examples]:
                grid.add_row(Text(row["id"]), Text(row.get("reason", "")), Text(", ".join(_near(row)), style="dim"))
            console.print(grid)
            if len(rows) > examples > 0:
                console.print(Text(f"  and {len(rows) - examples} more (--rows {len(rows)}, or --json)", style="dim"))
    console.print(f"Written to {report['out']}", soft_wrap=True)


def _near(row: Mapping[str, Any]) -> Iterator[str]:
    for candidate in row.get("near", []):
        score = candidate.get("score")
        yield f"near {candidate['id']}" + (f" ({score:.2f})" if score else "")
