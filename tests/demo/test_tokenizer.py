"""The tokenizer: rendered prompts are a few tokens, begin with BOS, and look like the pre-training text."""

import pytest
from transformers import PreTrainedTokenizerFast

from dft_search.data.encode import encode_row
from dft_search.data.row import Row
from dft_search.data.template import render_prompt
from dft_search.demo.questions import train_rows
from dft_search.demo.text import PretrainingText
from dft_search.demo.tokenizer import make_tokenizer
from dft_search.demo.world import RELATIONS, World, make_world
from dft_search.models.loading import load_tokenizer
from dft_search.models.options import ModelOptions


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(0)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """The shipped one, loaded as training loads it."""
    return load_tokenizer(ModelOptions(path="package:demo/base", dtype="float32"))


def test_the_shipped_tokenizer_is_the_one_of_world_0(world: World, tokenizer: PreTrainedTokenizerFast):
    assert tokenizer.get_vocab() == make_tokenizer(world.words()).get_vocab()


def test_a_rendered_prompt_is_question_between_two_marks(world: World, tokenizer: PreTrainedTokenizerFast):
    fact = world.facts("dev")[0]
    name, relation = world.tovan_names[fact.entity], world.tovan_relations[fact.relation]
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(render_prompt(world.tovan_question(fact), "").text)["input_ids"])
    assert tokens == ["<bos>", "Q", "su", name, "ke", relation, "velo", "?", "A"]


def test_a_prompt_with_input_has_the_same_marks(tokenizer: PreTrainedTokenizerFast):
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(render_prompt("what is the color", "red").text)["input_ids"])
    assert tokens == ["<bos>", "Q", "what", "is", "the", "color", "red", "A"]


def test_prompt_and_answer_look_like_the_pretraining_text(world: World, tokenizer: PreTrainedTokenizerFast):
    fact = world.facts("pool")[0]
    question, answer = world.tovan_question(fact), world.tovan_answer(fact)
    row = Row("a", world.english_question(fact), "", world.english_answer(fact), question, "", answer)
    segments = encode_row(row, tokenizer, max_length=64).segments
    read = tokenizer(f"Q {question} A {answer} <eos>")["input_ids"]
    assert segments["target_prompt"] + segments["target_answer"] == read


def test_spans_hold_the_query_alone(world: World, tokenizer: PreTrainedTokenizerFast):
    row = encode_row(Row(**train_rows(world)[0]), tokenizer, max_length=64)
    prompt = row.segments["english_prompt"]
    query = [prompt[position] for position in row.spans["english_prompt"]]
    assert query == prompt[2:-1] == row.segments["english_query"][:-1]


def test_round_trip(world: World, tokenizer: PreTrainedTokenizerFast):
    words = world.words()
    ids = tokenizer(" ".join(words), add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids).split() == words
    assert len(set(ids)) == len(words)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_text_of_a_world_has_an_unknown_word(seed: int):
    world = make_world(seed)
    tokenizer = make_tokenizer(world.words())
    batches = PretrainingText(world, seed=0).batches(128)
    ids = {token for _ in range(10) for text in next(batches) for token in tokenizer(text)["input_ids"]}
    rows = [value for row in train_rows(world) for value in row.values() if value != row["id"]]
    ids |= {token for text in rows for token in tokenizer(text)["input_ids"]}
    assert tokenizer.unk_token_id not in ids


def test_every_choice_is_one_token(world: World, tokenizer: PreTrainedTokenizerFast):
    choices = [value for values in world.tovan_values.values() for value in values]
    choices += [value for _, values in RELATIONS.values() for value in values]
    assert all(len(tokenizer(choice, add_special_tokens=False)["input_ids"]) == 1 for choice in choices)


def test_an_unknown_word_is_marked(tokenizer: PreTrainedTokenizerFast):
    assert tokenizer("zebra", add_special_tokens=False)["input_ids"] == [tokenizer.unk_token_id]
