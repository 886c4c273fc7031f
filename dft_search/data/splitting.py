"""``data split``: rows in train, dev and test so that nothing of one part is known from another.

Clusters of rows (``data/clusters.py``) go to a part as a whole, in an order that hashes of their ids give: the same
rows are split alike in whatever order they stand, and new rows move few of the others. Files of several languages are
split as one, so that an id is in the same part in all of them.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from dft_search.config import Problem, RequestError, expand_path, nearest
from dft_search.data.clusters import Clusters, cluster_rows, join_leaks
from dft_search.data.files import Table, open_file
from dft_search.data.output import check_outputs, write_rows
from dft_search.data.reader import Reader
from dft_search.data.row import Row

HELD = ("test", "dev")  # filled in this order
PARTS = ("train", "dev", "test")
LARGEST = 0.1  # of a part: a larger cluster stays in train, since its rows say little more than one of them
SMALL = 4  # ids of a cluster that any part may have


@dataclass(frozen=True)
class File:
    """One file: its records as they are, and their texts."""

    path: Path
    records: list[dict[str, Any]]
    rows: list[Row]


def split_files(
    files: Sequence[str],
    out: Path,
    *,
    dev: float,
    test: float,
    fields: Mapping[str, str],
    group: str | None = None,
    seed: int = 0,
    replace: bool = False,
) -> dict[str, Any]:
    """Split files and write OUT/STEM.PART.jsonl for each of them.

    Args:
        files: parallel rows, or rows of one language.
        out: folder.
        dev, test: ids in each part, as a number, or below 1 as a share of all ids.
        fields: our name of a field -> column.
        group: column whose equal values stay together, such as a document.
        seed: another one gives another split.
        replace: whether the files to write may exist.

    Returns:
        The report: {ids, clusters, largest, together: {reason: joins}, parts: {part: {ids, rows: {file: n}}}, out}.

    Raises:
        RequestError: files, columns or sizes are wrong, or files to write exist.
    """
    paths = [Path(expand_path(name)) for name in files]
    targets = {(path, part): out / f"{path.stem}.{part}.jsonl" for path in paths for part in PARTS}
    if len({path.stem for path in paths}) < len(paths):
        raise RequestError(Problem("two files have the same name", key="FILES", expected="a name of its own for each"))
    check_outputs(list(targets.values()), [str(path) for path in paths], key="--out", replace=replace)
    read = [_read(path, fields, group) for path in paths]
    rows = [row for file in read for row in file.rows]
    groups = [record.get(group) if group else None for file in read for record in file.records]
    total = len({row.id for row in rows})
    sizes = {"dev": _size(dev, total, "--dev"), "test": _size(test, total, "--test")}
    if sum(sizes.values()) >= total:
        message = f"{sizes['dev']} and {sizes['test']} of {total} ids leave none for train"
        raise RequestError(Problem(message, key="--dev"))
    clusters, together = cluster_rows(rows, [None if value is None else str(value) for value in groups])
    parts = _assign(clusters, rows, sizes, seed)
    while leaks := join_leaks(clusters, rows, parts):  # each round leaves fewer clusters
        together["leak"] = together.get("leak", 0) + leaks
        parts = _assign(clusters, rows, sizes, seed)
    counts = {part: len({rows[number].id for number, home in parts.items() if home == part}) for part in PARTS}
    for part in HELD:
        if sizes[part] and not counts[part]:
            message = f"no cluster of rows is small enough for {sizes[part]} ids"
            raise RequestError(Problem(message, key=f"--{part}", expected="a larger part"))
    told = _write(read, parts, targets)
    members = clusters.members()
    return {
        "ids": total,
        "clusters": len(members),
        "largest": max(len({rows[number].id for number in cluster}) for cluster in members),
        "together": together,
        "parts": {part: {"ids": counts[part], "rows": told[part]} for part in PARTS},
        "out": str(out),
    }


def _read(path: Path, fields: Mapping[str, str], group: str | None) -> File:
    table = open_file(str(path), key="FILES")
    if group is not None and group not in table.columns:
        near, expected = nearest(group, table.columns), "one of " + ", ".join(table.columns)
        raise RequestError(
            Problem(f"no column '{group}'", file=str(path), key="--group", expected=expected, nearest=near)
        )
    records = list(table.records)
    defaults: dict[str, str] = {}
    for side in ("en", "tgt"):
        names = {f"{side}_{part}": f"{side}_{part}" for part in ("instruction", "input", "output")}
        there = all(names[f"{side}_{part}"] in table.columns for part in ("instruction", "output"))
        if there or any(name in fields for name in names):
            defaults |= names
    if not defaults:  # one language in the Alpaca layout
        defaults = {f"en_{part}": part for part in ("instruction", "input", "output")}
    reader = Reader(Table(table.name, table.columns, iter(records), table.has_lines), fields, defaults, key="--field")
    rows = [Row(id=identity, **texts) for identity, _, _, texts in reader]
    return File(path, [record for _, record in records], rows)


def _size(given: float, total: int, key: str) -> int:
    if not 0 <= given < math.inf or (given >= 1 and given != int(given)):
        raise RequestError(Problem(f"{given} is no size", key=key, expected="a number of ids, or a share below 1"))
    return int(given) if given >= 1 else round(given * total)


def _assign(clusters: Clusters, rows: Sequence[Row], sizes: Mapping[str, int], seed: int) -> dict[int, str]:
    """Row -> part."""
    ranked = sorted(clusters.members(), key=lambda cluster: _rank(min(rows[number].id for number in cluster), seed))
    room = dict(sizes)
    parts: dict[int, str] = {}
    for cluster in ranked:
        size = len({rows[number].id for number in cluster})
        fits = [part for part in HELD if size <= room[part] and size <= max(SMALL, LARGEST * sizes[part])]
        part = fits[0] if fits else "train"
        if part != "train":
            room[part] -= size
        parts |= dict.fromkeys(cluster, part)
    return parts


def _rank(identity: str, seed: int) -> str:
    return hashlib.sha256(f"split {seed} {identity}".encode()).hexdigest()


def _write(
    files: Sequence[File], parts: Mapping[int, str], targets: Mapping[tuple[Path, str], Path]
) -> dict[str, dict[str, int]]:
    """Write all files; part -> file -> rows."""
    told: dict[str, dict[str, int]] = {part: {} for part in PARTS}
    first = 0
    for file in files:
        homes = [parts[first + number] for number in range(len(file.records))]
        first += len(file.records)
        counts = Counter(homes)
        for part in PARTS:
            kept = [record for record, home in zip(file.records, homes, strict=True) if home == part]
            write_rows(targets[file.path, part], kept)
            told[part][targets[file.path, part].name] = counts[part]
    return told


def render_split(report: Mapping[str, Any], console: Console) -> None:
    """Print the report."""
    together = ", ".join(f"{count} by {reason}" for reason, count in report["together"].items())
    console.print(
        f"{report['ids']} ids in {report['clusters']} clusters, the largest of {report['largest']}"
        + (f"; put together: {together}" if together else "")
    )
    for part, told in report["parts"].items():
        files = ", ".join(f"{name} {count}" for name, count in told["rows"].items())
        console.print(f"  {part}: {told['ids']} ids ({files})", soft_wrap=True)
    console.print(f"Written to {report['out']}", soft_wrap=True)
