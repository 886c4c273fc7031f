"""Real rows for the benchmarks: parallel Alpaca rows, tokens of a byte-level BPE, length-grouped micro-batches."""

import hashlib
import os
import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast
from transformers.trainer_pt_utils import LengthGroupedSampler

from dft_search.data.encode import EncodedRow, encode_rows
from dft_search.data.needs import PARALLEL
from dft_search.data.options import DataOptions, TrainOptions
from dft_search.data.rows import Rows, read_rows

LANGUAGES = ("zh", "vi")
SPECIAL = ("<pad>", "<s>", "</s>")
VOCABULARY = 32_000
TARGET_EVERY = 400  # the tokenizer sees 1/400 of the target rows: little, as that of an English model
MAX_LENGTH = 512
POOL = 4000  # rows that the sampler groups: ten of its mega-batches of 50 batches of 8
QUANTILES = (0.375, 0.625)


@dataclass(frozen=True)
class Chosen:
    """Micro-batches of rows, shortest first.

    Attributes:
        batches: the micro-batches.
        has_bos: token 0 of a prompt is a BOS.
    """

    batches: tuple[tuple[EncodedRow, ...], ...]
    has_bos: bool = True

    @property
    def rows(self) -> list[EncodedRow]:
        return [row for batch in self.batches for row in batch]

    @property
    def tokens(self) -> int:
        """Real tokens of plain fine-tuning: target prompts and answers."""
        return sum(map(target_length, self.rows))

    def mean_lengths(self) -> dict[str, float]:
        """Mean number of tokens of each segment."""
        rows = self.rows
        return {name: sum(len(row.segments[name]) for row in rows) / len(rows) for name in rows[0].segments}


def target_length(row: EncodedRow) -> int:
    return len(row.segments["target_prompt"]) + len(row.segments["target_answer"])


def real_rows(
    folder: Path, language: str, *, micro_rows: int = 8, quantiles: Sequence[float] = QUANTILES, seed: int = 0
) -> Chosen:
    """Micro-batches of rows of one language, at ``quantiles`` of the lengths that a length-grouped sampler gives.

    Args:
        folder: holds ``alpaca_en_LANGUAGE.train.jsonl`` for every language.
        language: of the target.
        micro_rows: rows of a micro-batch.
        quantiles: one micro-batch for each.
        seed: of the choice.
    """
    files = {name: folder / f"alpaca_en_{name}.train.jsonl" for name in LANGUAGES}
    tokenizer = bpe_tokenizer(files)
    options = DataOptions(
        train=TrainOptions(files=[str(files[language])]), max_length=MAX_LENGTH, target_language=language
    )
    read = read_rows(options.train, needs=PARALLEL)
    sample = random.Random(seed).sample(read.rows, min(POOL, len(read.rows)))
    encoded = encode_rows(Rows(sample, {}, ""), tokenizer, options)
    return Chosen(length_grouped(encoded.rows, micro_rows, quantiles, seed), encoded.has_bos)


def length_grouped(
    rows: Sequence[EncodedRow], micro_rows: int, quantiles: Sequence[float], seed: int
) -> tuple[tuple[EncodedRow, ...], ...]:
    """Group ``rows`` as transformers' LengthGroupedSampler does; pick batches at quantiles of their total length."""
    lengths = [target_length(row) for row in rows]
    draw = torch.Generator().manual_seed(seed)
    order = list(LengthGroupedSampler(micro_rows, lengths=lengths, generator=draw))
    whole = range(0, len(order) - micro_rows + 1, micro_rows)
    batches = sorted(
        (order[start : start + micro_rows] for start in whole), key=lambda batch: sum(lengths[n] for n in batch)
    )
    return tuple(tuple(rows[n] for n in batches[int(len(batches) * quantile)]) for quantile in quantiles)


def random_rows(lengths: Sequence[tuple[int, int, int, int, int]], vocabulary: int, seed: int = 0) -> list[EncodedRow]:
    """Rows of random tokens, by the lengths of target prompt, target answer, English prompt, answer and query."""
    draw = random.Random(seed)

    def tokens(length: int) -> list[int]:
        return [draw.randrange(len(SPECIAL), vocabulary) for _ in range(length)]

    rows = []
    for number, (prompt, answer, english, english_answer, query) in enumerate(lengths):
        segments = {
            "target_prompt": [1, *tokens(prompt - 1)],
            "target_answer": [*tokens(answer - 1), 2],
            "english_prompt": [1, *tokens(english - 1)],
            "english_answer": [*tokens(english_answer - 1), 2],
            "english_query": [*tokens(query - 1), 2],
        }
        spans = {"target_prompt": list(range(1, prompt)), "english_prompt": list(range(1, english))}
        rows.append(EncodedRow(str(number), segments, spans))
    return rows


def bpe_tokenizer(files: dict[str, Path], vocabulary: int = VOCABULARY) -> PreTrainedTokenizerFast:
    """A byte-level BPE of all English and little target text of ``files``; trained once, then read from a cache."""
    stamp = [f"{name} {path.stat().st_size} {path.stat().st_mtime_ns}" for name, path in sorted(files.items())]
    key = hashlib.sha256(f"{vocabulary} {TARGET_EVERY} {stamp}".encode()).hexdigest()[:16]
    cached = _cache_folder() / f"bpe-{key}.json"
    if cached.exists():
        tokenizer = Tokenizer.from_file(str(cached))
    else:
        tokenizer = _train(_texts(files), vocabulary)
        whole = cached.with_suffix(f".{os.getpid()}")
        tokenizer.save(str(whole))
        whole.replace(cached)
    pad, bos, eos = SPECIAL
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=pad, bos_token=bos, eos_token=eos)


def _train(texts: Iterator[str], vocabulary: int) -> Any:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, initial_alphabet=alphabet, special_tokens=list(SPECIAL), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    bos = SPECIAL[1]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, 1)])
    return tokenizer


def _texts(files: dict[str, Path]) -> Iterator[str]:
    for path in files.values():
        for number, row in enumerate(read_rows(TrainOptions(files=[str(path)]), needs=PARALLEL).rows):
            yield from (row.en_instruction, row.en_input, row.en_output)
            if number % TARGET_EVERY == 0:
                yield from (row.tgt_instruction, row.tgt_input, row.tgt_output)


def _cache_folder() -> Path:
    """In the user's cache, or beside temporary files where that cannot be written."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    for folder in (base / "dft-search-benchmarks", Path(tempfile.gettempdir()) / "dft-search-benchmarks"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    return Path(tempfile.mkdtemp())
