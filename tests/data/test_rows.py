"""Rows from every kind of file: same content, same rows; dropped rows counted; fingerprints."""

from dataclasses import replace

import pytest

from dft_search.config import RequestError
from dft_search.data.needs import ENGLISH, PARALLEL, TARGET, TEXT
from dft_search.data.options import FileJoin, HubSet, TrainOptions
from dft_search.data.row import Row
from dft_search.data.rows import fingerprint, read_rows
from dft_search.data.template import render_prompt


def read(*files, needs=PARALLEL, fields=None):
    return read_rows(TrainOptions(files=list(files), fields=fields), needs=needs)


def sides(records):
    """The two files of the Alpaca layout."""
    return [
        [{key.partition("_")[2] or key: text for key, text in row.items() if key == "id" or key.startswith(side)}
         for row in records]
        for side in ("en", "tgt")
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows.ndjson", "rows.parquet"])
def test_formats_hold_the_same_rows(name, write, records, row_list):
    assert read(write(name, records)).rows == row_list


def test_json_lines_in_a_json_file_and_a_byte_order_mark(write, records, row_list):
    lines = open(write("rows.jsonl", records), "rb").read()
    assert read(write("lines.json", b"\xef\xbb\xbf" + lines)).rows == row_list
    assert read(write("windows.jsonl", lines.replace(b"\n", b"\r\n") + b"\r\n")).rows == row_list


def test_folder_read_by_datasets(write, records, row_list, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "set").mkdir()
    write("set/train.jsonl", records[:4])
    write("set/test.jsonl", records[4:])
    folder = str(tmp_path / "set")
    assert read(folder).rows == row_list[:4]
    assert read(HubSet(hub=folder, split="test")).rows == row_list[4:]


def test_variables_in_paths(write, records, row_list, tmp_path, monkeypatch):
    write("rows.jsonl", records)
    monkeypatch.setenv("ROWS_FOLDER", str(tmp_path))
    assert read("${ROWS_FOLDER}/rows.jsonl").rows == row_list


def test_several_files_follow_each_other(write, records, row_list):
    assert read(write("b.json", records[3:]), write("a.jsonl", records[:3])).rows == row_list[3:] + row_list[:3]


def test_mapped_columns(write, records, row_list):
    renamed = [{f"my_{key}": text for key, text in row.items()} for row in records]
    fields = {key: f"my_{key}" for key in records[0]}
    for name in ("rows.jsonl", "rows.parquet"):
        assert read(write(name, renamed), fields=fields).rows == row_list


def test_text_is_kept_as_it_is(write, records):
    odd = " e\u0301 \u2028 \u00a0\tline\r\nend \ufeff"  # not NFC, a line separator, spaces at both ends
    records[0]["en_output"] = odd
    for name in ("rows.json", "rows.jsonl", "rows.parquet"):
        assert read(write(name, records)).rows[0].en_output == odd


def test_ids_are_text_integers_or_the_place_in_the_file(write, records):
    for index, row in enumerate(records):
        row["id"] = index + 10
    assert [row.id for row in read(write("rows.json", records)).rows] == ["10", "11", "12", "13", "14", "15"]
    for row in records:
        del row["id"]
    assert [row.id for row in read(write("rows.json", records)).rows][:2] == ["rows:0", "rows:1"]


def test_rows_empty_on_a_side_are_dropped_by_reason(write, records, row_list):
    records[0]["en_output"] = ""
    records[1]["tgt_instruction"] = " \n"
    records[2]["tgt_output"] = None
    records[3]["en_input"] = None
    path = write("rows.jsonl", records)
    both = read(path)
    assert [row.id for row in both.rows] == ["r3", "r4", "r5"]
    assert both.rows[0].en_input == ""
    assert both.dropped == {"empty_en_output": 1, "empty_tgt_instruction": 1, "empty_tgt_output": 1}
    for needs in (TARGET, ENGLISH):  # all methods train on the same rows, so that they can be compared
        assert read(path, needs=needs) == both


def test_a_method_needs_its_side_alone(write, records, row_list):
    english = [{key: text for key, text in row.items() if not key.startswith("tgt")} for row in records]
    target = [{key: text for key, text in row.items() if not key.startswith("en")} for row in records]
    assert read(write("en.jsonl", english), needs=ENGLISH).rows == [Row(**row) for row in english]
    assert read(write("tgt.jsonl", target), needs=TARGET).rows == [Row(**row) for row in target]
    assert read(write("both.jsonl", records), needs=TARGET).rows == row_list
    with pytest.raises(RequestError, match="no column 'tgt_instruction'"):
        read(write("en.jsonl", english), needs=TARGET)


def test_join_by_index_with_and_without_ids(write, records, row_list):
    english, target = sides(records)
    pair = FileJoin(english=write("en.json", english), target=write("zh.json", target))
    assert read(pair).rows == row_list
    for row in english + target:
        del row["id"]
    pair = FileJoin(english=write("en.json", english), target=write("zh.jsonl", target))
    assert read(pair).rows == [replace(row, id=f"en:{k}") for k, row in enumerate(row_list)]


def test_join_by_id_in_english_order(write, records, row_list):
    english, target = sides(records)
    pair = FileJoin(english=write("en.json", english[1:]), target=write("zh.parquet", target[::-1][1:]), join="id")
    both = read(pair)
    assert both.rows == row_list[1:5]
    assert both.dropped == {"no_tgt_row": 1, "no_en_row": 1}
    assert read(pair, needs=TARGET) == read(pair, needs=ENGLISH) == both


def test_join_with_mapped_columns(write, records, row_list):
    english, target = sides(records)
    target = [{"nr": row["id"], "frage": row["instruction"], **row} for row in target]
    for row in target:
        del row["instruction"]
    for row in english:
        row["nr"] = row.pop("id")
    pair = FileJoin(english=write("en.json", english), target=write("zh.json", target), join="id")
    assert read(pair, fields={"id": "nr", "tgt_instruction": "frage"}).rows == row_list


def test_plain_text_lines(write):
    rows = read(write("a.txt", "one\n\n two \r\nthree"), needs=TEXT)
    assert [row.text for row in rows.rows] == ["one", " two ", "three"]
    assert rows.dropped == {"empty_text": 1}


def test_text_column_comes_first_for_plain_language_modelling(write, records):
    with_text = [{**row, "text": f"text {row['id']}"} for row in records]
    assert [row.text for row in read(write("rows.jsonl", with_text), needs=TEXT).rows][:2] == ["text r0", "text r1"]
    body = [{"body": "b"}]
    assert read(write("rows.parquet", body), needs=TEXT, fields={"text": "body"}).rows[0].text == "b"


def test_english_side_as_plain_text(write, records, row_list):
    records[1]["en_output"] = ""
    kept = [row for row in row_list if row.id != "r1"]
    expected = [render_prompt(row.en_instruction, row.en_input).text + row.en_output for row in kept]
    english, target = sides(records)
    pair = FileJoin(english=write("en.json", english), target=write("zh.json", target))
    for entry in (write("rows.jsonl", records), pair):
        rows = read(entry, needs=TEXT)
        assert [row.text for row in rows.rows] == expected
        assert rows.dropped == {"empty_en_output": 1}


def test_fingerprint_changes_with_any_change(row_list):
    first = fingerprint(row_list)
    assert len(first) == 16 and int(first, 16) >= 0
    assert first == fingerprint(list(row_list))
    others = {fingerprint(row_list[::-1]), fingerprint(row_list[:-1]), fingerprint([])}
    for name in ("id", "en_instruction", "en_input", "en_output", "tgt_instruction", "tgt_input", "tgt_output"):
        changed = replace(row_list[1], **{name: getattr(row_list[1], name) + " "})
        others.add(fingerprint([row_list[0], changed, *row_list[2:]]))
    others.add(fingerprint([replace(row_list[0], text=""), *row_list[1:]]))
    moved = replace(
        row_list[0], en_instruction=row_list[0].en_instruction[:-1], en_input=row_list[0].en_instruction[-1:]
    )
    others.add(fingerprint([moved, *row_list[1:]]))  # the same characters, another border
    assert first not in others and len(others) == 12


def test_dropped_rows_do_not_count_in_the_fingerprint(write, records):
    alone = read(write("rows.jsonl", records)).fingerprint
    extra = {**records[0], "en_output": ""}
    assert read(write("more.jsonl", [extra, *records])).fingerprint == alone


def test_no_usable_row(write, records):
    for row in records:
        row["tgt_output"] = ""
    with pytest.raises(RequestError, match="no usable row; dropped: empty_tgt_output 6"):
        read(write("rows.jsonl", records))


def test_real_rows(data_folder):
    path = str(data_folder / "train" / "alpaca_en_zh.train.jsonl")
    rows = read(path)
    assert len(rows.rows) == 11998 and rows.dropped == {}
    assert rows.rows[0].id == "alpaca-00014"
    english = {"en_instruction": "instruction", "en_input": "input", "en_output": "output"}
    only = read(str(data_folder / "corpus" / "alpaca_en_only.jsonl"), needs=ENGLISH, fields=english)
    assert len(only.rows) + sum(only.dropped.values()) == 22000
    wiki = read(str(data_folder / "corpus" / "wikitext2.valid.txt"), needs=TEXT)
    assert len(wiki.rows) + wiki.dropped["empty_text"] == 3760
