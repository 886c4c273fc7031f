"""The Alpaca prompt as a chat template, for tokenizers that have none."""

from transformers import PreTrainedTokenizerBase

from dft_search.data.template import RESPONSE, WITHOUT_INPUT, render_prompt

PROBE = "Name the capital of France."


def alpaca_chat_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """A template that turns one user message into the tokens that training saw; None where none does.

    Alpaca has no system message and no second turn, so the template refuses them.
    """
    head, tail = (text.replace("\n", "\\n") for text in (WITHOUT_INPUT, RESPONSE))
    refusal = "the Alpaca prompt holds one user message"
    template = (
        "{%- if messages | length > 2 or messages[0]['role'] != 'user' %}"
        f"{{{{- raise_exception('{refusal}') }}}}"
        "{%- endif %}"
        "{%- for message in messages %}"
        "{%- if message['role'] == 'user' %}"
        f"{{{{- BOS + '{head}' + message['content'] + '{tail}' }}}}"
        "{%- else %}"
        "{{- message['content'] + eos_token }}"
        "{%- endif %}{%- endfor %}"
    )
    expected = list(tokenizer(render_prompt(PROBE, "").text)["input_ids"])
    if expected[-1] == tokenizer.eos_token_id:  # training leaves out what a tokenizer puts last: an answer follows
        expected.pop()
    messages = [{"role": "user", "content": PROBE}]
    for first in ("bos_token", "''") if tokenizer.bos_token else ("''",):
        candidate = template.replace("BOS", first)
        text = tokenizer.apply_chat_template(
            messages, chat_template=candidate, tokenize=False, add_generation_prompt=True
        )
        if tokenizer(text, add_special_tokens=False)["input_ids"] == expected:
            return candidate
    return None
