"""The arms of the step benchmark: one optimizer step's forward and backward passes, each by another engine.

All arms read the same rows in the same micro-batches, divide by the same counts and return the step's loss; gradients
stay on the arm's model. Tensors are made beforehand; moving them to the device counts.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dft_search.data.encode import EncodedRow
from dft_search.models.flops import Flops, HeadRead, pass_flops
from dft_search.models.forward import segmented_forward
from dft_search.models.segments import Plan, Segment, make_plan
from dft_search.objectives import module as objective_module
from dft_search.objectives.batch import BaseRow, Batch, collate
from dft_search.objectives.flops import batch_flops
from dft_search.objectives.module import ObjectiveModule
from dft_search.objectives.options import Objective
from dft_search.objectives.terms import DistilTerm, PairTerm, TokenTerm
from dft_search.objectives.turns import base_turn

IGNORED = -100
Rows = Sequence[EncodedRow]
Micro = Sequence[Rows]


@dataclass(frozen=True)
class Arm:
    """One way to compute a step.

    Attributes:
        name: of the arm.
        objective: ``tft``, ``logits`` or ``feature``; arms of one objective compute the same loss.
        step: forward and backward over all micro-batches; returns the loss.
        model: gets the gradients.
        needed: operations that the objective's reads need: of the bound.
        executed: operations of the pass that the arm runs, its padding and unread logits included (pairs above the
            diagonal and what is computed twice are not counted, for any arm).
        head: what comes after the blocks alone, for arms of our own.
        blocks: blocks and embedding of the step alone, for arms of our own.
    """

    name: str
    objective: str
    step: Callable[[], float]
    model: nn.Module
    needed: Flops
    executed: Flops
    head: Callable[[], Any] | None = None
    blocks: Callable[[], Any] | None = None


def own_arm(kind: str, model: nn.Module, objective: Objective, micro: Micro, has_bos: bool) -> Arm:
    """This project's step; the arm is called like its objective."""
    module = ObjectiveModule(model, objective)
    layers = int(model.config.num_hidden_layers)
    batches = [
        collate(rows, objective, layers, has_bos=has_bos, base=_said(module, rows, objective, has_bos))
        for rows in micro
    ]
    counts = torch.stack([batch.counts for batch in batches]).sum(0)
    device = next(model.parameters()).device

    def step() -> float:
        total = 0.0
        for batch in batches:
            loss, _ = module(batch.to(device), counts)
            loss.backward()
            total += loss.item()
        return total

    cost = sum((batch_flops(module, batch) for batch in batches), Flops())
    head, blocks = _head_alone(module, batches, counts), _blocks_alone(module, batches)
    return Arm(kind, kind, step, model, cost, cost, head, blocks)


def _said(module: ObjectiveModule, rows: Rows, objective: Objective, has_bos: bool) -> list[BaseRow] | None:
    """What the untrained base says, which a study computes once: it is no part of a step."""
    turn = base_turn(module.terms)
    if not turn.read:
        return None
    batch = collate(rows, objective, len(module.model.model.layers), has_bos=has_bos, turn=turn)
    return [*module.base_rows(batch.to(next(module.parameters()).device))]


def _head_alone(module: ObjectiveModule, batches: Sequence[Batch], counts: Tensor) -> Callable[[], None]:
    """All that a step does after its blocks, forward and backward, on states that nothing came before."""
    device = next(module.parameters()).device
    layers = {layer for layer, _ in reads_of(module, batches[0], device)}
    inputs = []
    for batch in batches:
        with torch.no_grad():
            states = segmented_forward(module.model, batch.to(device).plan, layers)
        inputs.append((batch, {layer: state.requires_grad_() for layer, state in states.items()}))

    def step() -> None:
        for batch, states in inputs:
            for state in states.values():
                state.grad = None
            with mock.patch.object(objective_module, "segmented_forward", lambda *_, given=states: given):
                loss, _ = module(batch.to(device), counts)
            loss.backward()

    return step


def reads_of(module: ObjectiveModule, batch: Batch, device: torch.device) -> list[tuple[int, Tensor]]:
    """Layers and flat indices of all states that the terms read."""
    reads: list[tuple[int, Tensor]] = []
    for term in module.terms:
        if isinstance(term, TokenTerm):
            if term.name not in batch.shared:
                reads.append((term.layer, batch.labels[term.name].index.to(device)))
        elif isinstance(term, PairTerm):
            reads.append((term.layer, batch.pairs[term.name].labels.index.to(device)))
        elif isinstance(term, DistilTerm):
            reads.append((term.layer, batch.distilled[term.name].index.to(device)))
        else:
            for side, pool in zip((term.english, term.target), batch.pools[term.name], strict=True):
                reads.append((side.layer, pool.index[pool.real].to(device)))
    return reads


def _blocks_alone(module: ObjectiveModule, batches: Sequence[Batch]) -> Callable[[], None]:
    """The segmented pass, forward and backward, with a gradient of ones at every state that a term reads."""
    device = next(module.parameters()).device
    inputs = [(batch, reads_of(module, batch, device)) for batch in batches]

    def step() -> None:
        for batch, reads in inputs:
            states = segmented_forward(module.model, batch.to(device).plan, {layer for layer, _ in reads})
            torch.stack([states[layer][index].sum() for layer, index in reads]).sum().backward()

    return step


@dataclass(frozen=True)
class Padded:
    """A micro-batch as people pad it: ``labels`` are those of the same position, to be shifted by the model."""

    ids: Tensor
    mask: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> "Padded":
        return Padded(self.ids.to(device), self.mask.to(device), self.labels.to(device))

    def plan(self, layers: int) -> Plan:
        """The pass that a model makes of it, padding included."""
        return make_plan([Segment(row, layers) for row in self.ids.tolist()])


def padded(prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> Padded:
    """Prompts with their answers, filled up at the right; labels at the answers."""
    width = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))

    def filled(rows: list[list[int]], value: int) -> Tensor:
        return torch.tensor([row + [value] * (width - len(row)) for row in rows])

    whole = [[*p, *a] for p, a in zip(prompts, answers, strict=True)]
    labels = [[IGNORED] * len(p) + list(a) for p, a in zip(prompts, answers, strict=True)]
    return Padded(filled(whole, 0), filled([[1] * len(row) for row in whole], 0), filled(labels, IGNORED))


def _answers(rows: Rows, segment: str) -> Padded:
    return padded([row.segments["target_prompt"] for row in rows], [row.segments[segment] for row in rows])


def padded_flops(model: nn.Module, batch: Padded, layer: int, *, logits: bool = True, attached: bool = True) -> Flops:
    """Of a padded pass through all blocks whose states at ``layer`` are read, with logits of every position or none."""
    layers = int(model.config.num_hidden_layers)
    heads = [HeadRead(layer, batch.ids.numel(), attached)] if logits else []
    return pass_flops(model, batch.plan(layers), heads, [layer] * len(batch.ids))


def padded_arm(model: nn.Module, micro: Micro, needed: Flops) -> Arm:
    """Plain fine-tuning with transformers, as written by hand: length-grouped, padded, the model's own loss."""
    batches = [_answers(rows, "target_answer") for rows in micro]
    count = sum(int((batch.labels != IGNORED).sum()) for batch in batches)
    lm: Any = model
    device, layers = next(model.parameters()).device, lm.config.num_hidden_layers

    def step() -> float:
        total = 0.0
        for batch in batches:
            given = batch.to(device)
            loss = lm(
                input_ids=given.ids,
                attention_mask=given.mask,
                labels=given.labels,
                use_cache=False,
                num_items_in_batch=count,
            ).loss
            loss.backward()
            total += loss.item()
        return total

    executed = sum((padded_flops(model, batch, layers) for batch in batches), Flops())
    return Arm("transformers", "tft", step, model, needed, executed)


class _Naive:
    """DFT as its formulas read: for each loss a full forward pass over padded rows, with logits of every position."""

    def __init__(self, model: nn.Module, objective: Objective):
        self.model: Any = model
        self.layers = self.model.config.num_hidden_layers
        self.objective = objective.resolved(self.layers)
        self.device = next(model.parameters()).device

    def hidden(self, batch: Padded) -> tuple[Tensor, ...]:
        """h_0 .. h_L; the last one is after the final norm."""
        return self.model.model(
            input_ids=batch.ids, attention_mask=batch.mask, output_hidden_states=True, use_cache=False
        ).hidden_states

    def token_loss(self, batch: Padded, layer: int, detach: bool, count: int) -> Tensor:
        """Cross entropy at a layer, of the labels, over ``count``."""
        batch = batch.to(self.device)
        states = self.hidden(batch)[layer]
        norm, weight = self.model.model.norm, self.model.lm_head.weight
        if layer < self.layers:
            constants = {name: parameter.detach() for name, parameter in norm.named_parameters()}
            states = torch.func.functional_call(norm, constants, (states,)) if detach else norm(states)
        logits = F.linear(states, weight.detach() if detach else weight)
        cap = getattr(self.model.config, "final_logit_softcapping", None)
        logits = logits if cap is None else cap * torch.tanh(logits / cap)
        return self.model.loss_function(
            logits=logits, labels=batch.labels, vocab_size=weight.shape[0], num_items_in_batch=count
        )

    def state_loss(self, rows: Rows, english_layer: int, target_layer: int, count: int) -> Tensor:
        """1 - cosine of pooled queries over ``count``: one pass over the prompts of both languages."""
        states = self.hidden(_both_prompts(rows).to(self.device))
        spans = [row.spans[f"{side}_prompt"] for side in ("english", "target") for row in rows]
        layers = [english_layer] * len(rows) + [target_layer] * len(rows)
        pooled = [states[layer][n, span].mean(0) for n, (layer, span) in enumerate(zip(layers, spans, strict=True))]
        english, target = torch.stack(pooled[: len(rows)]), torch.stack(pooled[len(rows) :])
        return (1 - F.cosine_similarity(english, target, -1)).sum() / count


def _both_prompts(rows: Rows) -> Padded:
    prompts = [row.segments[f"{side}_prompt"] for side in ("english", "target") for row in rows]
    return padded(prompts, [[] for _ in prompts])


def naive_arm(name: str, kind: str, model: nn.Module, objective: Objective, micro: Micro, needed: Flops) -> Arm:
    """The naive step; each loss is taken back before the next one, so that memory is that of one loss."""
    naive = _Naive(model, objective)
    inner = naive.objective
    low, high, top = int(inner.conversion.layer), int(inner.thinking.layer), naive.layers
    reads = [("target_answer", top, False)]
    if kind == "logits":
        reads += [
            ("english_query", low, inner.conversion.detach_head),
            ("english_answer", high, inner.thinking.detach_head),
        ]
    losses: list[Callable[[], Tensor]] = []
    executed = Flops()
    counts = {segment: sum(len(row.segments[segment]) for rows in micro for row in rows) for segment, _, _ in reads}
    for rows in micro:
        for segment, layer, detach in reads:
            batch = _answers(rows, segment)
            losses.append(lambda b=batch, n=layer, d=detach, c=counts[segment]: naive.token_loss(b, n, d, c))  # type: ignore[misc]
            executed += padded_flops(model, batch, layer, attached=not detach)
    if kind == "feature":
        count = sum(map(len, micro))
        for rows in micro:
            for english, target in ((low, low), (top, high)):
                losses.append(lambda r=rows, e=english, t=target: naive.state_loss(r, e, t, count))  # type: ignore[misc]
                executed += _state_flops(model, rows, english, target)

    def step() -> float:
        total = 0.0
        for loss_of in losses:
            loss = loss_of()
            loss.backward()
            total += loss.item()
        return total

    return Arm(name, kind, step, model, needed, executed)


def _state_flops(model: nn.Module, rows: Rows, english: int, target: int) -> Flops:
    """A pass over both prompts; a padded batch's states are one tensor, so all rows go back from the deeper layer."""
    return padded_flops(model, _both_prompts(rows), max(english, target), logits=False)


def agreement(arms: Sequence[Arm], tolerance: float) -> Mapping[str, float]:
    """Compute every arm's loss once.

    Returns:
        The loss by objective, as our own arm has it.

    Raises:
        AssertionError: two arms of one objective differ by more than ``tolerance``, relative, in their loss, or by ten
            times as much in their gradients. (The loss of a random model says little: it is nearly that of a uniform
            guess, whatever was read.)
    """
    first: dict[str, tuple[str, float, dict[str, Tensor]]] = {}
    for arm in arms:
        clear(arms)
        loss = arm.step()
        if arm.objective not in first:
            first[arm.objective] = (arm.name, loss, {name: grad.clone() for name, grad in _gradients(arm.model)})
            continue
        name, other, others = first[arm.objective]
        difference = abs(loss - other) / abs(other)
        text = f"the loss of {arm.name} is {loss}, of {name} {other}"
        assert difference <= tolerance, f"{text}: they differ by {difference:.2e}"
        mine = dict(_gradients(arm.model))
        assert mine.keys() == others.keys(), f"{arm.name} and {name} give gradients to other parameters"
        apart = sum(float((mine[key] - others[key]).double().square().sum()) for key in others)
        whole = sum(float(grad.double().square().sum()) for grad in others.values())
        difference = math.sqrt(apart / whole)
        text = f"the gradients of {arm.name} and of {name} differ by {difference:.2e}"
        assert difference <= 10 * tolerance, text
    clear(arms)
    return {objective: loss for objective, (_, loss, _) in first.items()}


def _gradients(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [(name, parameter.grad) for name, parameter in model.named_parameters() if parameter.grad is not None]


def clear(arms: Sequence[Arm]) -> None:
    """Take the gradients off all models."""
    for model in {id(arm.model): arm.model for arm in arms}.values():
        model.zero_grad(set_to_none=True)
