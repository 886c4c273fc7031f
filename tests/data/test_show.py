"""What `data show` prints: tokens, labels, the query, counts; nothing that steers a terminal."""

import io

import pytest
from rich.console import Console

from dft_search.data.encode import Encoded, encode_row
from dft_search.data.row import Row
from dft_search.data.rows import Rows
from dft_search.data.show import describe, pieces, render, render_counts

STYLE = {"query": "\x1b[4", "special": "35m"}


def shown(rows, tokenizer, *, color=False):
    console = Console(file=io.StringIO(), width=2000, force_terminal=color, color_system="standard" if color else None)
    render(rows, tokenizer, console)
    return console.file.getvalue()


def test_segments_roles_and_counts(tokenizers, row_list):
    tokenizer = tokenizers("bpe_bos")
    row = encode_row(row_list[1], tokenizer, max_length=512)
    lines = shown([row], tokenizer).splitlines()
    assert "row r1" in lines[0]
    for name, ids in row.segments.items():
        head = next(line for line in lines if line.startswith(f"{name} "))
        assert f"{len(ids)} tokens" in head
        assert ("read" in head, "label" in head) == ((True, False) if name.endswith("prompt") else (False, True))
        if name in row.spans:
            assert f"{len(row.spans[name])} of the query" in head
    answer = lines[lines.index(next(line for line in lines if line.startswith("english_answer"))) + 1]
    assert answer.endswith("|</s>") and answer.replace("|", "").replace("·", " ") == row_list[1].en_output + "</s>"
    prompt = lines[lines.index(next(line for line in lines if line.startswith("target_prompt"))) + 1]
    assert prompt.startswith("<s>|B") and "↵" in prompt


def test_query_is_underlined_and_special_tokens_stand_out(tokenizers, row_list):
    tokenizer = tokenizers("word")
    row = encode_row(row_list[0], tokenizer, max_length=512)
    text = shown([row], tokenizer, color=True)
    prompt = next(line for line in text.splitlines() if "Below" in line and "Name" in line)
    underlined = [piece for piece in prompt.split("\x1b[0m") if piece.rpartition("m")[0].startswith("\x1b[4;")]
    assert len(underlined) == len(row.spans["english_prompt"])
    assert "Name" in underlined[0]
    assert "\x1b[1;35m" in text


@pytest.mark.parametrize("name", ["bpe_bos", "metaspace", "word", "slow"])
def test_pieces_hold_all_tokens_and_whole_characters(name, tokenizers, row_list):
    tokenizer = tokenizers(name)
    ids = encode_row(row_list[1], tokenizer, max_length=512).segments["target_answer"]
    found = pieces(ids, tokenizer)
    assert [start for _, start, _ in found] + [len(ids)] == [0] + [end for _, _, end in found]
    if name != "word":
        assert "".join(text for text, _, _ in found).strip() == row_list[1].tgt_output + "</s>"


def test_spaces_before_words_are_seen(tokenizers):
    tokenizer = tokenizers("metaspace")
    ids = tokenizer("The fox", add_special_tokens=False)["input_ids"]
    assert "".join(text for text, _, _ in pieces(ids, tokenizer)).strip() == "The fox"


def test_broken_characters_do_not_swallow_the_rest(tokenizers):
    tokenizer = tokenizers("bpe_bos")
    cut = tokenizer("猫", add_special_tokens=False)["input_ids"][:1] or [5]
    half = tokenizer.convert_tokens_to_ids("ç")
    found = pieces([half, *tokenizer("fox", add_special_tokens=False)["input_ids"], *cut], tokenizer)
    assert found[-1][2] == len([half, *tokenizer("fox", add_special_tokens=False)["input_ids"], *cut])


def test_data_cannot_steer_the_terminal(tokenizers):
    tokenizer = tokenizers("bpe_bos")
    row = Row(id="x\x1b[2J", tgt_instruction="[red]\x1b]0;title\x07 [/red]", tgt_output="\x9b31m\u202eok")
    text = shown([encode_row(row, tokenizer, max_length=512)], tokenizer)
    assert not any(c in text for c in "\x1b\x07\x9b\u202e")
    assert "\\x1b" in text and "[" in text and "red" in text


def test_plain_data(tokenizers, row_list):
    tokenizer = tokenizers("bpe_bos")
    row = encode_row(row_list[0], tokenizer, max_length=512)
    (data,) = describe([row], tokenizer)
    assert data["id"] == "r0" and list(data["segments"]) == list(row.segments)
    prompt, answer = data["segments"]["target_prompt"], data["segments"]["target_answer"]
    assert (prompt["role"], answer["role"]) == ("read", "label")
    assert prompt["tokens"] == row.segments["target_prompt"] and prompt["query"] == row.spans["target_prompt"]
    assert sum(piece["tokens"] for piece in answer["pieces"]) == len(row.segments["target_answer"])


def test_counts():
    console = Console(file=io.StringIO(), width=100)
    rows = Rows([], {"empty_en_output": 3}, "0123456789abcdef")
    render_counts(rows, Encoded([], {"target_answer": 2}, {"target_prompt_too_long": 1}, True, "f" * 16), console)
    text = console.file.getvalue()
    for line in ("dropped: 3 rows, empty_en_output", "dropped: 1 rows, target_prompt_too_long"):
        assert line in text
    assert "cut: 2 rows, target_answer" in text and "0123456789abcdef" in text
