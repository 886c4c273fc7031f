"""What a user may get wrong, the one line that says so, and the exit code: through the real command line."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner, Result

from dft_search.cli.app import app
from dft_search.config import set_key

ABSENT = object()
TRAINING, OBJECTIVE, FILES = "recipe.training", "recipe.objective", "recipe.data.train.files"

# A key of the study file, what is wrongly written there, and what the line must say.
BAD_KEYS: list[tuple[str, Any, str]] = [
    # keys
    ("recipe.modle", {"path": "x"}, "recipe.modle: unknown key (did you mean 'model'?)"),
    (f"{TRAINING}.optimiser", {}, "optimiser: unknown key (did you mean 'optimizer'?)"),
    ("study.buget", {"trials": 2}, "study.buget: unknown key (did you mean 'budget'?)"),
    ("study.guard", "score", "guard is for several objectives; with one, that one is pruned on"),
    ("study.gaurd", "score", "study.gaurd: unknown key (did you mean 'guard'?)"),
    ("recipe.data.train.mixture", {"more": 1.0}, "recipe.data.train: the mixture is of more, the files are rows"),
    ("spaces", {}, "spaces: unknown key (did you mean 'space'?)"),
    ("study", ABSENT, "section 'study' is missing"),
    ("recipe", ABSENT, "section 'recipe' is missing"),
    ("recipe.model.path", ABSENT, "recipe.model.path: is required"),
    ("recipe.data.target_language", ABSENT, "recipe.data.target_language: is required"),
    ("recipe.scoring", ABSENT, "section 'scoring' is missing: a study needs a score"),
    # types and values
    (f"{TRAINING}.batch_rows", "128", "batch_rows: '128' is not accepted (expected an integer)"),
    (f"{TRAINING}.batch_rows", 0, "batch_rows: 0 is not accepted (expected at least 1)"),
    (f"{TRAINING}.micro_batch_rows", 64, "micro_batch_rows: a micro-batch of 64 rows is larger than the batch"),
    (f"{TRAINING}.optimizer", {"learning_rate": "fast"}, "learning_rate: 'fast' is not accepted (expected a number)"),
    (f"{TRAINING}.optimizer", {"betas": [0.9]}, "betas: a list is not accepted (expected at least 2 entries)"),
    (f"{TRAINING}.clip_norm", float("nan"), "clip_norm: nan is not accepted"),
    (f"{TRAINING}.schedule", {"warmup": 1.5}, "warmup: 1.5 is not accepted (expected less than 1"),
    (f"{TRAINING}.schedule", {"name": "cosin"}, "'cosin' is not allowed (expected one of cosine, linear, constant"),
    (f"{TRAINING}.length", {"steps": 4, "epochs": 1}, "needs exactly one of epochs, steps, tokens"),
    (f"{TRAINING}.trainable", {"lora": {"rank": 0}}, "lora.rank: 0 is not accepted (expected at least 1)"),
    (f"{TRAINING}.activation_checkpointing", "no", "'no' is not accepted (expected true or false)"),
    ("recipe.model.dtype", "float16", "'float16' is not allowed (expected one of float32, bfloat16, float64"),
    ("recipe.data.max_length", -1, "max_length: -1 is not accepted (expected at least 1)"),
    ("recipe.data.template", "chatml", "'chatml' is not allowed (expected one of alpaca)"),
    (f"{OBJECTIVE}.method", "dftt", "'dftt' is not allowed"),
    (f"{OBJECTIVE}.reading", "aligend", "'aligend' is not allowed (expected one of"),
    (f"{OBJECTIVE}.thinking.supervision", "logit", "did you mean 'logits'?"),
    (
        "study.sampler",
        "tpee",
        "'tpee' is not allowed (expected one of tpe, random, grid, nsga2, gp, cmaes;",
    ),
    ("study.budget", {"wall_clock": "8 hours"}, "'8 hours' is not a duration"),
    ("study.budget", {"trials": 0}, "study.budget.trials: 0 is not accepted (expected at least 1)"),
    ("study.rungs", [0.5, 0.25], "study.rungs: needs rising fractions"),
    ("study.rungs", [0.5, 1.0], "1.0 is not accepted (expected less than 1"),
    (
        "study.objective",
        {"maximize": "a", "minimize": "b"},
        "study.objective: needs exactly one of maximize and minimize",
    ),
    ("study.objective", {"maximize": "scroe"}, "no task yields the metric 'scroe'"),
    ("study.slots", {"workers": 0}, "study.slots.workers: 0 is not accepted (expected at least 1)"),
    ("study.confirm", {"arms": ["tftt"]}, "'tftt' is not allowed"),
    ("study.first_points", [{"training.batch_rows": 99}], "is 4 in the recipe and not in the space"),
    # layers
    (f"{OBJECTIVE}.conversion.layer", 0, "conversion.layer: 0 is not accepted (expected at least 1"),
    (f"{OBJECTIVE}.thinking.layer", 99, "thinking.layer: layer 99 is outside of the model (expected 1..4)"),
    (f"{OBJECTIVE}.thinking.layer", "150%", "'150%' is no layer"),
    (f"{OBJECTIVE}.thinking.layer", "top", "'top' is no layer"),
    (
        f"{TRAINING}.trainable",
        {"layers": [2, 9]},
        "trainable.layers: layer 9 is outside of the model (expected layers 1..4)",
    ),
    (f"{TRAINING}.trainable", {"layers": [3, 2]}, "the first is above the last"),
    (f"{TRAINING}.trainable", {"layers": [3, 4]}, "conversion at layer 1 reaches no trainable parameter"),
    # the space
    ("space", ABSENT, "the space is empty"),
    ("space", {}, "the space is empty"),
    ("space", {"objective.thinking.layr": {"int": [1, 2]}}, "unknown key of the recipe (did you mean"),
    ("space", {"objective.thinking.layer": {"int": [3, 2]}}, "the range is empty: 3 to 2"),
    ("space", {"objective.thinking.layer": {"int": [1, 99]}}, "layer 99 is outside of the model"),
    ("space", {"objective.thinking.layer": {"int": [1, "x%"]}}, "'x%' is not a percentage"),
    ("space", {"objective.thinking.layer": {"int": [1]}}, "needs two bounds, [low, high], not 1"),
    ("space", {"objective.thinking.layer": {"above": "objective.conversion.layer"}}, "needs exactly one of int, float"),
    ("space", {"objective.method": {"choice": []}}, "the list of choices is empty"),
    ("space", {"objective.method": {"choice": ["tft", "dftt"]}}, "'dftt'"),
    ("space", {"training.clip_norm": {"float": [0, 1], "log": True}}, "log needs a lower bound above 0"),
    (
        "space",
        {"training.clip_norm": {"float": [0.5, 1.0], "when": {"objective.metod": "dft"}}},
        "unknown key 'objective.metod'",
    ),
    (
        "space",
        {
            "objective.conversion.layer": {"int": [1, 3], "above": "objective.thinking.layer"},
            "objective.thinking.layer": {"int": [1, 4], "above": "objective.conversion.layer"},
        },
        "form a cycle",
    ),
    (
        "space",
        {
            "objective.conversion.layer": {"int": [1, 2], "when": {"objective.thinking.layer": [3, 4]}},
            "objective.thinking.layer": {"int": [1, 4], "above": "objective.conversion.layer"},
        },
        "'above' and 'when' form a cycle",
    ),
    ("space", {"training.clip_norm": {"eval": "1 + 1"}}, "space.training.clip_norm.eval: unknown key"),
    # data
    (FILES, ["row.jsonl"], "row.jsonl: recipe.data.train.files[0]: no such file (did you mean 'rows.jsonl'?)"),
    (FILES, ["rows.csv"], "unknown file type '.csv'"),
    (FILES, ["broken.jsonl"], "broken.jsonl:2: is not valid JSON"),
    (FILES, ["no-target.jsonl"], "no column 'tgt_instruction'"),
    (FILES, ["empty.jsonl"], "no usable row; dropped: empty_tgt_output 8"),
    (
        FILES,
        [{"english": "en.json", "target": "zh.json", "join": "index"}],
        "expected files of equal length, or join: id",
    ),
    (FILES, [{"english": "en.json", "target": "zh.json", "join": "idx"}], "'idx' is not allowed"),
    (FILES, ["${NO_SUCH_VARIABLE}/rows.jsonl"], "environment variable NO_SUCH_VARIABLE is not set"),
    (FILES, ["nobody/nothing"], "nobody/nothing: recipe.data.train.files[0]: is no"),
    (FILES, [], f"{FILES}: a list is not accepted (expected at least 1 entries)"),
    ("recipe.data.train.fields", {"tgt_output": "tgt_outptu"}, "no column 'tgt_outptu'"),
    ("recipe.data.train.fields", {"tgt_outptu": "x"}, "recipe.data.train.fields.tgt_outptu"),
    # models
    ("recipe.model.path", "./modle", "no such folder"),
    ("recipe.model.path", "rows.jsonl", "rows.jsonl' is a file (expected a folder, or org/name on the hub)"),
    ("recipe.model.path", "empty-model", "holds no config.json"),
    ("recipe.model.path", "broken-model", "cannot be read"),
    ("recipe.model.path", "gpt", "model family 'gpt2' is not supported"),
    ("recipe.model.path", "nobody/nothing", "is no folder, it is not in the local cache, and "),
    # scores
    ("recipe.scoring.dev", [{"task": "xcopa_zj"}], "unknown task 'xcopa_zj'"),
    ("recipe.scoring.dev", [{"suite": "quik"}], "unknown suite 'quik'"),
    ("recipe.scoring.dev", [{"task": "nowhere.yaml"}], "no such file"),
    ("recipe.scoring.dev", [{}], "exactly one of suite and task must be given"),
    ("recipe.scoring.dev", [{"task": "sums.yaml", "limit": 0}], "limit: 0 is not accepted"),
    ("recipe.scoring.dev", [{"task": "sums.yaml"}, {"task": "sums.yaml"}], "task 'sums' is chosen twice"),
    ("recipe.scoring.score", {"mean": ["summs"]}, "'summs' is not a metric of the dev tasks"),
    # names and URIs
    ("study.name", "My Study", "study.name: 'My Study' is not accepted (expected text that matches ^[a-z0-9-]{1,40}$)"),
    ("study.name", "../elsewhere", "study.name: '../elsewhere' is not accepted"),
]

# A whole file that is wrong.
BAD_FILES: list[tuple[bytes | None, str]] = [
    (None, "bad.yaml: no such file"),
    (b"", "bad.yaml: is empty"),
    (b"- a\n- b\n", "bad.yaml:1: is not a YAML mapping"),
    (b"study: {name: x\n", "is not valid YAML"),
    (b"study:\n\tname: x\n", "bad.yaml:2: is not valid YAML"),
    (b"study: {name: a}\nstudy: {name: b}\n", "bad.yaml:2: duplicate key study"),
    (b"\xff\xfe\x00", "bad.yaml: is not UTF-8 text"),
    (b"study: !!python/object/apply:os.system [ls]\n", "is refused"),
    (b"1: {name: x}\n", "key 1 is not text"),
]

# Whole commands. {study} is the valid study file.
BAD_COMMANDS: list[tuple[str, int, str]] = [
    ("serch {study}", 2, "No such command 'serch'. Did you mean 'search'?"),
    ("plan", 2, "Missing argument 'FILE'"),
    ("plan {study} --ofline", 2, "No such option: --ofline (Possible options: --offline)"),
    ("plan quickstrt", 2, "quickstrt: no such file, and no shipped study of that name (did you mean 'quickstart'?)"),
    ("plan .", 2, ".: is a folder (expected a YAML file)"),
    ("plan {study} --set recipe.training.clip_norm", 2, "no key and value (expected --set KEY=VALUE)"),
    ("plan {study} --set recipe.training.clip_norm.x=1", 2, "x"),
    ("plan {study} --set recipe.training.clip=1", 2, "recipe.training.clip: unknown key (did you mean 'clip_norm'?)"),
    ("plan {study} --set study.seed=[1", 2, "is not a YAML value"),
    ("search {study} --name Bad_Name", 2, "study.name: 'Bad_Name' is not accepted"),
    ("search {study} --set study.tracking.uri=redis://host/0", 2, "MLflow has no store for 'redis:'"),
    (
        'search {study} --set study.tracking.uri="sqlite:///:memory:"',
        2,
        "a database in memory is lost with the process",
    ),
    ("search {study} --set study.tracking.uri=http://me:hunter2@", 2, "names no host"),
    ("submit {study}", 2, "Missing option '--address'"),
    ("submit {study} --address localhost:8265", 2, "not the URL of a Ray dashboard (expected http://HOST:8265)"),
    ("submit {study} --address http://127.0.0.1:1", 1, "no Ray dashboard answers at http://127.0.0.1:1"),
    ("status nothing", 2, "no study 'nothing'"),
    ("status ../other", 2, "'../other' is not a study's name"),
    ("report nothing", 2, "no study 'nothing'"),
    ("resume nothing", 2, "no study 'nothing'"),
    ("stop nothing", 2, "no study 'nothing'"),
    ("export nothing --out bundle", 2, "no study 'nothing'"),
    ("export nothing", 2, "Missing option '--out'"),
    ("export nothing --out bundle --trial x", 2, "Invalid value for '--trial'"),
    ("verify nothing", 2, "nothing"),
    ("verify model", 2, "model"),
    ("train nothing.yaml", 2, "nothing.yaml: no such file"),
    ("train {study} --set recipe.training.length.epochs=1", 2, "needs exactly one of epochs, steps, tokens"),
    ("data show nothing.yaml", 2, "nothing.yaml: no such file"),
    ("data show {study} --rows -1", 2, "Invalid value for '--rows'"),
    ("schema studdy", 2, "'studdy' is not one of 'study', 'recipe', 'bundle'"),
    ("init new.yaml --from quickstrt", 2, "no shipped study 'quickstrt'"),
    ("init {study} --from quickstart", 2, "exists already; it is left as it is"),
    ("init nowhere/new.yaml --from quickstart", 2, "no folder nowhere"),
]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def write(study: dict[str, Any]) -> str:
    YAML(typ="safe").dump(study, Path("study.yaml"))
    return "study.yaml"


def refused(result: Result, code: int, fragment: str) -> None:
    """One line on standard error says ``fragment``; nothing on standard output, no traceback."""
    lines = result.stderr.splitlines()
    assert result.exit_code == code, (result.exception, lines)
    assert [line for line in lines if line.startswith("error: ") and fragment in line], (fragment, lines)
    assert "Traceback" not in result.stderr


def test_the_study_itself_is_valid(study: dict[str, Any]) -> None:
    result = run("plan", write(study), "--offline", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["problems"] == []


@pytest.mark.parametrize(("key", "value", "fragment"), BAD_KEYS, ids=[f"{k}-{f}"[:70] for k, _, f in BAD_KEYS])
def test_a_wrong_key(study: dict[str, Any], key: str, value: Any, fragment: str) -> None:
    study = copy.deepcopy(study)
    if value is ABSENT:
        *parents, last = key.split(".")
        section = study
        for parent in parents:
            section = section[parent]
        del section[last]
    else:
        set_key(study, key, value)
    refused(run("plan", write(study)), 2, fragment)


@pytest.mark.parametrize(("content", "fragment"), BAD_FILES, ids=[fragment for _, fragment in BAD_FILES])
def test_a_wrong_file(study: dict[str, Any], content: bytes | None, fragment: str) -> None:
    if content is not None:
        Path("bad.yaml").write_bytes(content)
    refused(run("plan", "bad.yaml"), 2, fragment)


@pytest.mark.parametrize(("command", "code", "fragment"), BAD_COMMANDS, ids=[command for command, _, _ in BAD_COMMANDS])
def test_a_wrong_command(study: dict[str, Any], command: str, code: int, fragment: str) -> None:
    refused(run(*command.format(study=write(study)).split()), code, fragment)


def test_every_mistake_is_told_at_once_with_its_line(study: dict[str, Any]) -> None:
    study["recipe"]["training"]["batch_rows"] = "many"
    study["recipe"]["model"]["dtype"] = "int4"
    study["study"]["sampler"] = "magic"
    result = run("plan", write(study))
    lines = result.stderr.splitlines()
    assert len(lines) == 3
    text = Path("study.yaml").read_text().splitlines()
    for word in ("many", "int4", "magic"):
        number = next(n for n, line in enumerate(text, 1) if word in line)
        assert any(f"study.yaml:{number}: " in line and word in line for line in lines)


def test_json_tells_the_same_problems(study: dict[str, Any]) -> None:
    study["study"]["sampler"] = "tpee"
    result = run("plan", write(study), "--json")
    assert result.exit_code == 2
    document = json.loads(result.stdout)
    assert (document["valid"], document["fits"]) == (False, False)
    (problem,) = document["problems"]
    assert problem["key"] == "study.sampler"
    assert problem["nearest"] == "tpe"


def test_no_secret_is_repeated(study: dict[str, Any]) -> None:
    for command in (
        "search {study} --set study.tracking.uri=ftp://me:hunter2@host",
        "submit {study} --address ftp://me:hunter2@h",
    ):
        result = run(*command.format(study=write(study)).split())
        assert result.exit_code == 2
        assert "hunter2" not in result.output


def test_an_existing_study_names_both_ways_out(study: dict[str, Any], home: Path) -> None:
    (home / "studies" / "tiny").mkdir(parents=True)
    (home / "studies" / "tiny" / "study.yaml").write_text(Path(write(study)).read_text())
    result = run("search", "study.yaml")
    assert result.exit_code == 2
    assert "--resume" in result.stderr and "--name" in result.stderr
    assert "did you mean 'tiny'" in run("status", "tinny").stderr
