"""`data split`: parts of which none knows anything of another, by the leak finder of `data check` too."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dft_search.cli.app import app
from dft_search.data.row import Row
from dft_search.evaluation.leaks import leaks
from tests.evaluation.test_leaks import scoring_on, write_task

PARTS = ("train", "dev", "test")


def run(*arguments: object, code: int = 0):
    result = CliRunner().invoke(app, ["data", "split", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def ids(folder: Path, stem: str) -> dict[str, set[str]]:
    return {part: {row["id"] for row in lines(folder / f"{stem}.{part}.jsonl")} for part in PARTS}


def rows(count: int, language: str = "zh", first: int = 0) -> list[dict]:
    """Rows that share nothing but what a test adds."""
    return [
        {
            "id": f"r{n}",
            "lang": language,
            "en_instruction": " ".join(f"w{n}x{k}" for k in range(10)),
            "en_output": " ".join(f"o{n}x{k}" for k in range(10)),
            "tgt_instruction": " ".join(f"{language}{n}x{k}" for k in range(10)),
            "tgt_output": " ".join(f"{language}{n}y{k}" for k in range(10)),
            "document": f"d{n // 4}",
        }
        for n in range(first, first + count)
    ]


def test_two_languages_are_split_alike_and_records_stay_as_they_are(write, tmp_path):
    zh, vi = rows(100), rows(60, "vi", first=30)
    files = write("zh.jsonl", zh), write("vi.jsonl", vi)
    told = json.loads(run(*files, "--out", tmp_path / "a", "--dev", 10, "--test", 0.1, "--json").stdout)
    parts = {stem: ids(tmp_path / "a", stem) for stem in ("zh", "vi")}
    for one, other in (("train", "dev"), ("train", "test"), ("dev", "test")):
        assert not (parts["zh"][one] | parts["vi"][one]) & (parts["zh"][other] | parts["vi"][other])
    assert {part: entry["ids"] for part, entry in told["parts"].items()} == {"train": 80, "dev": 10, "test": 10}
    assert sorted((row for part in PARTS for row in lines(tmp_path / "a" / f"zh.{part}.jsonl")),
                  key=lambda row: int(row["id"][1:])) == zh  # fmt: skip
    shuffled = write("zh.jsonl", zh[::-1]), files[1]  # the order of rows means nothing
    run(*shuffled, "--out", tmp_path / "b", "--dev", 10, "--test", 0.1)
    assert ids(tmp_path / "b", "zh") == parts["zh"]
    run(*files, "--out", tmp_path / "c", "--dev", 10, "--test", 0.1, "--seed", 1)
    assert ids(tmp_path / "c", "zh")["test"] != parts["zh"]["test"]


@pytest.mark.parametrize("how", ["prompt", "near", "answer", "whole", "group"])
def test_rows_that_belong_together_stay_together(how, write, tmp_path):
    given = rows(40)
    for n in range(0, 40, 2):
        one, other = given[n], given[n + 1]
        if how == "prompt":
            other["tgt_instruction"] = one["tgt_instruction"].upper() + "!"
        elif how == "near":
            other["en_instruction"] = "Please: " + one["en_instruction"] + " thanks"
        elif how == "answer":
            other["en_output"] = one["en_output"]
        elif how == "whole":  # seen by the leak finder alone
            other["tgt_output"] += f" {one['tgt_instruction']} {one['tgt_output']}"
    options = ["--group", "document"] if how == "group" else []
    told = json.loads(
        run(write("zh.jsonl", given), "--out", tmp_path, "--dev", 10, "--test", 10, *options, "--json").stdout
    )
    homes = {identity: part for part, found in ids(tmp_path, "zh").items() for identity in found}
    together = 4 if how == "group" else 2
    if how != "whole":
        assert told["clusters"] == 40 // together
        assert homes["r0"] == homes["r1"]
    for identity, part in homes.items():
        first = int(identity[1:]) // together * together
        # where one holds the whole of the other, it is the one that is held out that must not be found elsewhere
        if part != "train" and (how != "whole" or int(identity[1:]) == first):
            assert {homes[f"r{first + k}"] for k in range(together)} == {part}


def test_real_rows_of_two_languages_leak_nothing(data_folder, tmp_path):
    files = [data_folder / "train" / f"alpaca_en_{language}.dev.jsonl" for language in ("zh", "vi")]
    told = json.loads(run(*files, "--out", tmp_path, "--dev", 60, "--test", 60, "--json").stdout)
    assert [told["parts"][part]["ids"] for part in ("dev", "test")] == [60, 60]
    names = Row.__dataclass_fields__.keys()
    for file in files:
        parts = {part: lines(tmp_path / f"{file.stem}.{part}.jsonl") for part in PARTS}
        assert sum(map(len, parts.values())) == len(lines(file))
        for side in ("en", "tgt"):
            questions = {
                part: [f"{row[f'{side}_instruction']} {row[f'{side}_input']}" for row in parts[home]]
                for part, home in (("steer", "dev"), ("test", "test"))
            }
            scoring = scoring_on(write_task(tmp_path, f"{file.stem}_{side}".replace(".", "_"), questions))
            train = [Row(**{k: v for k, v in row.items() if k in names}) for row in parts["train"]]
            assert leaks(train, scoring) == ([], [])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--dev", 3.5], "--dev: 3.5 is no size"),
        (["--dev", "inf"], "--dev: inf is no size"),
        (["--dev", 30, "--test", 10], "leave none for train"),
        (["--group", "documnt"], "did you mean 'document'?"),
        (["--field", "en_output=answer"], "no column 'answer'"),
    ],
)
def test_a_wrong_request_is_refused(arguments, said, write, tmp_path):
    file = write("zh.jsonl", rows(40))
    assert said in run(file, "--out", tmp_path / "out", *arguments, code=2).stderr
    assert not (tmp_path / "out").exists()


def test_parts_that_exist_are_not_replaced_unasked(write, tmp_path):
    file = write("zh.jsonl", rows(40))
    run(file, "--out", tmp_path, "--dev", 2, "--test", 2)
    assert "--replace" in run(file, "--out", tmp_path, "--dev", 2, "--test", 2, code=2).stderr
    run(file, "--out", tmp_path, "--dev", 2, "--test", 2, "--replace")
