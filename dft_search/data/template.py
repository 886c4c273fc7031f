"""The Alpaca prompt, the same English text for every language (stanford_alpaca and x-LLM, ``train.py`` PROMPT_DICT)."""

from dataclasses import dataclass

WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n### Instruction:\n"
)
WITHOUT_INPUT = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n### Instruction:\n"
)
INPUT = "\n\n### Input:\n"
RESPONSE = "\n\n### Response:"  # nothing follows it: the answer is joined directly


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered prompt and the character ranges ``[start, end)`` of its query (instruction, and input if any)."""

    text: str
    query: tuple[tuple[int, int], ...]


def render_prompt(instruction: str, input: str) -> Prompt:
    """The prompt of one side of a row; an empty ``input`` takes the form without an input block."""
    head = WITH_INPUT if input else WITHOUT_INPUT
    end = len(head) + len(instruction)
    if not input:
        return Prompt(head + instruction + RESPONSE, ((len(head), end),))
    start = end + len(INPUT)
    return Prompt(head + instruction + INPUT + input + RESPONSE, ((len(head), end), (start, start + len(input))))


def render_query(instruction: str, input: str) -> str:
    """The query without a template: the instruction, then the input on its own line."""
    return f"{instruction}\n{input}" if input else instruction
