"""Pre-trains the demo's base model: a Llama of 0.3 M parameters, in a few minutes on one core."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from dft_search.demo.text import PretrainingText
from dft_search.demo.tokenizer import ANSWER
from dft_search.demo.world import World


@dataclass(frozen=True)
class Pretraining:
    """How long and how hard. A prompt's tokens are mostly unpredictable names, so they weigh little in the loss."""

    steps: int = 1200
    batch: int = 128
    learning_rate: float = 4e-3
    weight_decay: float = 0.01
    prompt_weight: float = 0.1


def make_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """An untrained model, in float32, with torch's generator as it stands."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        dtype="float32",
    )
    return LlamaForCausalLM(config)


def pretrain(
    world: World,
    tokenizer: PreTrainedTokenizerFast,
    options: Pretraining,
    progress: Callable[[int, float, float], None] | None = None,
) -> LlamaForCausalLM:
    """Trains from scratch; bit for bit the same on the same machine and versions.

    Sets torch to one thread, as sums over several threads round differently. `progress` gets (step, loss, seconds)
    every 100 steps.
    """
    torch.set_num_threads(1)
    torch.manual_seed(world.seed)
    model = make_model(tokenizer).train()
    batches = PretrainingText(world, seed=0).batches(options.batch)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.learning_rate, total_steps=options.steps)
    answer = tokenizer.convert_tokens_to_ids(ANSWER)
    started = time.monotonic()
    for step in range(options.steps):
        ids = tokenizer(next(batches), padding=True, return_tensors="pt")["input_ids"]
        loss = _weighted_loss(model, ids, answer, tokenizer.pad_token_id, options.prompt_weight)
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if progress and (step % 100 == 0 or step == options.steps - 1):
            progress(step, loss.item(), time.monotonic() - started)
    return model.eval()


def _weighted_loss(
    model: LlamaForCausalLM, ids: torch.Tensor, answer: int, pad: int, prompt_weight: float
) -> torch.Tensor:
    """Mean cross-entropy over ids (rows, width), right-padded; tokens after the answer mark weigh 1."""
    labels = ids[:, 1:]
    real = labels != pad
    after_answer = ((ids == answer).cumsum(1) > 0)[:, :-1]
    weights = torch.where(after_answer, 1.0, prompt_weight)[real]
    states = model.model(input_ids=ids).last_hidden_state[:, :-1][real]
    losses = functional.cross_entropy(model.lm_head(states), labels[real], reduction="none")
    return (losses * weights).sum() / weights.sum()
