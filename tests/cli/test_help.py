"""Help is quick and light, and the surface of the command line is what this file says."""

import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from dft_search.cli.app import app

# A change here is a change for every user: verbs, their arguments and options, as the README and scripts name them.
SURFACE = {
    "init": {"file", "--from"},
    "plan": {"file", "--offline", "--json", "--set"},
    "search": {"file", "--name", "--resume", "--no-confirm", "--confirm", "--set"},
    "submit": {"file", "--address", "--wait", "--no-wait", "--name", "--resume", "--set"},
    "status": {"name", "--json"},
    "stop": {"name", "--discard", "--wait", "--no-wait"},
    "resume": {"name", "--confirm", "--no-confirm"},
    "report": {"name", "--figures", "--json"},
    "export": {
        *("name", "--out", "--trial", "--weights", "--dtype", "--full", "--register"),
        *("--merge", "--own-weight", "--combination", "--density"),
    },
    "verify": {"bundle", "--json"},
    "train": {"source", "--set"},
    "evaluate": {
        *(
            "model",
            "--tasks",
            "--split",
            "--limit",
            "--alpaca-wrap",
            "--judge",
            "--out",
            "--base",
            "--dtype",
            "--device",
        ),
        *("--max-length", "--fresh", "--tracking", "--no-tracking", "--json"),
    },
    "layers": {"file", "--out", "--rows", "--gradients", "--no-gradients", "--map", "--after", "--json", "--set"},
    "doctor": {"name", "--fix", "--json"},
    "schema": {"kind"},
    "data check": {"file", "--rows", "--json", "--set"},
    "data join": {
        "english",
        "target",
        "--out",
        "--by",
        "--match",
        "--at-least",
        "--field",
        "--rows",
        "--replace",
        "--json",
    },
    "data show": {"file", "--rows", "--json", "--set"},
    "data split": {"files", "--out", "--dev", "--test", "--group", "--seed", "--field", "--replace", "--json"},
    "data translate": {
        "english",
        "--out",
        "--language",
        "--model",
        "--revision",
        "--beams",
        "--workers",
        "--field",
        "--replace",
        "--json",
    },
}


def surface() -> dict[str, set[str]]:
    """Every verb with its arguments and options."""
    found: dict[str, set[str]] = {}

    def walk(command: object, name: str) -> None:
        for sub, inner in getattr(command, "commands", {}).items():
            if getattr(inner, "commands", None):
                walk(inner, f"{name}{sub} ")
            else:
                names = {text for p in inner.params for text in (*p.opts, *p.secondary_opts)}
                found[f"{name}{sub}"] = names - {"--help"}

    walk(typer.main.get_command(app), "")
    return found


def test_the_surface_is_frozen() -> None:
    assert surface() == SURFACE


@pytest.mark.parametrize("verb", SURFACE)
def test_every_verb_explains_itself_with_an_example(verb: str) -> None:
    result = CliRunner().invoke(app, [*verb.split(), "--help"])
    assert result.exit_code == 0
    assert f"Example: dft-search {verb}" in " ".join(result.output.split())


@pytest.mark.parametrize("arguments", [["--help"], ["plan", "--help"], ["data", "show", "--help"], ["serch"]])
def test_help_and_usage_errors_load_neither_torch_nor_ray(arguments: list[str]) -> None:
    heavy = ("torch", "ray", "transformers", "mlflow", "optuna", "datasets")
    script = (
        "import sys\n"
        "from dft_search.cli.app import app\n"
        f"try:\n    app({arguments!r})\nexcept SystemExit:\n    pass\n"
        f"sys.exit(' '.join(name for name in {heavy!r} if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"loaded: {done.stderr.splitlines()[-1]}"


def test_importing_the_package_loads_neither_torch_nor_ray() -> None:
    script = "import sys, dft_search; sys.exit(' '.join(n for n in ('torch', 'ray') if n in sys.modules) or 0)"
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 0


def test_the_driver_of_a_study_needs_no_torch() -> None:
    script = "import sys, dft_search.search.run, dft_search.search.tune; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
