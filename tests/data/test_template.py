"""The Alpaca template, to the letter."""

from dft_search.data.template import render_prompt, render_query

WITH_INPUT = """Below is an instruction that describes a task, paired with an input that provides further context. \
Write a response that appropriately completes the request.

### Instruction:
Translate {this}.

### Input:
猫

### Response:"""

WITHOUT_INPUT = """Below is an instruction that describes a task. \
Write a response that appropriately completes the request.

### Instruction:
Translate {this}.

### Response:"""


def test_prompt_with_and_without_input():
    assert render_prompt("Translate {this}.", "猫").text == WITH_INPUT
    assert render_prompt("Translate {this}.", "").text == WITHOUT_INPUT


def test_query_ranges_are_instruction_and_input():
    for instruction, given in (("Translate {this}.", "猫"), ("a\n\n### Input:\nb", "### Response:"), ("x", "")):
        prompt = render_prompt(instruction, given)
        parts = [instruction, given] if given else [instruction]
        assert [prompt.text[start:end] for start, end in prompt.query] == parts


def test_query_text():
    assert render_query("Do it.", "now") == "Do it.\nnow"
    assert render_query("Do it.", "") == "Do it."
