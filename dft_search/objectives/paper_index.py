"""Which function is which equation: an index from lines that stand at the end of docstrings.

An entry is a block of lines, the first two needed, each as long as it takes:

    Paper: DFT eq 4
    Test: tests/objectives/test_compute.py::test_against_plain_forward_passes
    Default: logits at layer 2
    Open: what the paper leaves open, and the option that chooses a reading

A function may have several blocks, and a block several tests, a semicolon between them. They are read from the source
text: nothing is imported.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
README = Path(__file__).with_name("README.md")
COMMAND = "python -m dft_search.objectives"
_FIELDS = ("Paper", "Test", "Default", "Open")
_LINE = re.compile(rf"({'|'.join(_FIELDS)}): (\S.*)")
_DEFINITIONS = (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Entry:
    """One place of a paper.

    Attributes:
        paper: the paper and the place in it, such as ``DFT eq 4``.
        function: module and name, as in ``dft_search.objectives.conversion:conversion_term``.
        tests: as pytest names them.
        default: what is used unless a file says otherwise.
        open: what the paper leaves open, with the option that chooses.
    """

    paper: str
    function: str
    tests: tuple[str, ...]
    default: str = ""
    open: str = ""


def collect_entries(package: Path = PACKAGE) -> list[Entry]:
    """All entries of a package, DFT's first, each paper's in the order of its equations.

    Raises:
        ValueError: a block has no test, or begins with another line than ``Paper``.
    """
    found = [entry for file in sorted(package.rglob("*.py")) for entry in _of_file(file, package)]
    return sorted(found, key=lambda entry: (not entry.paper.startswith("DFT"), _natural(entry.paper), entry.function))


def index_markdown(entries: list[Entry]) -> str:
    """The index as a page of Markdown."""
    head = ("paper", "function", "test", "default", "open reading")
    rows = [head, ("---",) * len(head), *(_cells(entry) for entry in entries)]
    table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
    return (
        "# Where the papers' equations are\n\n"
        f"Made from docstrings by `{COMMAND} --write`. The papers: DFT, arXiv 2503.01275; mid-align, arXiv "
        "2502.14830; CLO, arXiv 2505.14297; SDRRL, arXiv 2402.12204. Where a paper leaves something open, the last "
        "column names the readings; a number that rests on one is that of a re-implementation.\n\n" + table + "\n"
    )


def _cells(entry: Entry) -> tuple[str, ...]:
    tests = "<br>".join(f"`{test.removeprefix('tests/')}`" for test in entry.tests)
    return entry.paper, f"`{entry.function.removeprefix('dft_search.')}`", tests, entry.default, entry.open


def _of_file(file: Path, package: Path) -> Iterator[Entry]:
    text = file.read_text(encoding="utf-8")
    if "Paper: " not in text:
        return
    module = ".".join([package.name, *file.relative_to(package).with_suffix("").parts]).removesuffix(".__init__")
    yield from _of_body(ast.parse(text), module, "")


def _of_body(
    node: ast.Module | ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef, module: str, name: str
) -> Iterator[Entry]:
    if isinstance(node, _DEFINITIONS):
        yield from _of_docstring(ast.get_docstring(node) or "", f"{module}:{name}")
    for child in node.body:
        if isinstance(child, _DEFINITIONS):
            yield from _of_body(child, module, f"{name}.{child.name}".lstrip("."))


def _of_docstring(docstring: str, function: str) -> Iterator[Entry]:
    block: dict[str, str] = {}
    field = ""
    for line in [*docstring.splitlines(), ""]:
        started = _LINE.fullmatch(line.rstrip())
        if block and (not line.strip() or (started and started[1] == "Paper")):
            yield _entry(block, function)
            block, field = {}, ""
        if started:
            field = started[1]
            block[field] = started[2]
        elif field and line.strip():
            block[field] += " " + line.strip()


def _entry(block: dict[str, str], function: str) -> Entry:
    if missing := [name for name in ("Paper", "Test") if name not in block]:
        raise ValueError(f"{function}: its entry in the index has no line '{missing[0]}: ...', but {block}")
    tests = tuple(test.strip() for test in block["Test"].split(";"))
    return Entry(block["Paper"], function, tests, block.get("Default", ""), block.get("Open", ""))


def _natural(text: str) -> list[tuple[int, str]]:
    """Numbers in a text in the order of their size."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", text)]
