"""Small models, tokenizers and task files for the tests of scores; also imported by the script of one rank."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from dft_search.evaluation import ScoringOptions
from dft_search.models.live import LiveModel

MAX_LENGTH = 48
PLACES = ["the mat", "the house", "a tree", "the river", "a chair", "the moon"]
ANIMALS = ["cat", "dog", "bird", "fish", "horse", "cow", "pig"]
SENTENCES = [
    f"The {animal} sat on {PLACES[(3 * index) % len(PLACES)]} and looked around ."
    for index, animal in enumerate(ANIMALS)
]


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with a begin token, so that words may merge across the border of prompt and answer."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=400, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def make_model(tokenizer: Any, family: str = "llama", dropout: float = 0.0, steps: int = 0) -> torch.nn.Module:
    """A random model of two layers; ``steps`` of training on the sentences make it greedy about some of their words."""
    torch.manual_seed(1)
    size: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": MAX_LENGTH,
        "attention_dropout": dropout,
    }
    if family == "gemma2":
        model = Gemma2ForCausalLM(Gemma2Config(**size, head_dim=8, sliding_window=16, final_logit_softcapping=10.0))
    else:
        model = LlamaForCausalLM(LlamaConfig(**size, tie_word_embeddings=False))
    if steps:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        batch = [tokenizer.encode(sentence) for sentence in SENTENCES]
        for _ in range(steps):
            loss = sum(model(input_ids=(ids := torch.tensor([row])), labels=ids).loss for row in batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model


def make_live(model: torch.nn.Module, tokenizer: Any, rank: int = 0, world_size: int = 1) -> LiveModel:
    """The model on the CPU of one rank."""
    return LiveModel(model, tokenizer, torch.device("cpu"), rank, world_size, MAX_LENGTH)


def make_task(folder: Path, name: str = "places", items: int = 12, **changes: Any) -> Path:
    """A multiple-choice task file with its items, one file a part; choices differ in number and length."""
    for offset, part in enumerate(("steer", "select", "test")):
        rows = []
        for index in range(items):
            animal, choices = ANIMALS[index % len(ANIMALS)], PLACES[: 2 + index % 4]
            prompt = f"Item {offset * items + index} of {part} : The {animal} sat on"
            rows.append({"id": f"{part}-{index}", "prompt": prompt, "choices": choices, "answer": index % 2})
        (folder / f"{name}.{part}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    task = {
        "task": name,
        "description": "Where an animal sat.",
        "language": "en",
        "metric": "acc",
        "metrics": ["acc_norm", "margin"],
        "parts": {part: {"files": [f"{name}.{part}.jsonl"]} for part in ("steer", "select", "test")},
        "harness": {
            "output_type": "multiple_choice",
            "doc_to_text": "prompt",
            "doc_to_choice": "choices",
            "doc_to_target": "answer",
        },
    }
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps({**task, **changes}), encoding="utf-8")
    return path


def make_answers(folder: Path, name: str = "answers") -> Path:
    """A likelihood task with the same items."""
    return make_task(
        folder,
        name,
        metric="per_character",
        metrics=["per_token", "token_accuracy"],
        harness={"output_type": "loglikelihood", "doc_to_text": "prompt", "doc_to_target": " {{ choices[answer] }} ."},
    )


def scoring(score: list[str], *tasks: Path, limit: int | None = None) -> ScoringOptions:
    """Scoring options over task files."""
    return ScoringOptions.model_validate(
        {"dev": [{"task": str(path), "limit": limit} for path in tasks], "score": {"mean": score}}
    )


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


@pytest.fixture(scope="session")
def trained(tokenizer: Any) -> torch.nn.Module:
    """A small Llama that is greedy about parts of the sentences. Tests must not change it."""
    return make_model(tokenizer, steps=25).eval()


@pytest.fixture
def live(trained: torch.nn.Module, tokenizer: Any) -> LiveModel:
    return make_live(trained, tokenizer)
