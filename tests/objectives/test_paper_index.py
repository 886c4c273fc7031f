"""The index of equations: every paper is in it, what it names exists, and the page beside the code is current."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from dft_search.objectives.paper_index import COMMAND, README, Entry, collect_entries, index_markdown
from dft_search.objectives.registry import BUILT_IN

ROOT = Path(__file__).parents[2]
# by method: beginnings of the places that an index without gaps has
NEEDED = {
    "dft": [*(f"DFT eq {number}" for number in range(1, 9)), "DFT entropy"],
    "mid_align": ["mid-align"],
    "clo": ["CLO"],
    "sdrrl": ["SDRRL"],
}
ENTRIES = collect_entries()


@pytest.mark.parametrize("method", [name for name in NEEDED if name in BUILT_IN])
def test_every_place_has_an_entry(method: str) -> None:
    missing = [place for place in NEEDED[method] if not any(_is_of(entry, place) for entry in ENTRIES)]
    assert not missing, f"no docstring has a line 'Paper: {missing[0]}' (see dft_search/objectives/paper_index.py)"


def _is_of(entry: Entry, place: str) -> bool:
    return entry.paper == place or entry.paper.startswith((f"{place} ", f"{place},", f"{place}:"))


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.paper}: {entry.function}")
def test_what_an_entry_names_exists(entry: Entry) -> None:
    module, _, name = entry.function.partition(":")
    found: object = import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    for test in entry.tests:
        file, *names = test.split("::")
        assert (ROOT / file).is_file(), test
        node: ast.AST = ast.parse((ROOT / file).read_text())
        for part in names:
            node = next((child for child in ast.iter_child_nodes(node) if getattr(child, "name", None) == part), None)
            assert node is not None, test
        assert names, f"{test} names no test"


def test_the_page_beside_the_code_is_current() -> None:
    assert README.read_text() == index_markdown(ENTRIES), f"run {COMMAND} --write"


def test_the_command_prints_it() -> None:
    command = [sys.executable, *COMMAND.split()[1:]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout == index_markdown(ENTRIES)


MODULE = '''
class Term:
    """A term.

    Paper: DFT eq 10
    Test: tests/a.py::test_a; tests/b.py::test_b
    Default: on,
        with a weight of 1
    Paper: DFT eq 9
    Test: tests/a.py::test_a
    Open: which layer
    """
'''


def test_entries_are_read_from_docstrings(tmp_path: Path) -> None:
    (tmp_path / "terms.py").write_text(MODULE)
    function = f"{tmp_path.name}.terms:Term"
    assert collect_entries(tmp_path) == [
        Entry("DFT eq 9", function, ("tests/a.py::test_a",), open="which layer"),
        Entry("DFT eq 10", function, ("tests/a.py::test_a", "tests/b.py::test_b"), "on, with a weight of 1"),
    ]


def test_an_entry_without_a_test_is_refused(tmp_path: Path) -> None:
    (tmp_path / "terms.py").write_text('def term():\n    """A term.\n\n    Paper: DFT eq 1\n    """\n')
    with pytest.raises(ValueError, match="terms:term: its entry in the index has no line 'Test"):
        collect_entries(tmp_path)
