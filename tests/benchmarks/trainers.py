"""Plain fine-tuning by transformers' Trainer and TRL's SFTTrainer, through their own ``training_step``."""

import copy
import importlib.util
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from huggingface_hub import constants
from tokenizers import Tokenizer, models
from torch import nn
from transformers import DataCollatorForSeq2Seq, PreTrainedTokenizerFast, Trainer, TrainingArguments

from dft_search.models.flops import Flops, HeadRead, pass_flops
from dft_search.models.segments import Segment, make_plan
from tests.benchmarks.arms import IGNORED, Arm, Micro, padded
from tests.benchmarks.rows import SPECIAL

NO_TRL = "trl is not installed: pip install -e '.[bench]'"


def has_trl() -> bool:
    return importlib.util.find_spec("trl") is not None


def trainer_arms(model: nn.Module, micro: Micro, needed: Flops) -> list[Arm]:
    """Trainer, padded and length-grouped; and TRL, where it is installed, padded and padding-free.

    As their users would set them: the collator that the trainer makes by itself, no activation checkpointing (ours does
    none either), micro-batches grouped by length. TRL's packing (``bfd``) feeds the same flat sequence as padding-free
    does, but cuts rows at the packs' ends, so it would not compute the same loss.

    Args:
        model: copied; the copies are left alone by other arms.
        micro: rows of each micro-batch.
        needed: operations that plain fine-tuning needs.
    """
    arms = [_arm("trainer", _trainer, model, micro, needed, flat=False)]
    if has_trl():
        arms.append(_arm("trl_padded", _trl, model, micro, needed, flat=False))
        arms.append(_arm("trl_padding_free", _trl_padding_free, model, micro, needed, flat=True))
    return arms


Make = Callable[[nn.Module, Dataset, Mapping[str, Any]], Trainer]


def _arm(name: str, make: Make, model: nn.Module, micro: Micro, needed: Flops, *, flat: bool) -> Arm:
    rows = [[_features(row.segments) for row in batch] for batch in micro]
    mine = copy.deepcopy(model)
    parameter = next(mine.parameters())
    with tempfile.TemporaryDirectory() as folder:
        arguments = {
            "output_dir": str(Path(folder)),
            "per_device_train_batch_size": max(map(len, micro)),
            "gradient_accumulation_steps": len(micro),
            "activation_checkpointing": False,
            "train_sampling_strategy": "group_by_length",
            "bf16": False,  # the weights have the type to compute in
            "use_cpu": parameter.device.type == "cpu",
            "report_to": [],
            "save_strategy": "no",
            "max_steps": 1,
            "disable_tqdm": True,
        }
        trainer = make(mine, Dataset.from_list([row for batch in rows for row in batch]), arguments)
    collated = [dict(trainer.data_collator([dict(row) for row in batch])) for batch in rows]
    count = trainer._get_num_items_in_batch(collated, parameter.device)
    trainer.current_gradient_accumulation_steps = len(micro)

    def step() -> float:
        losses = [
            trainer.training_step(trainer.model, dict(batch), num_items_in_batch=count).item() for batch in collated
        ]
        return sum(losses)

    executed = _executed(mine, micro, flat=flat, compact=name != "trainer" and parameter.device.type == "cuda")
    return Arm(name, "tft", step, mine, needed, executed)


def _features(segments: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    prompt, answer = list(segments["target_prompt"]), list(segments["target_answer"])
    return {"input_ids": prompt + answer, "labels": [IGNORED] * len(prompt) + answer}


def _tokenizer() -> PreTrainedTokenizerFast:
    """The rows are tokens already; trainers ask for one all the same, and for its special tokens."""
    pad, bos, eos = SPECIAL
    words = models.WordLevel({token: number for number, token in enumerate(SPECIAL)}, unk_token=pad)
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words), pad_token=pad, bos_token=bos, eos_token=eos)


def _trainer(model: nn.Module, data: Dataset, arguments: Mapping[str, Any]) -> Trainer:
    options = TrainingArguments(remove_unused_columns=False, **arguments)
    collator = DataCollatorForSeq2Seq(_tokenizer(), padding=True)
    return Trainer(model=model, args=options, train_dataset=data, data_collator=collator)


def _trl(model: nn.Module, data: Dataset, arguments: Mapping[str, Any], *, padding_free: bool = False) -> Trainer:
    from trl import SFTConfig, SFTTrainer

    constants.HF_HUB_DISABLE_TELEMETRY = True  # it would tell its makers of each trainer
    prepared = {"skip_prepare_dataset": True}  # tokens and labels are there, and cut to length
    options = SFTConfig(padding_free=padding_free, max_length=None, dataset_kwargs=prepared, **arguments)
    return SFTTrainer(model=model, args=options, train_dataset=data, processing_class=_tokenizer())


def _trl_padding_free(model: nn.Module, data: Dataset, arguments: Mapping[str, Any]) -> Trainer:
    return _trl(model, data, arguments, padding_free=True)


def _executed(model: Any, micro: Micro, *, flat: bool, compact: bool) -> Flops:
    """Operations of the pass.

    Args:
        flat: rows without padding, as if none was computed against another one; else padded.
        compact: logits at labels alone (TRL's fused head on a GPU); else at every position.
    """
    layers, found = model.config.num_hidden_layers, Flops()
    for rows in micro:
        prompts = [row.segments["target_prompt"] for row in rows]
        answers = [row.segments["target_answer"] for row in rows]
        ids = (
            [[*p, *a] for p, a in zip(prompts, answers, strict=True)] if flat else padded(prompts, answers).ids.tolist()
        )
        logits = sum(map(len, answers)) if compact else sum(map(len, ids))
        found += pass_flops(model, make_plan([Segment(row, layers) for row in ids]), [HeadRead(layers, logits)])
    return found
