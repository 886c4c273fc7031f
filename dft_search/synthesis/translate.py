"""``data translate``: English rows made parallel rows by a translation model, with a filter and a journal.

The equal pieces of all texts are translated once, in parts of pieces of like length. What the parts are follows from
the rows alone, so a run that was interrupted, and one on other workers, ends with the same rows.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from dft_search.config import Interrupted, expand_path
from dft_search.data.check import check_rows
from dft_search.data.output import check_outputs, write_rows
from dft_search.data.reader import open_side
from dft_search.data.row import Row
from dft_search.synthesis.journal import Entry, Journal
from dft_search.synthesis.languages import iso_code
from dft_search.synthesis.pieces import Line, cut, join
from dft_search.synthesis.translator import TranslatorOptions, check_translator

FIELDS = ("instruction", "input", "output")
PART = 256  # pieces of one part: what is lost when a run ends hard
QUALITY = ("empty", "untranslated", "wrong_language", "length_ratio", "digits", "broken_text")  # of ``data check``
CUT = "cut"  # the model did not come to an end, or the text was too long for it

# parts by number -> finished parts, in any order
Workers = Callable[[Mapping[int, Sequence[str]]], AbstractContextManager[Iterator[Entry]]]


@dataclass(frozen=True)
class Work:
    """Rows to translate: ids, English texts by field, their lines, and the parts with all pieces."""

    ids: list[str]
    texts: list[dict[str, str]]
    lines: list[dict[str, list[Line]]]
    parts: list[list[str]]


def translate_file(
    english: str,
    out: Path,
    options: TranslatorOptions,
    *,
    fields: Mapping[str, str],
    workers: Workers,
    replace: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Translate the rows of one file field by field; an empty field stays empty.

    Writes ``out`` with the rows that pass the filter, and beside it ``NAME.rejected.jsonl`` with the others and the
    reasons. While it runs, ``NAME.partial`` keeps what is done.

    Args:
        english: rows with ``instruction``, ``input``, ``output`` and maybe ``id``, or parallel rows.
        out: the file to write, JSON lines.
        options: of the model.
        fields: our name of a field -> column.
        workers: what translates parts.
        replace: whether the files may exist; work that was begun for ``out`` is then begun anew.
        say: is told how far it is.

    Returns:
        The report: {rows, translated, rejected: {reason: rows}, pieces, parts, resumed_parts, language, code, out}.

    Raises:
        RequestError: the file, the model or the language cannot be used, or ``out`` exists.
        Interrupted: what is done is kept.
    """
    path, rejected, partial = expand_path(english), out.with_suffix(".rejected.jsonl"), out.with_suffix(".partial")
    check_outputs([out, rejected], [path], key="--out", replace=replace)
    work = _read(path, fields)
    target = check_translator(options)
    if replace:
        partial.unlink(missing_ok=True)
    facts = {"rows": _fingerprint(work.texts), "parts": len(work.parts), **asdict(options)}
    with Journal(partial, facts) as journal:
        resumed = len(journal.done)
        missing = {number: part for number, part in enumerate(work.parts) if number not in journal.done}
        if missing:
            say(f"{len(missing)} of {len(work.parts)} parts to translate")
            try:
                with workers(missing) as finished:
                    for number, texts in finished:
                        journal.add(number, texts)
                        say(f"{len(journal.done)} of {len(work.parts)} parts are translated")
            except KeyboardInterrupt:
                state = f"{len(journal.done)} of {len(work.parts)} parts are kept in {partial}"
                raise Interrupted(f"interrupted; {state}: the same command goes on") from None
    rows, cuts = _assemble(work, journal.done)
    language = iso_code(options.language)
    kept, reasons = _filter(rows, cuts, language)
    write_rows(rejected, [_record(rows[number], language) | {"reasons": why} for number, why in reasons.items()])
    write_rows(out, [_record(rows[number], language) for number in kept])
    partial.unlink()
    return {
        "rows": len(rows),
        "translated": len(kept),
        "rejected": dict(Counter(kind for found in reasons.values() for kind in sorted({f["kind"] for f in found}))),
        "pieces": sum(map(len, work.parts)),
        "parts": len(work.parts),
        "resumed_parts": resumed,
        "language": language,
        "code": target.code,
        "out": str(out),
        "rejected_out": str(rejected),
    }


def translate_texts(
    texts: Sequence[str], translate: Callable[[Sequence[str]], list[tuple[str, bool]]]
) -> list[str | None]:
    """Translations of whole texts, None where the model did not come to an end.

    Args:
        texts: cut into lines and groups of sentences for the model.
        translate: what gives pieces their translations, such as ``Translator.translate``.
    """
    lines = [cut(text) for text in texts]
    pieces = sorted(
        {piece for text in lines for line in text for piece in line.pieces}, key=lambda one: (len(one), one)
    )
    found = dict(zip(pieces, translate(pieces) if pieces else [], strict=True))
    words = {piece: text for piece, (text, _) in found.items()}
    whole = [all(found[piece][1] for line in text for piece in line.pieces) for text in lines]
    return [join(text, words) if done else None for text, done in zip(lines, whole, strict=True)]


def _read(path: str, fields: Mapping[str, str]) -> Work:
    reader = open_side(path, "en", key="ENGLISH", fields=fields)
    ids, texts = [], []
    for identity, _, _, values in reader:
        ids.append(identity)
        texts.append({name: values[f"en_{name}"] for name in FIELDS})
    lines = [{name: cut(text) for name, text in row.items()} for row in texts]
    found = {piece for row in lines for field in row.values() for line in field for piece in line.pieces}
    ordered = sorted(found, key=lambda piece: (len(piece), piece))
    parts = [ordered[start : start + PART] for start in range(0, len(ordered), PART)]
    return Work(ids, texts, lines, parts)


def _fingerprint(texts: Iterable[Mapping[str, str]]) -> str:
    digest = hashlib.sha256()
    for row in texts:
        for text in row.values():
            digest.update(b"%d:" % len(text) + text.encode())
    return digest.hexdigest()[:16]


def _assemble(work: Work, done: Mapping[int, Sequence[tuple[str, bool]]]) -> tuple[list[Row], dict[int, list[str]]]:
    """All rows with their translations, and row -> the fields in which the model did not come to an end."""
    translations: dict[str, str] = {}
    unfinished: set[str] = set()
    for number, part in enumerate(work.parts):
        for piece, (text, whole) in zip(part, done[number], strict=True):
            translations[piece] = text
            if not whole:
                unfinished.add(piece)
    rows, cuts = [], defaultdict(list)
    for number, (identity, texts, lines) in enumerate(zip(work.ids, work.texts, work.lines, strict=True)):
        sides = {f"en_{name}": text for name, text in texts.items()}
        sides |= {f"tgt_{name}": join(lines[name], translations) for name in FIELDS}
        rows.append(Row(id=identity, **sides))
        for name in FIELDS:
            if any(piece in unfinished for line in lines[name] for piece in line.pieces):
                cuts[number].append(name)
    return rows, cuts


def _filter(
    rows: Sequence[Row], cuts: Mapping[int, Sequence[str]], language: str
) -> tuple[list[int], dict[int, list[dict[str, str]]]]:
    """Rows that pass, and for every other one the reasons."""
    reasons: dict[int, list[dict[str, str]]] = defaultdict(list)
    for number, names in cuts.items():
        reasons[number].append({"kind": CUT, "message": f"{', '.join(names)}: no end, or too long for the model"})
    for finding in check_rows(rows, language):
        if finding.kind in QUALITY:
            reasons[finding.row].append({"kind": finding.kind, "message": finding.message})
    return [number for number in range(len(rows)) if number not in reasons], dict(sorted(reasons.items()))


def _record(row: Row, language: str) -> dict[str, Any]:
    sides = {f"{side}_{name}": getattr(row, f"{side}_{name}") for side in ("en", "tgt") for name in FIELDS}
    return {"id": row.id, "lang": language, **sides}


def render_translation(report: Mapping[str, Any], console: Console) -> None:
    """Print the report."""
    console.print(f"{report['translated']} of {report['rows']} rows translated to {report['language']}")
    for kind, count in sorted(report["rejected"].items(), key=lambda pair: -pair[1]):
        console.print(f"  rejected: {count} {kind}")
    console.print(f"Written to {report['out']}, rejected rows to {report['rejected_out']}", soft_wrap=True)
