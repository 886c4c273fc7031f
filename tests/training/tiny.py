"""A tiny world to train in: a random model with a word tokenizer, parallel rows, and a reporter that remembers."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from dft_search.config import parse_document
from dft_search.config.build import build
from dft_search.data.template import render_prompt
from dft_search.evaluation.scores import Score, Scores
from dft_search.models.live import LiveModel
from dft_search.training.loop import Run, RunEnd, run_training
from dft_search.training.recipe import Recipe
from dft_search.training.reporter import Decision, Report, SilentReporter
from dft_search.training.session import Session
from dft_search.training.sharding import gather
from dft_search.training.workspace import Workspace

CPU = torch.device("cpu")
LAYERS = 3
ROWS = 24


def make_rows() -> list[dict[str, str]]:
    """Parallel rows of unequal lengths over a few invented words."""
    rows = []
    for n in range(ROWS):
        english = [f"en{(n * 7 + k * 3) % 11}" for k in range(2 + n % 5)]
        target = [f"zh{(n * 7 + k * 3) % 11}" for k in range(3 + n % 4)]
        rows.append(
            {
                "id": f"r{n}",
                "en_instruction": " ".join(english),
                "en_input": "",
                "en_output": " ".join(english[::-1]),
                "tgt_instruction": " ".join(target),
                "tgt_input": "",
                "tgt_output": " ".join(target[::-1] * (1 + n % 2)),
            }
        )
    return rows


def make_world(folder: Path) -> None:
    """Write ``rows.jsonl``, ``text.txt`` and the models ``llama`` and ``tied`` under ``folder``."""
    rows = make_rows()
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "text.txt").write_text("".join(f"{row['en_instruction']} {row['en_output']}\n" for row in rows))
    words = Tokenizer(models.WordLevel(unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    texts = [row[key] for row in rows for key in ("en_instruction", "tgt_instruction")] + [render_prompt("a", "b").text]
    words.train_from_iterator(texts, trainers.WordLevelTrainer(special_tokens=["<unk>", "<s>", "</s>"]))
    words.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    for name, tied in (("llama", False), ("tied", True)):
        torch.manual_seed(0)
        config = AutoConfig.for_model(
            "llama",
            vocab_size=words.get_vocab_size(),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=LAYERS,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            tie_word_embeddings=tied,
            attention_bias=name == "llama",
            bos_token_id=1,
            eos_token_id=2,
        )
        model = AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():  # larger than usual, so that every loss has something to say
            torch.nn.init.normal_(parameter, std=0.15) if parameter.ndim == 2 else None
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


OBJECTIVES: dict[str, dict[str, Any]] = {
    "tft": {"method": "tft"},
    "logits": {"conversion": {"layer": 1}, "thinking": {"layer": 2}},
    "feature": {
        "conversion": {"supervision": "feature", "layer": 1},
        "thinking": {"supervision": "feature", "layer": 2},
    },
    "sdrrl": {"method": "sdrrl"},
    "mid_align": {"method": "mid_align", "alignment": {"layer": 2}},
    "joint": {"method": "mid_align", "alignment": {"layer": 2, "schedule": "joint"}},
    "by_step": {"method": "mid_align", "alignment": {"layer": 2, "schedule": "optimizer_step"}},
    "clo": {"method": "clo", "preference": {"beta": 0.5}},
    "retained": {"method": "tft", "retention": {"supervision": "distillation", "top": 5}},
    "apart": {"method": "mid_align", "alignment": {"layer": 2, "schedule": "alone"}},
    "gathered": {
        "method": "mid_align",
        "alignment": {"layer": 2, "negatives": "gathered", "symmetric": True, "schedule": "joint"},
    },
}


def make_recipe(
    world: Path, objective: str = "tft", *, model: str = "llama", dtype: str = "float32", **training: Any
) -> Recipe:
    """A recipe of six steps of eight rows, unless ``training`` says otherwise."""
    plain = {
        "recipe": {
            "model": {"path": str(world / model), "dtype": dtype},
            "data": {"train": {"files": [str(world / "rows.jsonl")]}, "max_length": 128, "target_language": "zh"},
            "objective": OBJECTIVES[objective],
            "training": {
                "length": {"steps": 6},
                "batch_rows": 8,
                "micro_batch_rows": 4,
                "optimizer": {"learning_rate": 1e-2},
                **training,
            },
        }
    }
    return build(Recipe, parse_document(json.dumps(plain), "tiny"), ("recipe",))


@dataclass
class Memory(SilentReporter):
    """A reporter that keeps what it is told.

    Args:
        stop_before: ask for a stop before the step that follows this many.
        stop_at: answer the report of this fraction with STOP.
    """

    stop_before: int | None = None
    stop_at: float | None = None
    reports: list[Report] = field(default_factory=list)
    checkpoints: list[int] = field(default_factory=list)
    scored: list[float] = field(default_factory=list)
    asked: int = 0

    def score(self, live: LiveModel, fraction: float) -> Scores:
        self.scored.append(fraction)
        return Scores({"score": Score(fraction, None, 1)}, {"task": [fraction]})

    def report(self, report: Report) -> Decision:
        self.reports.append(report)
        return Decision.STOP if report.fraction == self.stop_at else Decision.GO_ON

    def checkpoint(self, step: int, folder: str) -> None:
        self.checkpoints.append(step)

    def stop_requested(self, step: int) -> bool:
        self.asked += 1
        return self.stop_before is not None and self.asked > self.stop_before

    @property
    def losses(self) -> list[dict[str, float]]:
        """Losses and gradient norm of every step reported."""
        keep = ("loss/", "grad_norm", "learning_rate")
        records = [record for report in self.reports for record in report.history]
        return [{key: value for key, value in record.metrics.items() if key.startswith(keep)} for record in records]


@dataclass
class Trained:
    """What a run left: its end, its reports, its trainable weights in full."""

    end: RunEnd
    memory: Memory
    weights: dict[str, torch.Tensor]
    frozen: dict[str, torch.Tensor]


def train(
    recipe: Recipe,
    folder: Path,
    workspace: Workspace | None = None,
    *,
    seed: int = 5,
    rungs: tuple[float, ...] = (),
    memory: Memory | None = None,
    device: torch.device = CPU,
    background: bool = False,
    known: float | None = None,
    kept: Path | None = None,
) -> Trained:
    """Run ``recipe`` on the ranks of this process's group and gather its weights."""
    session = Session.from_environment(device)
    workspace = workspace or Workspace()
    memory = memory or Memory()
    run = Run("tiny", seed, str(folder), list(rungs), background=background, known=known, kept=kept and str(kept))
    end = run_training(recipe, run, memory, session, workspace)
    parameters = dict(workspace.latest.model.named_parameters())
    whole = {name: gather(parameter) for name, parameter in parameters.items()}
    moving = {name for name, parameter in parameters.items() if parameter.requires_grad}
    return Trained(
        end,
        memory,
        {name: value.clone() for name, value in whole.items() if name in moving},
        {name: value.clone() for name, value in whole.items() if name not in moving},
    )


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of weights agree bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def near(a: list[dict[str, float]], b: list[dict[str, float]], relative: float = 1e-5) -> bool:
    """Whether two loss curves agree."""
    assert len(a) == len(b) > 0
    return all(
        x.keys() == y.keys() and all(abs(x[key] - y[key]) <= relative * max(abs(x[key]), 1e-3) for key in x)
        for x, y in zip(a, b, strict=True)
    )
