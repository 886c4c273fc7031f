"""Methods of installed packages: found by name, with options of their own, the same loss as by hand; mistakes told."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dft_search.config import RequestError
from dft_search.objectives import plugins
from dft_search.objectives.options import Objective
from dft_search.objectives.registry import BUILT_IN
from tests.objectives.toy_package import MODULE, with_package, write_package


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return with_package(write_package(tmp_path_factory.mktemp("packages")))


def python(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_its_gradients_are_those_of_a_hand_written_loss(installed: dict[str, str]) -> None:
    done = python(installed, "-m", "tests.objectives.toy_gradients")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["terms"] == ["generation", "toy"]
    assert max(told["loss"], told["term"], told["gradients"]) < 2e-6


SCRIPT = """
import json
from dataclasses import replace
from dft_search.bundle import facts
from dft_search.bundle.provenance import _plugin
from dft_search.config import build, known_keys, parse_document, RequestError
from dft_search.objectives.options import Objective
from dft_search.search.schema import schema
from dft_search.training.recipe import Recipe

def said(text):
    try:
        return build(Objective, parse_document(text, "f.yaml"), ("objective",)).canonical()
    except RequestError as error:
        return [str(problem) for problem in error.problems]

def called():
    options = type(Objective().toy)
    made, options.term = options.term, lambda self, context: replace(made(self, context), name="tay")
    try:
        return Objective(method="toy").terms(8) and "made"
    except RequestError as error:
        return str(error)
    finally:
        options.term = made

objective = schema("study")["$defs"]["Objective"]["properties"]
toy = Objective(method="toy", toy={"layer": "100%"})
print(json.dumps({
    "methods": objective["method"]["enum"],
    "section": objective["toy"]["default"],
    "keys": [key for key in known_keys(Recipe) if "toy" in key],
    "form": toy.resolved(8).canonical(),
    "needs": str(toy.needs),
    "names": toy.term_names,
    "renamed": called(),
    "versions": [facts.versions(name).get("toy-methods") for name in ("toy", "dft")],
    "record": [_plugin(name) for name in ("toy", "dft")],
    "environment": ["toy-methods==1.2" in facts.environment({}, name) for name in ("toy", "dft")],
    "unread": [sorted(Objective().unread), sorted(toy.unread)],
    "plain": Objective().canonical() == Objective(toy={"scale": 3.0}).canonical(),
    "misspelt": said("objective: {method: toi}"),
    "unknown": said("objective: {method: toy, toy: {scal: 1.0}}"),
    "wrong": said("objective: {method: toy, toy: {scale: much}}"),
}))
"""


def test_it_is_in_schema_space_and_errors(installed: dict[str, str]) -> None:
    done = python(installed, "-c", SCRIPT)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["methods"] == [*BUILT_IN, "toy"]
    assert told["section"] == {"layer": "50%", "weight": 1.0, "scale": 0.5}
    assert told["keys"] == [f"objective.toy{key}" for key in ("", ".layer", ".weight", ".scale")]
    assert told["form"] == {"method": "toy", "toy": {"layer": 8, "weight": 1.0, "scale": 0.5}}
    assert told["needs"] == "English and the target language" and told["names"] == ["generation", "toy"]
    assert told["unread"] == [["toy"], []]  # a recipe of another method is read where the package is not installed
    assert told["plain"]
    assert told["versions"] == ["1.2", None] and told["environment"] == [True, False]  # what a bundle says it needs
    record = {"package": "toy-methods", "origin": "toy-methods 1.2", "entry": "toy_methods:TOY"}
    assert told["record"] == [{"plugin": record}, {}]  # for those who open the bundle without the package
    assert told["renamed"] == "section 'toy' makes a term called 'tay' (expected toy)"
    assert "one of dft, tft" in told["misspelt"][0] and "did you mean 'toy'?" in told["misspelt"][0]
    assert told["unknown"] == ["f.yaml:1: objective.toy.scal: unknown key (did you mean 'scale'?)"]
    assert told["wrong"] == ["f.yaml:1: objective.toy.scale: 'much' is not accepted (expected a number)"]


def test_help_imports_no_package_of_somebody_else(tmp_path: Path) -> None:
    environment = with_package(write_package(tmp_path, module="raise SystemExit('imported')"))
    assert python(environment, "-m", "dft_search", "--help").returncode == 0
    assert python(environment, "-c", "import dft_search").returncode == 0


def test_a_verb_tells_a_package_that_cannot_be_imported(tmp_path: Path) -> None:
    environment = with_package(write_package(tmp_path, module="import not_there"))
    done = python(environment, "-m", "dft_search", "schema")
    assert done.returncode == 2 and not done.stdout
    assert "error: method 'toy' of the installed package toy-methods 1.2: toy_methods:TOY cannot be" in done.stderr
    assert "ModuleNotFoundError: No module named 'not_there'" in done.stderr and "Traceback" not in done.stderr


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Install packages, and read their methods as the first use of an objective does; returns what was said."""

    def found(**packages: tuple[str, str]) -> list[str]:
        for name, (entries, module) in packages.items():
            write_package(tmp_path / name, name=name.replace("_", "-"), entries=entries, module=module)
            monkeypatch.syspath_prepend(str(tmp_path / name))
        plugins._entries.cache_clear()
        with pytest.raises(RequestError) as caught:
            plugins.compose(Objective, plugins.load_plugins(BUILT_IN))
        return [str(problem) for problem in caught.value.problems]

    yield found
    plugins._entries.cache_clear()


def test_names_that_clash_name_the_packages(load) -> None:
    two = "dft = bad_one:TOY\ntwin = bad_one:TOY"
    said = load(bad_one=(two, MODULE), bad_two=("twin = bad_two:TOY", MODULE))
    assert said == [
        "method 'dft' of the installed package bad-one 1.2: this name is built in (expected another one, as in "
        "my_method)",
        "method 'twin' of the installed package bad-two 1.2: bad-one 1.2 declares one of this name too",
    ]


WRONG = {
    "is a dict": "TOY = {}",
    "its section 'conversion' has a name that is taken": MODULE.replace('"toy"', '"conversion"'),
    "its section 'canonical' has a name that is taken": MODULE.replace('"toy"', '"canonical"'),
    "its section 'generation' has a name that is taken": MODULE.replace('"toy"', '"generation"'),
    "its section 'my toy' has a name that is no key of a file": MODULE.replace('"toy"', '"my toy"'),
    "is no subclass of dft_search.objectives.section.TermOptions": MODULE.replace(
        '{"toy": ToyOptions}', '{"toy": dict}'
    ),
    "has no method 'term'": MODULE.replace("def term(", "def other("),
    "needs a default for every option": MODULE.replace("scale: float = 0.5", "scale: float"),
    "reads the section 'tow', which there is not": MODULE.replace('reads=("toy",)', 'reads=("toy", "tow")'),
    "must be among what it reads": MODULE.replace('reads=("toy",)', "reads=()"),
}


@pytest.mark.parametrize("message", WRONG)
def test_what_is_no_method_is_refused(load, message: str) -> None:
    name = f"wrong_{list(WRONG).index(message)}"  # a module of its own: Python imports each once
    said = load(**{name: (f"toy = {name}:TOY", WRONG[message])})
    assert len(said) == 1 and message in said[0] and f"of the installed package {name.replace('_', '-')} 1.2" in said[0]
