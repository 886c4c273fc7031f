"""Every mistake in files and columns is one clear line, with the place."""

import pytest

from dft_search.config import RequestError, build, parse_document
from dft_search.data.needs import PARALLEL, TARGET, TEXT
from dft_search.data.options import DataOptions, FileJoin, HubSet, TrainOptions, anchor_files, looks_like_hub_name
from dft_search.data.rows import read_rows

KEY = "recipe.data.train"


def problem(*files, needs=PARALLEL, fields=None):
    """The one problem of a request."""
    with pytest.raises(RequestError) as caught:
        read_rows(TrainOptions(files=list(files), fields=fields), needs=needs)
    assert len(caught.value.problems) == 1, str(caught.value)
    return caught.value.problems[0]


def test_missing_file_names_the_nearest(write, records, tmp_path):
    write("rows.jsonl", records)
    found = problem(str(tmp_path / "row.jsonl"))
    assert found.message == "no such file" and found.nearest == "rows.jsonl" and found.key == f"{KEY}.files[0]"
    assert found.file == str(tmp_path / "row.jsonl")
    assert problem(str(tmp_path / "none" / "x.json")).message == "no such file"


def test_a_missing_file_is_no_hub_name():
    assert problem("data/train.jsonl").message == "no such file"
    assert not looks_like_hub_name("data/train.parquet") and not looks_like_hub_name("/abs/path")
    assert looks_like_hub_name("tatsu-lab/alpaca") and not looks_like_hub_name("./org/name")


def test_unset_variable():
    assert "NO_SUCH_VARIABLE" in problem("${NO_SUCH_VARIABLE}/a.jsonl").message


def test_unknown_type(write):
    found = problem(write("rows.csv", "a,b"))
    assert "'.csv'" in found.message and ".jsonl" in found.expected


def test_folder_in_a_join(tmp_path, write, records):
    pair = FileJoin(english=str(tmp_path), target=write("a.json", records))
    found = problem(pair)
    assert found.message == "is a folder" and found.key == f"{KEY}.files[0].english"


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize("content", ["", "\n\n"])
def test_empty_file(name, content, write):
    assert problem(write(name, content)).message == "holds no rows"


def test_empty_list(write):
    assert problem(write("a.json", " [ ] ")).message == "holds no rows"


@pytest.mark.parametrize(
    ("name", "content", "line", "text"),
    [
        ("a.jsonl", '{"id": "1"}\n\n{"id": \n', 3, "not valid JSON"),
        ("a.jsonl", '{"id": "1"}\n[1]\n', 2, "a row is a list"),
        ("a.jsonl", "[" * 100_000 + "\n", 1, "nested too deeply"),
        ("a.json", '[\n{"id": "1"},\n{"id" 2}\n]', 3, "not valid JSON"),
        ("a.json", '[\n{"id": "1"}\n\n{"id": "2"}]', 4, "does not go on"),
        ("a.json", '[\n{"id": "1"},\n"x"]', 3, "a row is a str"),
        ("a.json", '[\n{"id": "1"},\n]', 3, "not valid JSON"),
        ("a.json", '[\n{"id": "1"}\n', 2, "does not go on"),
        ("a.json", '[\n{"id": "1"}\n]\n\nmore', 5, "after the end"),
        ("a.json", '{\n"rows": []}', 1, "not valid JSON"),
        ("a.jsonl", b'{"id": "1"}\n{"id": "\xff"}\n', 2, "not UTF-8"),
    ],
)
def test_broken_json_names_the_line(name, content, line, text, write):
    fields = {"text": "id"}
    path = write(name, content)
    found = problem(path, needs=TEXT, fields=fields)
    assert text in found.message and found.line == line and found.file == path


def test_broken_parquet(write):
    assert "not a Parquet file" in problem(write("a.parquet", "nothing")).message


def test_missing_columns_all_at_once_with_the_nearest(write, records):
    wrong = [{"inst_en": row["en_instruction"], "tgt_instructions": "x", "en_output": "y"} for row in records]
    for name in ("a.jsonl", "a.parquet"):
        with pytest.raises(RequestError) as caught:
            read_rows(TrainOptions(files=[write(name, wrong)]), needs=PARALLEL)
        found = caught.value.problems
        assert [p.message.rpartition(" ")[2] for p in found] == ["en_instruction", "tgt_instruction", "tgt_output"]
        assert found[1].nearest == "tgt_instructions" and found[0].key == f"{KEY}.fields"
        assert "inst_en, tgt_instructions, en_output" in found[0].expected


def test_mapped_column_that_is_not_there(write, records):
    for name in ("a.jsonl", "a.parquet"):
        found = problem(write(name, records), fields={"en_output": "en_outptu"})
        assert found.message == "no column 'en_outptu'" and found.nearest == "en_output"
        assert found.key == f"{KEY}.fields.en_output"
        for optional in ("id", "en_input"):
            found = problem(write(name, records), fields={optional: "nowhere"})
            assert found.message == "no column 'nowhere'" and found.key == f"{KEY}.fields.{optional}"


def test_mapped_text_column_that_is_not_there(write, records):
    assert problem(write("a.jsonl", records), needs=TEXT, fields={"text": "body"}).key == f"{KEY}.fields.text"


def test_inputs_on_one_side_alone_are_a_slip(write, records):
    for row in records:
        row["en_inptu"] = row.pop("en_input")
    assert problem(write("a.jsonl", records)).nearest == "en_inptu"


def test_plain_text_for_another_method(write):
    found = problem(write("a.txt", "text\n"), needs=TARGET)
    assert "reads the target language" in found.message and "method lm" in found.expected


@pytest.mark.parametrize(("value", "kind"), [(5, "int"), (["a"], "list"), ({"a": 1}, "dict"), (True, "bool")])
def test_values_that_are_no_text_name_the_line(value, kind, write, records):
    records[2]["tgt_output"] = value
    path = write("a.jsonl", records)
    found = problem(path)
    assert found.message == f"'tgt_output' is a {kind}" and (found.file, found.line) == (path, 3)
    assert found.expected == "text"
    found = problem(write("a.json", records))
    assert found.message == f"'tgt_output' is a {kind}" and found.line == 2 + 2 * 9  # an object has 9 lines there


def test_values_that_are_no_text_in_parquet_name_the_row(write, records):
    for row in records:
        row["tgt_output"] = 3
    assert problem(write("a.parquet", records)).message == "row 1: 'tgt_output' is a int"


def test_id_of_another_type(write, records):
    records[1]["id"] = 1.5
    found = problem(write("a.jsonl", records))
    assert found.message == "id is a float" and found.line == 2


def test_half_of_a_character(write, records):
    records[1]["en_output"] = "PLACE"
    lines = open(write("a.jsonl", records)).read().replace("PLACE", "\\ud83d")
    found = problem(write("b.jsonl", lines))
    assert "half of a character" in found.message and found.line == 2


def test_row_without_a_column_that_the_others_have(write, records):
    del records[3]["en_output"]
    found = problem(write("a.jsonl", records))
    assert found.message == "the row has no 'en_output'" and found.line == 4


def alpaca(count, **changes):
    return [{"id": f"{k}", "instruction": "i", "input": "", "output": "o", **changes} for k in range(count)]


@pytest.mark.parametrize(("english", "target", "shorter"), [(3, 5, "en.json"), (5, 3, "zh.json")])
def test_join_of_unequal_length(english, target, shorter, write):
    pair = FileJoin(english=write("en.json", alpaca(english)), target=write("zh.json", alpaca(target)))
    found = problem(pair)
    assert found.message.startswith("has 3 rows, but") and found.file.endswith(shorter) and "join: id" in found.expected


def test_join_by_index_of_unequal_ids(write):
    target = alpaca(3)
    target[1]["id"] = "9"
    pair = FileJoin(english=write("en.jsonl", alpaca(3)), target=write("zh.jsonl", target))
    found = problem(pair)
    assert "id '9' meets id '1'" in found.message and found.line == 2 and found.file.endswith("zh.jsonl")


def test_join_by_id_needs_ids_that_occur_once(write):
    twice = alpaca(3)
    twice[2]["id"] = "0"
    good = write("en.jsonl", alpaca(3))
    found = problem(FileJoin(english=good, target=write("zh.jsonl", twice), join="id"))
    assert found.message == "id '0' is already that of line 1" and found.line == 3
    twice[2]["id"] = None
    found = problem(FileJoin(english=good, target=write("zh.jsonl", twice), join="id"))
    assert found.message == "has no id to join by" and found.line == 3
    bare = [{"ids": "1", "instruction": "i", "output": "o"}]
    found = problem(FileJoin(english=good, target=write("zh.jsonl", bare), join="id"))
    assert found.message == "no column 'id' to join by" and "join: index" in found.expected


def test_join_of_a_missing_file_or_column(write):
    good = write("en.jsonl", alpaca(3))
    assert problem(FileJoin(english=good, target=good + "l")).key == f"{KEY}.files[0].target"
    found = problem(FileJoin(english=good, target=write("zh.jsonl", [{"id": "1", "instruct": "i", "output": "o"}])))
    assert found.message == "no column 'instruction' for tgt_instruction" and found.nearest == "instruct"


def test_folder_that_datasets_cannot_load(tmp_path, write, records):
    (tmp_path / "empty").mkdir()
    assert "cannot be loaded" in problem(str(tmp_path / "empty")).message
    (tmp_path / "set").mkdir()
    write("set/train.jsonl", records)
    (tmp_path / "broken").mkdir()
    write("broken/train.parquet", "nothing")
    assert "Parquet" in problem(str(tmp_path / "broken")).message
    found = problem(HubSet(hub=str(tmp_path / "set"), split="trian"))
    assert found.message == "no split 'trian'" and found.nearest == "train"
    assert problem(HubSet(hub=str(tmp_path / "nowhere" / "deep"))).message == "no such folder"


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ("train: {files: []}", "train.files", "not accepted"),
        ("train: {}", "train.files", "required"),
        ("train: {files: [3]}", "train.files[0]", "not accepted"),
        ("train: {files: [{english: a.json, targt: b.json}]}", "train.files[0].targt", "unknown key"),
        ("train: {files: [{english: a.json, target: b.json, join: ids}]}", "train.files[0].join", "not allowed"),
        ("train: {files: [{hub: a/b, spilt: x}]}", "train.files[0].spilt", "unknown key"),
        ("train: {files: [a.json], fields: {en_outptu: x}}", "train.fields.en_outptu", "not allowed"),
        ("train: {files: [a.json], fields: {en_output: ''}}", "train.fields.en_output", "not accepted"),
        ("train: {files: [a.json]}\nmax_length: 0", "max_length", "not accepted"),
        ("train: {files: [a.json]}\ntemplate: chat", "template", "not allowed"),
        ("train: {files: [a.json]}\ntarget_language: ../zh", "target_language", "not accepted"),
    ],
)
def test_options_refuse(text, key, message):
    if "target_language" not in text:
        text += "\ntarget_language: zh"
    with pytest.raises(RequestError) as caught:
        build(DataOptions, parse_document(text, "study.yaml"))
    assert any(p.key == key and message in p.message for p in caught.value.problems), str(caught.value)


def test_options_accept_every_kind_of_entry():
    text = """
train:
  files: [a.jsonl, {english: a.json, target: b.json, join: id}, {hub: org/name, split: train, revision: null}]
  fields: {en_output: output_en}
target_language: zh
"""
    options = build(DataOptions, parse_document(text, "study.yaml"))
    assert [type(entry) for entry in options.train.files] == [str, FileJoin, HubSet]
    assert (options.template, options.max_length) == ("alpaca", 512)


def test_anchored_files(tmp_path):
    files = ["a.jsonl", "${X}/b.jsonl", "/abs/c.json", "org/name", "package:demo/d.json"]
    files += [FileJoin(english="e.json", target="/t.json"), HubSet(hub="org/name"), HubSet(hub="./set")]
    base = str(tmp_path)
    assert anchor_files(TrainOptions(files=files), tmp_path).files == [
        f"{base}/a.jsonl", "${X}/b.jsonl", "/abs/c.json", "org/name", "package:demo/d.json",
        FileJoin(english=f"{base}/e.json", target="/t.json"), HubSet(hub="org/name"), HubSet(hub=f"{base}/set"),
    ]  # fmt: skip
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert anchor_files(TrainOptions(files=["org/name"]), tmp_path).files == [f"{base}/org/name"]
