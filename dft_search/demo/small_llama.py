"""Makes a small untrained Llama: `python -m dft_search.demo.small_llama --rows FILE... --out DIR`.

For studies on real rows on a small machine. The tokenizer is learned from the rows, of both languages; the weights are
random, and `dft-search train` with method `lm` makes a base model of them. Of the rows only the vocabulary is kept.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from dft_search.config import Problem, RequestError, expand_path
from dft_search.data.files import open_file

SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>")
COLUMNS = ("instruction", "input", "output", "text")  # what a column with text ends with, whatever its language
HEAD_WIDTH = 32


@dataclass(frozen=True)
class Shape:
    """Size of the model: the default has 6.6 M parameters, 3.1 M of them in the (tied) embedding.

    Attributes:
        vocab: tokens, the 256 bytes and the special tokens among them.
        layers: blocks.
        width: of the residual stream, a multiple of 32.
        positions: longest sequence in tokens.
    """

    vocab: int = 16_000
    layers: int = 8
    width: int = 192
    positions: int = 1024


def make_small_llama(rows: Sequence[str], out: Path, shape: Shape | None = None, seed: int = 0) -> LlamaForCausalLM:
    """Learn the tokenizer from the rows, draw the weights, and save both to ``out`` as a model folder.

    The same rows, shape and seed give the same files on the same versions of torch and tokenizers.

    Args:
        rows: files; read are the columns ``instruction``, ``input``, ``output`` (also with a prefix, as ``en_input``)
            and ``text``.
        out: folder, made if absent.
        shape: sizes.
        seed: of the weights.

    Raises:
        RequestError: a file is missing, broken or without such columns, or the width is not a multiple of 32.
    """
    shape = shape or Shape()
    if shape.width % HEAD_WIDTH:
        raise RequestError(Problem(f"--width {shape.width}", expected=f"a multiple of {HEAD_WIDTH}"))
    tokenizer = learn_tokenizer((text for path in rows for text in _texts(path)), shape.vocab)
    torch.manual_seed(seed)
    model = LlamaForCausalLM(_config(shape, tokenizer))
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(out)
    model.save_pretrained(out)
    return model


def learn_tokenizer(texts: Iterator[str], vocab: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE over the texts, so that no text is unknown; adds <bos> at the start, never <eos>."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", tokenizer.token_to_id("<bos>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )


def _config(shape: Shape, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.width,
        intermediate_size=8 * shape.width // 3,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.width // HEAD_WIDTH,
        num_key_value_heads=shape.width // HEAD_WIDTH,
        max_position_embeddings=shape.positions,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        dtype="float32",
    )


def _texts(path: str) -> Iterator[str]:
    """All texts of a file, of both languages."""
    table = open_file(path, key="--rows")
    columns = [name for name in table.columns if name.rpartition("_")[2] in COLUMNS]
    if not columns:
        expected = "columns such as en_instruction, tgt_output or text"
        raise RequestError(Problem("has no column of text", file=path, key="--rows", expected=expected))
    for _, record in table.records:
        yield from (record[name] for name in columns if record.get(name))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m dft_search.demo.small_llama", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="+", required=True, metavar="FILE", help="files with rows of both languages")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--vocab", type=int, default=Shape.vocab)
    parser.add_argument("--layers", type=int, default=Shape.layers)
    parser.add_argument("--width", type=int, default=Shape.width, help="a multiple of 32")
    parser.add_argument("--positions", type=int, default=Shape.positions)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    shape = Shape(given.vocab, given.layers, given.width, given.positions)
    out = Path(expand_path(given.out))
    try:
        model = make_small_llama([expand_path(path) for path in given.rows], out, shape, given.seed)
    except RequestError as error:
        parser.error("; ".join(str(problem) for problem in error.problems))
    print(f"{out}: {model.num_parameters():,} parameters, {model.config.vocab_size:,} tokens")


if __name__ == "__main__":
    main()
