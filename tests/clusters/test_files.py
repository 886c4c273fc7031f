"""All of clusters/: YAML that loads alike everywhere, scripts that shellcheck accepts, no secrets, whole pages."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from ruamel.yaml import YAML

from tests.test_readme import commands

FOLDER = Path(__file__).parents[2] / "clusters"
FILES = sorted(path for path in FOLDER.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
MANIFESTS = [path for path in FILES if path.suffix in (".yaml", ".yml")]
SCRIPTS = [path for path in FILES if path.read_bytes()[:2] == b"#!" and b"bash" in path.read_bytes().split(b"\n")[0]]
PAGES = [path for path in FILES if path.name == "README.md" and path.parent != FOLDER]  # that one is their index
SECRETS = {
    "a password in a URL": r"://[^\s/:@$]+:[^\s/@$<{]+@",
    "a private key": r"-----BEGIN",
    "a key of AWS": r"\bAKIA[0-9A-Z]{12,}",
    "a token of a hub": r"\b(hf|ghp|glpat)[_-][A-Za-z0-9]{16,}",
    "a value": r"(?i)(password|token|secret|api_?key)[\"']?\s*[:=]\s*[\"']?(?=[^\s\"']*\d)[A-Za-z0-9+/_-]{12,}",
}


def name(path: Path) -> str:
    return str(path.relative_to(FOLDER))


@pytest.mark.parametrize("path", MANIFESTS, ids=name)
def test_it_loads_without_duplicate_keys_and_means_the_same_to_every_reader(path: Path) -> None:
    strict = YAML(typ="safe", pure=True)  # YAML 1.2, refuses a key that is there twice
    assert list(strict.load_all(path.read_text())) == list(yaml.safe_load_all(path.read_text()))


def test_a_duplicate_key_would_be_seen() -> None:
    with pytest.raises(Exception, match="duplicate key"):
        YAML(typ="safe", pure=True).load("a: 1\na: 2\n")


@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_shellcheck_accepts_it(path: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("needs shellcheck (Debian: apt-get install shellcheck)")
    done = subprocess.run(["shellcheck", str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_it_stops_at_the_first_error_and_may_be_run(path: Path) -> None:
    assert re.search(r"^set -[euo]+ pipefail$", path.read_text(), re.MULTILINE)
    assert path.stat().st_mode & 0o111 or path.suffix != ".sh"


def secrets(text: str) -> list[str]:
    """What of a text looks like a secret that is written out."""
    return [what for what, pattern in SECRETS.items() if re.search(pattern, text)]


@pytest.mark.parametrize("path", FILES, ids=name)
def test_it_holds_no_secret(path: Path) -> None:
    assert secrets(path.read_text()) == []


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://ann:geheim@db/optuna",
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        "aws_access_key_id: AKIAIOSFODNN7EXAMPLE",
        "HF: hf_abcdefghijklmnopqrstuv",
        "RAY_AUTH_TOKEN=0123456789abcdef0123",
        '  password: "s3cr3tsecret"',
    ],
)
def test_a_secret_would_be_seen(text: str) -> None:
    assert secrets(text)


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_the_page_says_what_is_needed_what_it_costs_and_how_to_end(path: Path) -> None:
    text = path.read_text()
    headings: list[Any] = re.findall(r"^## (.+)$", text, re.MULTILINE)
    for needed in ("Prerequisites", "Cost", "Tear down"):
        assert needed in headings
    whole = path.parent.name == "local"  # the tests run all of it
    assert len(re.findall(r"^Not run here: .+", text, re.MULTILINE)) == (0 if whole else 1)


def test_every_command_of_ray_in_the_pages_exists() -> None:
    from ray.scripts.scripts import cli

    seen = [words[words.index("ray") :] for words in commands() if "ray" in words]
    assert {words[1] for words in seen} >= {"up", "down", "dashboard", "job"}
    for _, verb, *rest in seen:
        command: Any = cli.commands[verb]
        if isinstance(command, click.Group):
            command = command.commands[rest[0]]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        own = rest[: rest.index("--")] if "--" in rest else rest
        assert {word for word in own if word.startswith("--")} <= known, verb
