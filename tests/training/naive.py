"""DFT as a first sketch would train it: a full padded forward pass for each loss, full logits, torch's own AdamW."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForCausalLM

from dft_search.data.encode import EncodedRow
from dft_search.data.order import RowOrder
from dft_search.training.recipe import Recipe
from dft_search.training.schedule import factor
from dft_search.training.seeds import derive
from dft_search.training.workspace import Workspace

SIDES = ("english", "target")


def naive_training(recipe: Recipe, seed: int) -> dict[str, Tensor]:
    """Train the recipe's model on the rows of the same order; its weights at the end."""
    model = AutoModelForCausalLM.from_pretrained(Path(recipe.model.path)).train()
    data, training = Workspace().encoded(recipe), recipe.training
    order = RowOrder(len(data), training.batch_rows, derive(seed, "order"))
    steps = training.length.steps
    assert steps is not None
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.999), weight_decay=training.optimizer.weight_decay)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = training.optimizer.learning_rate * factor(training.schedule, step, steps)
        naive_loss(model, [data[row] for row in order.batch(step)], recipe).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def naive_loss(model: Any, rows: Sequence[EncodedRow], recipe: Recipe) -> Tensor:
    """The recipe's loss with the default options of its supervisions."""
    objective = recipe.objective
    loss = _answer_loss(model, rows, "target_answer", None)
    for name, options in objective.supervisions.items():
        layer, conversion = int(options.layer), name == "conversion"
        if name == "alignment":
            loss = loss + options.weight * _alignment_loss(model, rows, layer)
            continue
        if options.supervision == "logits":
            text = "english_query" if conversion else "english_answer"
            loss = loss + options.weight * _answer_loss(model, rows, text, layer, detach=options.detach_head)
        else:
            english = _pooled(model, rows, "english_prompt", layer if conversion else -1)
            target = _pooled(model, rows, "target_prompt", layer)
            loss = loss + options.weight * (1 - F.cosine_similarity(english, target)).mean()
    return loss


def _answer_loss(
    model: Any, rows: Sequence[EncodedRow], text: str, layer: int | None, *, detach: bool = False
) -> Tensor:
    """Mean over the tokens of ``text`` after the target prompt; of the model's own logits where no layer is named."""
    prompts = [row.segments["target_prompt"] for row in rows]
    states, logits = _padded(model, [[*p, *row.segments[text]] for p, row in zip(prompts, rows, strict=True)])
    if layer is not None:
        norm, head = model.model.norm, model.lm_head.weight
        constants = {"weight": norm.weight.detach() if detach else norm.weight}
        logits = torch.func.functional_call(norm, constants, (states[layer],)) @ (head.detach() if detach else head).T
    labels = torch.full(logits.shape[:2], -100)
    for n, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
        end = len(prompt) + len(row.segments[text])
        labels[n, len(prompt) - 1 : end - 1] = torch.tensor(row.segments[text])
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)


def _alignment_loss(model: Any, rows: Sequence[EncodedRow], layer: int) -> Tensor:
    """InfoNCE of each target query among the English queries of all rows."""
    english, target = (F.normalize(_pooled(model, rows, f"{side}_prompt", layer), dim=1) for side in SIDES)
    return F.cross_entropy(target @ english.T / 0.1, torch.arange(len(rows)))


def _pooled(model: Any, rows: Sequence[EncodedRow], prompt: str, layer: int) -> Tensor:
    """[rows, width]: mean over the query's tokens; layer -1 is the top after its norm."""
    states = _padded(model, [row.segments[prompt] for row in rows])[0][layer]
    return torch.stack([states[n, list(row.spans[prompt])].mean(0) for n, row in enumerate(rows)])


def _padded(model: Any, sequences: Sequence[Sequence[int]]) -> tuple[tuple[Tensor, ...], Tensor]:
    longest = max(map(len, sequences))
    ids = torch.tensor([[*tokens, *[0] * (longest - len(tokens))] for tokens in sequences])
    mask = torch.tensor([[1] * len(tokens) + [0] * (longest - len(tokens)) for tokens in sequences])
    out = model(ids, attention_mask=mask, output_hidden_states=True, use_cache=False)
    return out.hidden_states, out.logits
