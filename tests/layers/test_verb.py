"""`dft-search layers`: a table, one document, files that need no network, and a run in MLflow."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from typer.testing import CliRunner

from dft_search.cli.app import app
from tests.search.small import LAYERS, write_world

VOID = {"meta", "link", "rect", "line", "circle", "polyline", "i", "br"}


class Page(HTMLParser):
    """Checks that elements close in order; collects what would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        self.fetched += [value for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"))


def run(*arguments: str, code: int = 0):
    result = CliRunner().invoke(app, ["layers", *arguments])
    assert result.exit_code == code, result.output
    return result


def test_the_verb_end_to_end(study, home, tmp_path):
    out = tmp_path / "out"
    result = run(str(study), "--out", str(out), "--rows", "12", "--set", "recipe.objective.inner_norm=false")
    found = json.loads((out / "layers.json").read_text())
    proposal = found["proposal"]
    assert f"Proposed conversion layer i = {proposal['i']}" in result.stdout
    assert f"Proposed thinking layer j = {proposal['j']}" in result.stdout
    assert found["rows"] == 12 and found["inner_norm"] is False and found["language"] == "zh"
    assert set(found["entropy"]) == {"query", "prompt", "prompt_without_bos"}
    for curves in found["entropy"].values():
        for curve in curves.values():
            assert len(curve["mean"]) == LAYERS + 1
            assert all(low <= mean <= high for mean, (low, high) in zip(curve["mean"], curve["interval"], strict=True))
            assert all(0 <= share <= 1 for share in curve["share"])
    assert sum(proposal["resampled"]["j"].values()) == pytest.approx(1)
    assert proposal["stability"]["j"] == proposal["resampled"]["j"].get(str(proposal["j"]), 0)
    assert {prompt["language"] for prompt in found["tokens"]} == {"target", "english"}
    for prompt in found["tokens"]:
        assert all(len(column) == len(prompt["tokens"]) == len(prompt["query"]) for column in prompt["nats"])
    assert found["gradients"] is None  # 24 rows: too few
    for picture in ("curves.png", "tokens.png"):
        assert (out / picture).read_bytes().startswith(b"\x89PNG")
    _check_page((out / "layers.html").read_text(), found)
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    (logged,) = client.search_runs([client.get_experiment_by_name("tiny-layers").experiment_id])
    assert logged.info.status == "FINISHED" and logged.data.tags["phase"] == "baseline"
    assert logged.data.metrics["layers/j"] == proposal["j"] and logged.data.params["language"] == "zh"
    kept = {file.path for file in client.list_artifacts(logged.info.run_id)}
    assert kept == {"layers.json", "layers.html", "curves.png", "tokens.png"}


def _check_page(text: str, found: dict) -> None:
    page = Page()
    page.feed(text)
    assert page.open == [] and all(target.startswith(("#", "data:")) for target in page.fetched)
    assert "http" not in text and "color-scheme" in text and 'lang="en"' in text
    assert f"conversion i = {found['proposal']['i']}, thinking j = {found['proposal']['j']}" in text
    style = "".join(re.findall(r"<style[^>]*>(.*?)</style>", text, re.DOTALL))
    rules = {name for rule in re.findall(r"[^{}]+(?={)", style) for name in re.findall(r"\.([a-z]+)", rule)}
    drawn = {name for names in re.findall(r'class="([^"]*)"', text) for name in names.split()}
    assert drawn - {"about"} <= rules, "what is drawn has a look"
    used, defined = (set(re.findall(pattern, style)) for pattern in (r"var\((--[a-z0-9-]+)", r"(--[a-z0-9-]+):"))
    assert used <= defined | {"--share"}  # a cell's own
    assert all('aria-label="' in drawing for drawing in re.findall(r"<svg[^>]*>", text))


def test_json_is_one_document_and_gradients_are_in_it(study, home, tmp_path, monkeypatch):
    from dft_search.layers import gradients

    monkeypatch.setattr(gradients, "BATCH_ROWS", 4)
    result = run(str(study), "--json", "--out", str(tmp_path))
    found = json.loads(result.stdout)
    assert found == json.loads((tmp_path / "layers.json").read_text())
    terms = found["gradients"]["terms"]
    assert set(terms) == {"conversion", "thinking"}
    assert all(len(term["cosine"]) == len(term["interval"]) == LAYERS for term in terms.values())
    page = (tmp_path / "layers.html").read_text()
    _check_page(page, found)
    assert "Gradient alignment" in page
    shown = run(str(study), "--no-gradients", "--out", str(tmp_path))
    assert json.loads((tmp_path / "layers.json").read_text())["gradients"] is None
    assert "Plain training" not in shown.stdout and "retrieval" in shown.stdout


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--set", "recipe.model.path=nowhere/at-all"], "recipe.model.path"),
        (["--set", "recipe.objective.thinking.layer=99"], "recipe.objective.thinking.layer"),
        (["--rows", "1"], "--rows"),
        (["--set", "study.tracking.uri=ftp://x"], "study.tracking.uri"),
    ],
)
def test_a_wrong_request_says_which_key(study, home, given, said, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert said in run(str(study), *given, code=2).stderr


def test_rows_of_one_language_are_refused(study, home, tmp_path):
    rows = [json.loads(line) for line in (study.parent / "rows.jsonl").read_text().splitlines()]
    one = tmp_path / "one.jsonl"
    one.write_text("".join(json.dumps({k: v for k, v in r.items() if not k.startswith("en_")}) + "\n" for r in rows))
    assert "en_instruction" in run(str(study), "--set", f"recipe.data.train.files=[{one}]", code=2).stderr
