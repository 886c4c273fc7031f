"""`data join`: two files made one, by index, id, English text or by what survives translation."""

import json
import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dft_search.cli.app import app
from dft_search.data.alignment import align
from dft_search.data.pairing import match_texts

PARTS = ("instruction", "input", "output")


def side(row: dict[str, str], name: str, **more: str) -> dict[str, str]:
    return {"id": row["id"], **{part: row[f"{name}_{part}"] for part in PARTS}, **more}


def run(*arguments: object, code: int = 0):
    result = CliRunner().invoke(app, ["data", "join", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def without(row: dict, *names: str) -> dict:
    return {name: value for name, value in row.items() if name not in names}


def test_by_index_and_by_id(write, records, tmp_path):
    english = write("en.json", [side(row, "en") for row in records])
    target = write("zh.jsonl", [side(row, "tgt") for row in records])
    run(english, target, "--out", tmp_path / "rows.jsonl")
    assert lines(tmp_path / "rows.jsonl") == records
    renamed = [side(row, "tgt") for row in records[1:][::-1]] + [side(records[0], "tgt") | {"id": "r00"}]
    some = write("some.json", renamed)
    told = json.loads(run(english, some, "--by", "id", "--out", tmp_path / "by_id.jsonl", "--json").stdout)
    assert lines(tmp_path / "by_id.jsonl") == records[1:]
    assert told["joined"] == 5 and told["by"] == {"id": 5}
    assert told["english_left"] == [{"id": "r0", "near": [{"id": "r00"}]}]
    assert told["target_left"] == [{"id": "r00", "near": [{"id": "r0"}]}]


def test_columns_are_mapped_and_one_side_of_parallel_rows_is_taken(write, records, tmp_path):
    english = write("en.jsonl", [{"q": row["en_instruction"], "a": row["en_output"]} for row in records])
    both = write("both.jsonl", records)
    run(english, both, "--out", tmp_path / "rows.jsonl", "--field", "en_instruction=q", "--field", "en_output=a")
    assert lines(tmp_path / "rows.jsonl") == [row | {"en_input": ""} for row in records]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--field", "en_outptu=a"], "did you mean 'en_output'?"),
        (["--field", "en_output"], "NAME=COLUMN"),
        (["--field", "en_output=outptu"], "did you mean 'output'?"),
        (["--by", "fuzzy", "--match", "instrction"], "did you mean 'instruction'?"),
        (["--match", "instruction"], "expected --by fuzzy"),
        (["--out", "there.jsonl"], "--out: exists (expected a new file, or --replace)"),
        (["--out", "en.json", "--replace"], "is no name for rows"),
        (["--out", "zh.jsonl", "--replace"], "is one of the files that are read"),
    ],
)
def test_a_wrong_request_says_what_is_wrong_and_writes_nothing(write, records, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    write("en.json", [side(row, "en") for row in records])
    write("zh.jsonl", [side(row, "tgt") for row in records])
    write("there.jsonl", "old\n")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    given = arguments if "--out" in arguments else [*arguments, "--out", "new.jsonl"]
    assert said in run("en.json", "zh.jsonl", *given, code=2).stderr
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_similar_texts_are_paired_and_doubtful_ones_told():
    english = ["Name three animals that live in a forest.", "Name 3 animals that live in the sea.",
               "Translate this sentence to French.", "Say hello.", "Say hello.",
               "Explain how photosynthesis works in green plants.",
               "Describe the process of baking a loaf of bread at home."]  # fmt: skip
    target = ["Explain how photosynthesis works in the green plants", "name three animals that live in a  forest.",
              "Name 4 animals that live in the sea.", "Say hello.", "Who painted the Mona Lisa?"]  # fmt: skip
    found = match_texts(english, target)
    assert {(match.english, match.target, match.by) for match in found.matches} == {(5, 0, "similar"), (0, 1, "text")}
    assert found.unclear[2] == ("the texts name different numbers", found.unclear[2][1])
    assert found.unclear[2][1][0][0] == 1
    assert found.unclear[3] == ("2 English and 1 target rows have this text", [(3, 1.0), (4, 1.0)])
    assert set(found.near) == {4}


@pytest.fixture
def real(data_folder: Path) -> list[dict[str, str]]:
    """Rows of Alpaca in English and Chinese."""
    return lines(data_folder / "train" / "alpaca_en_zh.dev.jsonl")


def perturbed(text: str, draw: random.Random) -> str:
    """As another edition of the same data may have it: case, spaces, a dropped word, a typo."""
    words = text.split(" ")
    if len(words) > 6:
        del words[draw.randrange(len(words))]
    place = draw.randrange(len(words))
    words[place] = words[place][::-1] if len(words[place]) < 4 else words[place][:2] + words[place][3:]
    return "  ".join(words).rstrip(".").lower()


def test_real_rows_shuffled_and_perturbed_are_recovered_by_their_english(real, write, tmp_path):
    draw = random.Random(0)
    target = [
        without(side(row, "tgt"), "id") | {"src": perturbed(row["en_instruction"], draw), "src_input": row["en_input"]}
        for row in real
    ]
    draw.shuffle(target)
    english = [side(row, "en") for row in real]
    paths = write("en.json", english[: len(english) * 9 // 10]), write("zh.jsonl", target)  # a tenth has no partner
    out = tmp_path / "rows.jsonl"
    arguments = ("--by", "fuzzy", "--match", "src", "--match", "src_input", "--out", out, "--json")
    told = json.loads(run(*paths, *arguments).stdout)
    right = {row["id"]: row for row in real}
    joined = lines(out)
    wrong = [row["id"] for row in joined if row["tgt_output"] != right[row["id"]]["tgt_output"]]
    assert len(joined) >= 0.95 * 0.9 * len(real) and wrong == []
    assert told["joined"] + len(told["unclear"]) + len(told["target_left"]) == len(target)
    assert told["joined"] + len(told["english_left"]) == len(english) * 9 // 10
    assert all(row["joined_by"] in ("text", "similar") and 0.6 <= row["join_score"] <= 1 for row in joined)


def texts(rows: list[dict[str, str]], name: str) -> list[tuple[str, str]]:
    return [(f"{row[f'{name}_instruction']}\n{row[f'{name}_input']}", row[f"{name}_output"]) for row in rows]


def test_real_rows_without_english_are_aligned_where_they_keep_their_order(real):
    draw = random.Random(1)
    english = [number for number in range(len(real)) if draw.random() > 0.05]
    target = [number for number in range(len(real)) if draw.random() > 0.05]
    found = align(texts([real[n] for n in english], "en"), texts([real[n] for n in target], "tgt"))
    pairs = [(english[match.english], target[match.target]) for match in found.matches]
    both = set(english) & set(target)
    right = [pair for pair in pairs if pair[0] == pair[1]]
    assert len(right) >= 0.7 * len(both)
    assert len(right) >= 0.98 * len(pairs)
    assert {match.by for match in found.matches} == {"anchors", "order"}


def test_shuffled_rows_without_english_are_joined_only_where_it_is_sure(real):
    order = list(range(len(real)))
    random.Random(2).shuffle(order)
    found = align(texts(real, "en"), texts([real[n] for n in order], "tgt"))
    right = [match for match in found.matches if match.english == order[match.target]]
    assert {match.by for match in found.matches} == {"anchors"}
    assert len(right) >= 0.05 * len(real) and len(right) >= 0.97 * len(found.matches)
