"""From rows to tokens: separate tokenisation, special tokens, cuts, places of the query."""

import time
from dataclasses import replace

import pytest

from dft_search.config import RequestError
from dft_search.data.encode import encode_row, encode_rows, has_bos
from dft_search.data.needs import PARALLEL
from dft_search.data.options import DataOptions, TrainOptions
from dft_search.data.row import Row
from dft_search.data.rows import Rows, fingerprint, read_rows
from dft_search.data.template import render_prompt

ALL = ["bpe_bos", "bpe_bos_eos", "bpe", "metaspace", "word", "slow"]
WITH_BOS = {"bpe_bos", "bpe_bos_eos", "metaspace"}


def options(max_length=512):
    return DataOptions(train=TrainOptions(files=["x"]), target_language="zh", max_length=max_length)


def as_rows(rows):
    return Rows(list(rows), {}, fingerprint(rows))


def bare(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def parts(row, side):
    return [getattr(row, f"{side}_{part}") for part in ("instruction", "input", "output")]


@pytest.mark.parametrize("name", ALL)
def test_segments_are_tokenised_apart(name, tokenizers, row_list):
    tokenizer = tokenizers(name)
    encoded = encode_rows(as_rows(row_list), tokenizer, options())
    bos = [tokenizer.bos_token_id] if name in WITH_BOS else []
    eos = tokenizer.eos_token_id
    assert encoded.has_bos is bool(bos) is has_bos(tokenizer)
    assert encoded.truncated == encoded.dropped == {} and [row.id for row in encoded] == [row.id for row in row_list]
    for row, got in zip(row_list, encoded, strict=True):
        expected = {}
        for side, short in (("target", "tgt"), ("english", "en")):
            instruction, given, output = parts(row, short)
            expected[f"{side}_prompt"] = bos + bare(tokenizer, render_prompt(instruction, given).text)
            expected[f"{side}_answer"] = [*bare(tokenizer, output), eos]
        query = row.en_instruction + (f"\n{row.en_input}" if row.en_input else "")
        expected["english_query"] = [*bare(tokenizer, query), eos]
        assert got.segments == expected
        assert set(got.spans) == {"target_prompt", "english_prompt"}


@pytest.mark.parametrize("name", ["bpe_bos", "bpe", "metaspace", "slow"])
def test_prompt_is_what_the_tokenizer_makes_of_it(name, tokenizers, row_list):
    tokenizer = tokenizers(name)
    row = row_list[1]
    whole = tokenizer(render_prompt(row.tgt_instruction, row.tgt_input).text)["input_ids"]
    assert encode_row(row, tokenizer, max_length=512).segments["target_prompt"] == whole


def test_a_token_never_crosses_the_border_of_prompt_and_answer(tokenizers, row_list):
    tokenizer = tokenizers("metaspace")
    row = row_list[0]
    got = encode_row(row, tokenizer, max_length=512).segments
    joint = bare(tokenizer, render_prompt(row.en_instruction, row.en_input).text + row.en_output)
    assert got["english_prompt"][1:] + got["english_answer"][:-1] != joint  # the answer starts a text of its own
    assert tokenizer.convert_ids_to_tokens(got["english_answer"])[0].startswith("▁")


@pytest.mark.parametrize("name", ALL)
def test_one_row_as_all_rows(name, tokenizers, row_list):
    tokenizer = tokenizers(name)
    together = encode_rows(as_rows(row_list), tokenizer, options(), query_text="prompt")
    alone = [encode_row(row, tokenizer, max_length=512, query_text="prompt") for row in row_list]
    assert list(together) == alone
    assert together[1:3] == alone[1:3] and len(together) == 6


def test_query_texts(tokenizers, row_list):
    tokenizer, row = tokenizers("bpe_bos"), row_list[1]
    prompt = render_prompt(row.en_instruction, row.en_input).text
    texts = {"query": f"{row.en_instruction}\n{row.en_input}", "instruction": row.en_instruction, "prompt": prompt}
    for kind, text in texts.items():
        got = encode_row(row, tokenizer, max_length=512, query_text=kind).segments["english_query"]
        assert got == [*bare(tokenizer, text), tokenizer.eos_token_id]


@pytest.mark.parametrize("name", ALL)
def test_spans_cover_the_query_and_little_else(name, tokenizers, row_list):
    tokenizer = tokenizers(name)
    for row in row_list:
        got = encode_row(row, tokenizer, max_length=512)
        for side, short in (("target", "tgt"), ("english", "en")):
            instruction, given, _ = parts(row, short)
            ids, span = got.segments[f"{side}_prompt"], got.spans[f"{side}_prompt"]
            text = tokenizer.decode([ids[k] for k in span], clean_up_tokenization_spaces=False)
            squeezed = "".join(text.split())
            if name == "word":  # unknown words decode to their sign
                words = bare(tokenizer, instruction) + (bare(tokenizer, given) if given else [])
                assert [ids[k] for k in span] == words
            else:
                assert squeezed == "".join((instruction + given).split())
            outside = tokenizer.decode([ids[k] for k in range(len(ids)) if k not in span])
            assert "Instruction" in outside and "Response" in outside
            assert 0 not in span


def test_spans_with_and_without_offsets_agree(tokenizers, row_list, monkeypatch):
    for name in ("bpe_bos", "metaspace", "word"):
        tokenizer = tokenizers(name)
        fast = [encode_row(row, tokenizer, max_length=512).spans for row in row_list]
        with monkeypatch.context() as patch:
            patch.setattr(type(tokenizer), "is_fast", False)
            slow = [encode_row(row, tokenizer, max_length=512).spans for row in row_list]
        assert slow == fast


def test_bos_shifts_the_span_by_one(tokenizers, row_list):
    with_bos, without = (encode_row(row_list[0], tokenizers(name), max_length=512) for name in ("bpe_bos", "bpe"))
    for name, span in without.spans.items():
        assert with_bos.spans[name] == [k + 1 for k in span]


def test_one_side_alone(tokenizers, row_list):
    tokenizer = tokenizers("bpe_bos")
    english = Row(id="a", en_instruction="Name it.", en_output="A fox.")
    target = Row(id="b", tgt_instruction="说出", tgt_output="狐狸")
    encoded = encode_rows(as_rows([english, target]), tokenizer, options())
    assert set(encoded[0].segments) == {"english_prompt", "english_answer", "english_query"}
    assert set(encoded[1].segments) == {"target_prompt", "target_answer"}


def test_plain_text(tokenizers):
    tokenizer = tokenizers("bpe_bos")
    encoded = encode_rows(as_rows([Row(id="a", text="The fox and 3 owls.")]), tokenizer, options(6))
    whole = [tokenizer.bos_token_id, *bare(tokenizer, "The fox and 3 owls."), tokenizer.eos_token_id]
    assert len(whole) > 6
    assert encoded[0].segments == {"text": whole[:6]} and encoded[0].spans == {}
    assert encoded.truncated == {"text": 1}


def test_cuts_count_prompt_and_answer_together(tokenizers, row_list):
    tokenizer = tokenizers("bpe_bos")
    full = encode_row(row_list[1], tokenizer, max_length=10_000)
    lengths = {name: len(ids) for name, ids in full.segments.items()}
    prompt = lengths["target_prompt"]
    assert lengths["english_prompt"] != prompt
    longest = max(prompt, lengths["english_prompt"])
    fits = max(
        prompt + lengths["target_answer"], prompt + lengths["english_query"], longest + lengths["english_answer"]
    )
    limit = max(lengths["english_prompt"], prompt) + 2
    rows = as_rows([row_list[1]])
    assert encode_rows(rows, tokenizer, options(fits))[0] == full
    assert encode_rows(rows, tokenizer, options(fits - 1)).truncated != {}
    cut = encode_rows(rows, tokenizer, options(limit))
    room = {name: limit - prompt for name in ("target_answer", "english_query")}
    room["english_answer"] = limit - max(lengths["english_prompt"], prompt)  # it may follow either prompt
    for name, ids in full.segments.items():
        assert cut[0].segments[name] == (ids if name.endswith("prompt") else ids[: room[name]])
    assert cut.truncated == {name: 1 for name in room if lengths[name] > room[name]}
    assert tokenizer.eos_token_id not in cut[0].segments["english_answer"]  # a cut answer has no end


def test_english_answer_follows_the_english_prompt_where_there_is_no_target(tokenizers, row_list):
    tokenizer = tokenizers("bpe_bos")
    row = replace(row_list[0], tgt_instruction="", tgt_input="", tgt_output="")
    full = encode_row(row, tokenizer, max_length=10_000).segments
    limit = len(full["english_prompt"]) + 3
    got = encode_rows(as_rows([row]), tokenizer, options(limit))[0].segments
    assert got["english_answer"] == full["english_answer"][:3]


def test_prompts_without_room_are_dropped_and_counted(tokenizers, row_list):
    tokenizer = tokenizers("bpe_bos")
    long = replace(row_list[0], id="long", tgt_instruction="狐狸和" * 300)
    long_english = replace(row_list[0], id="long_en", en_instruction="fox " * 300)
    encoded = encode_rows(as_rows([long, row_list[1], long_english]), tokenizer, options(200))
    assert [row.id for row in encoded] == ["r1"]
    assert encoded.dropped == {"target_prompt_too_long": 1, "english_prompt_too_long": 1}
    with pytest.raises(RequestError, match="row 'long' cannot be used with max_length 200: target_prompt_too_long"):
        encode_row(long, tokenizer, max_length=200)
    exact = len(encode_row(row_list[1], tokenizer, max_length=10_000).segments["target_prompt"])
    target = replace(row_list[1], en_instruction="", en_input="", en_output="")
    assert len(encode_row(target, tokenizer, max_length=exact + 1).segments["target_answer"]) == 1
    with pytest.raises(RequestError, match="target_prompt_too_long"):
        encode_row(target, tokenizer, max_length=exact)


def test_nothing_fits(tokenizers, row_list):
    with pytest.raises(RequestError, match="no row fits into 20 tokens; dropped: target_prompt_too_long 6"):
        encode_rows(as_rows(row_list), tokenizers("bpe_bos"), options(20))


def test_tokenizer_without_eos(tokenizers, row_list):
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizers("bpe").backend_tokenizer, bos_token="<s>")
    with pytest.raises(RequestError, match="no EOS token") as caught:
        encode_rows(as_rows(row_list), tokenizer, options())
    assert caught.value.problems[0].key == "recipe.model.path"


def test_fingerprint_tells_tokenizer_length_text_and_order(tokenizers, row_list):
    longest = max(
        len(encode_row(row, tokenizers("bpe_bos"), max_length=512).segments["english_prompt"]) for row in row_list
    )
    seen = {
        encode_rows(as_rows(rows), tokenizers(name), options(length), query_text=text).fingerprint
        for rows, name, length, text in [
            (row_list, "bpe_bos", 512, "query"),
            (row_list, "bpe", 512, "query"),
            (row_list, "word", 512, "query"),
            (row_list, "bpe_bos", longest + 1, "query"),
            (row_list, "bpe_bos", 512, "instruction"),
            (row_list[::-1], "bpe_bos", 512, "query"),
            ([replace(row_list[0], id="other"), *row_list[1:]], "bpe_bos", 512, "query"),
        ]
    }
    assert len(seen) == 7
    assert encode_rows(as_rows(row_list), tokenizers("bpe_bos"), options()).fingerprint in seen


def test_real_rows_in_seconds(data_folder, tokenizers):
    rows = read_rows(TrainOptions(files=[str(data_folder / "train" / "alpaca_en_zh.train.jsonl")]), needs=PARALLEL)
    start = time.monotonic()
    encoded = encode_rows(Rows(rows.rows[:2000], {}, ""), tokenizers("bpe_bos"), options(1024))
    assert time.monotonic() - start < 20
    assert len(encoded) + sum(encoded.dropped.values()) == 2000 and len(encoded) > 1500
    tokenizer, by_id = tokenizers("bpe_bos"), {row.id: row for row in rows.rows}
    for row in encoded[:200]:
        source = by_id[row.id]
        ids, span = row.segments["target_prompt"], row.spans["target_prompt"]
        assert tokenizer.decode([ids[k] for k in span]) == source.tgt_instruction + source.tgt_input
