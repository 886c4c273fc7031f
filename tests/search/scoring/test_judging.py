"""`dft-search evaluate --judge`: answers are generated, compared, reported and recorded; nothing is done twice."""

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from typer.testing import CliRunner, Result

from dft_search.cli.app import app
from dft_search.evaluation.harness import LiveLM
from tests.evaluation.judge.stub import Answer, Request, prefers, says, stub
from tests.training.tiny import make_rows, make_world

PROMPTS = 6


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    make_world(folder)
    prompts = [{"id": row["id"], "zh": row["tgt_instruction"]} for row in make_rows()]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts))
    return folder


def judge_file(world: Path, folder: Path, judge: dict[str, Any], **changes: Any) -> Path:
    told = {
        "name": "tiny",
        "language": "zh",
        "prompts": {"file": str(world / "prompts.jsonl"), "instruction": "zh", "limit": PROMPTS},
        "opponent": {"model": str(world / "tied")},
        "judge": judge,
        "max_new_tokens": 6,
        **changes,
    }
    path = folder / "judge.yaml"
    path.write_text(json.dumps(told))
    return path


def endpoint(url: str) -> dict[str, Any]:
    return {"endpoint": {"url": url, "model": "stub", "pause": 0.01, "attempts": 3}}


def invoke(*arguments: Any, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["evaluate", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many answers were generated at a time, from here on."""
    seen: list[int] = []
    generate = LiveLM.generate_until

    def noted(self: LiveLM, requests: list[Any], *more: Any, **named: Any) -> Any:
        seen.append(len(requests))
        return generate(self, requests, *more, **named)

    monkeypatch.setattr(LiveLM, "generate_until", noted)
    return seen


def test_from_command_to_record(world, home, generated):
    def shaky(request: Request) -> Answer:
        return Answer(status=500) if request.attempt == 1 else prefers(request, 1.25)

    with stub(shaky) as server:
        file = judge_file(world, home.parent, endpoint(server.url))
        result = invoke(world / "llama", "--judge", file)
    assert "judged by stub" in result.stdout and f"valid {PROMPTS} of {PROMPTS}" in result.stdout
    assert f"came to nothing: {PROMPTS} HTTP 500" in result.stdout and "win rate 50.0 %" in result.stdout
    assert generated == [PROMPTS, PROMPTS]
    (folder,) = home.glob("evaluations/llama-*/judge/tiny")
    answers = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    assert [answer["id"] for answer in answers] == [row["id"] for row in make_rows()[:PROMPTS]]
    assert len((folder / "judgements.jsonl").read_text().splitlines()) == PROMPTS
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("evaluations").experiment_id])
    assert run.data.metrics["judge/tiny/win_rate"] == 50 and run.data.metrics["judge/tiny/valid"] == PROMPTS
    logged = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert logged == {"scores.json", "answers.jsonl", "opponent.jsonl", "judgements.jsonl", "report.json"}

    generated.clear()  # the same answers against those of a file, and another judge
    with stub(lambda request: prefers(request, 2)) as server:
        opponent = {"opponent": {"file": str(folder / "opponent.jsonl")}}
        file = judge_file(world, home.parent, endpoint(server.url), **opponent)
        found = json.loads(invoke(world / "llama", "--judge", file, "--no-tracking", "--json").stdout)["judge"]
        assert server.requests == [] and found["win_rate"] == 50  # what was judged is known
        invoke(world / "llama", "--judge", file, "--no-tracking", "--fresh")
        assert len(server.requests) == PROMPTS
    assert generated == [PROMPTS]  # by --fresh


def test_a_judge_that_only_lies_ends_in_1(world, home):
    with stub(lambda request: says("no")) as server:
        result = invoke(
            world / "llama", "--judge", judge_file(world, home.parent, endpoint(server.url)), "--no-tracking", code=1
        )
    assert "warning: 6 of 6 comparisons have no valid judgement (6 not JSON)" in result.stdout
    assert "win rate " not in result.stdout.replace("Win rate", "")


def test_answers_that_leave_no_room_are_refused(world, home):
    file = judge_file(world, home.parent, endpoint("http://127.0.0.1:9/v1"), max_new_tokens=256)
    said = invoke(world / "llama", "--judge", file, code=2).stderr
    assert "judge.yaml" in said and "max_new_tokens: 256 leave no room for a prompt (expected less than 256)" in said


def test_a_local_model_and_a_file_judge_too(world, home):
    local = judge_file(world, home.parent, {"model": {"path": str(world / "tied"), "dtype": "float32"}})
    found = json.loads(invoke(world / "llama", "--judge", local, "--no-tracking", "--json").stdout)["judge"]
    assert (
        found["judge"].startswith("tied-") and found["valid"] == PROMPTS and found["position"] is None
    )  # it knows no numbers
    assert found["win_rate"] == pytest.approx(50) and found["draws"] == PROMPTS
    told = [{"id": row["id"], "preference": 2} for row in make_rows()[: PROMPTS - 1]]
    (home.parent / "j.jsonl").write_text("".join(json.dumps(line) + "\n" for line in told))
    recorded = judge_file(world, home.parent, {"file": {"path": "j.jsonl", "judge": "annotators"}})
    found = json.loads(invoke(world / "llama", "--judge", recorded, "--no-tracking", "--json").stdout)["judge"]
    assert found["win_rate"] == 100 and found["failed"] == {"not in the file": 1} and found["judge"] == "annotators"
