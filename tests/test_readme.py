"""The README's code: every verb, option, target and key in it exists, and every block runs."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from dft_search.config import expand_path, parse_document
from tests.cli.test_help import SURFACE

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
PAGES = ["README.md", *(str(page.relative_to(ROOT)) for page in sorted(ROOT.glob("clusters/*/README.md")))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page; a command that goes on in the next line is one line here."""
    found = BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    return [text.replace("\\\n", "") for kind, text in found if kind == language]


def commands() -> Iterator[list[str]]:
    """Every command line of every page, without its comment."""
    for page in PAGES:
        for block in blocks(page, "bash"):
            for line in block.splitlines():
                if words := shlex.split(line, comments=True):
                    yield words


def ours(words: list[str]) -> list[str] | None:
    """What follows ``dft-search`` in a command, also inside of a Ray job's."""
    return words[words.index("dft-search") + 1 :] if "dft-search" in words else None


@pytest.mark.parametrize("words", [w for w in commands() if ours(w)], ids=shlex.join)
def test_every_verb_and_option_exists(words: list[str]) -> None:
    arguments = ours(words) or []
    verb = " ".join(arguments[:2]) if arguments[0] == "data" else arguments[0]
    assert verb in SURFACE
    assert {word for word in arguments if word.startswith("--")} <= SURFACE[verb]


def test_every_make_target_and_script_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for words in commands():
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), words
        for word in words:
            if word.startswith(("clusters/", "search_spaces/")):
                assert (ROOT / word).is_file(), word


def test_every_link_leads_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8")):
            if "://" not in target:
                assert ((ROOT / page).parent / target).exists(), f"{page}: {target}"


def test_the_recipe_block_is_valid() -> None:
    from dft_search.config import build
    from dft_search.training.recipe import Recipe

    (block,) = [text for text in blocks("README.md", "yaml") if text.startswith("recipe:") and "model:" in text]
    recipe = build(Recipe, parse_document(block, "README.md"), ("recipe",))
    assert recipe.objective.thinking.layer == "50%"


def test_the_study_block_is_valid() -> None:
    from dft_search.config import build, known_keys
    from dft_search.search.options import StudyOptions
    from dft_search.search.samplers import sampler_warnings
    from dft_search.search.space import read_space
    from dft_search.training.recipe import Recipe

    (block,) = [text for text in blocks("README.md", "yaml") if text.startswith("study:")]
    document = parse_document(block, "README.md")
    options = build(StudyOptions, document, ("study",))
    space = read_space(document, 32, known_keys(Recipe))
    assert options.guide.metric == "score" and sampler_warnings(options, space) == []
    assert [parameter.key for parameter in space.parameters][0] == "training.trainable"


@pytest.mark.parametrize(("method", "searched"), [("mid_align", 2), ("clo", 1), ("sdrrl", 1)])
def test_the_block_of_a_method_is_valid(method: str, searched: int) -> None:
    from dft_search.config import build, known_keys
    from dft_search.search.space import read_space
    from dft_search.training.recipe import Recipe

    (block,) = [text for text in blocks("README.md", "yaml") if f"method: {method}" in text]
    document = parse_document(block, "README.md")
    section = document.data["recipe"]
    section.setdefault("data", {}).setdefault("train", {"files": ["rows.jsonl"]})
    section["data"]["target_language"], section["model"] = "zh", {"path": "base"}
    assert build(Recipe, document, ("recipe",)).method == method
    assert len(read_space(document, 32, known_keys(Recipe)).parameters) == searched


def test_the_judge_block_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dft_search.evaluation.judge import read_judge_file

    (block,) = [text for text in blocks("README.md", "yaml") if "judge:" in text]
    monkeypatch.setenv("DFT_SEARCH_DATA", "/data")
    (tmp_path / "judge.yaml").write_text(block)
    _, options = read_judge_file(str(tmp_path / "judge.yaml"))
    assert options.judge.endpoint is not None and options.opponent.file == str(tmp_path / "sft_answers.jsonl")


def test_the_loss_block_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = [text for text in blocks("README.md", "python") if "compute_loss" in text and "Trainer" not in text]
    exec(compile(block.replace("meta-llama/Llama-2-7b-hf", expand_path("package:demo/base")), "README.md", "exec"), {})
    assert {"generation", "conversion", "thinking"} <= set(re.findall(r"'(\w+)':", capsys.readouterr().out))


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_study_of_ones_own_runs_as_written(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks on one's own study, its winner and its MLflow record, in their order, with a smaller budget."""
    environment = {**os.environ, "DFT_SEARCH_HOME": str(home), "PATH": f"{BIN}:{os.environ['PATH']}"}
    for block in blocks("README.md", "bash"):
        if not block.startswith(
            "dft-search"
        ):  # the start is test_quickstart.py, the cluster is tests/launch/test_submit.py
            continue
        for line in block.splitlines():
            done = subprocess.run(line, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            if " init " in line:
                _shrink(tmp_path / "mine.yaml")
    (block,) = [text for text in blocks("README.md", "python") if "mlflow" in text]
    names: dict[str, object] = {}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home}/mlflow.db")  # the block sets it for all that follow
    exec(compile(block, "README.md", "exec"), names)
    assert len(names["best"]) >= 1  # type: ignore[arg-type]
    assert len(names["confirmed"]) == 3  # type: ignore[arg-type]  # the champion, TFT and the base


def _shrink(file: Path) -> None:
    """What a user edits: a smaller budget, so that the test is quick."""
    yaml = YAML()
    study = yaml.load(file)
    study["study"].update(budget={"trials": 3}, confirm={"top": 1, "seeds": 1, "arms": ["tft"], "tuning_trials": 1})
    study["recipe"]["training"]["length"] = {"steps": 8}
    yaml.dump(study, file)
