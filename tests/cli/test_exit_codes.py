"""How verbs end: 0 done, 1 infrastructure, 2 wrong request, 3 interrupted; an error is one line on standard error."""

import json
import signal
import socket
import subprocess
import sys

import pytest
from typer.testing import CliRunner, Result

from dft_search.cli.app import app
from dft_search.config import InfrastructureError, Interrupted, Problem, RequestError
from dft_search.search import control, planning


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (
            RequestError([Problem("one", file="a.yaml", line=3, key="x.y"), Problem("two")]),
            2,
            ["a.yaml:3: x.y: one", "two"],
        ),
        (InfrastructureError("the cluster\nis gone"), 1, ["the cluster is gone"]),
        (Interrupted("stopped; go on with: resume"), 3, ["stopped; go on with: resume"]),
        (KeyboardInterrupt(), 3, ["interrupted"]),
    ],
)
def test_an_error_is_one_line_a_problem(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, lines: list[str]
) -> None:
    def status(name: str) -> None:
        raise error

    monkeypatch.setattr(control, "status", status)
    result = run("status", "any")
    assert result.exit_code == code
    assert result.stderr.splitlines() == [f"error: {line}" for line in lines]
    assert result.stdout == ""


def test_an_unexpected_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def status(name: str) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(control, "status", status)
    assert isinstance(run("status", "any").exception, ZeroDivisionError)


@pytest.mark.parametrize(("valid", "fits", "code"), [(True, True, 0), (True, False, 1), (False, False, 2)])
def test_plan_tells_valid_from_fits(monkeypatch: pytest.MonkeyPatch, valid: bool, fits: bool, code: int) -> None:
    plan = {"valid": valid, "fits": fits, "slots": 1, "steps": 8, "gpu_hours": 0.0, "first_points": [], "problems": []}

    def noisy(*args: object, **kwargs: object) -> dict[str, object]:
        print("a library says something")
        return plan

    monkeypatch.setattr(planning, "plan", noisy)
    result = run("plan", "llama2_7b_zh", "--json")
    assert result.exit_code == code
    assert json.loads(result.stdout) == plan
    assert "a library says something" in result.stderr


def test_sigterm_ends_like_ctrl_c() -> None:
    script = (
        "import time\nfrom dft_search.cli.app import main\nfrom dft_search.search import control\nimport sys\n"
        "def status(name):\n    print('ready', flush=True)\n    time.sleep(60)\n"
        "control.status = status\nsys.argv[1:] = ['status', 'any']\nmain()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 3
    assert errors == "error: interrupted\n"


def test_no_verb_shows_help() -> None:
    result = run()
    assert result.exit_code == 2
    assert "search" in result.stdout


def test_a_cluster_that_is_not_there_is_told_at_once(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's own client tries for minutes."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, and nobody listens
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        result = run("plan", "quickstart")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == (
        f"error: cannot connect to the Ray cluster at {address}: nobody answers there"
    )
