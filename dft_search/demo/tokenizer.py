"""The demo's tokenizer: one token a word, and two tokens for the whole of the Alpaca template.

Training renders rows with the Alpaca template, as for any model. Spelled out, its English sentences would be most of
what a model of this size reads, so the normalizer shortens them: what comes before the instruction becomes the word
`Q`, the header of the response the word `A`, the header of the input nothing. A rendered prompt is then
`<bos> Q su Mirano ke hoza velo ? A`, and the base model's pre-training text looks the same.
"""

from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from dft_search.data import template

SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<unk>")
ASK, ANSWER = "Q", "A"

_TEMPLATE_PIECES = (
    (template.WITH_INPUT, f"{ASK} "),
    (template.WITHOUT_INPUT, f"{ASK} "),
    (template.INPUT, " "),
    (template.RESPONSE, f" {ANSWER} "),
)


def make_tokenizer(words: list[str]) -> PreTrainedTokenizerFast:
    """A word-level tokenizer over `words`; adds <bos> at the start, never <eos>."""
    vocabulary = {word: index for index, word in enumerate([*SPECIAL_TOKENS, ASK, ANSWER, *words])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Replace(*piece) for piece in _TEMPLATE_PIECES])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", vocabulary["<bos>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )
