"""The terms computed the slow way: a full, unpacked forward pass of transformers' own model for each sequence."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dft_search.data.encode import EncodedRow
from dft_search.objectives.options import Objective

IGNORED = -100


def reference_terms(model: Any, rows: list[EncodedRow], objective: Objective) -> dict[str, Tensor]:
    """Mean of each term over its tokens or rows, with gradients.

    Args:
        model: switched by nothing; a peft model is called as it is.
    """
    return _Reference(model, objective).terms(rows)


class _Reference:
    def __init__(self, model: Any, objective: Objective):
        self.model = model
        self.inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.depth = self.inner.config.num_hidden_layers
        self.objective = objective.resolved(self.depth)

    def terms(self, rows: list[EncodedRow]) -> dict[str, Tensor]:
        method = self.objective.method
        if method == "lm":
            return {"generation": self._mean_loss(rows, lambda row: self._text(row.segments["text"]))}
        language = "english" if method == "sft" else "target"
        prompt, answer = f"{language}_prompt", f"{language}_answer"
        found = {"generation": self._mean_loss(rows, lambda row: self._after(row, prompt, answer, self.depth, {}))}
        if method in ("tft", "clo"):  # the other terms have references of their own in test_preference.py
            return found
        if method == "mid_align":
            return found | {"alignment": self._alignment(rows)}
        if method != "dft":
            return found
        conversion, thinking = self.objective.conversion, self.objective.thinking
        if conversion.supervision == "logits":
            found["conversion"] = self._mean_loss(rows, self._conversion)
        if conversion.supervision == "feature":
            found["conversion"] = torch.stack([self._conversion_feature(row) for row in rows]).mean()
        if thinking.supervision == "logits":
            found["thinking"] = self._mean_loss(rows, self._thinking)
        if thinking.supervision == "feature":
            found["thinking"] = torch.stack([self._thinking_feature(row) for row in rows]).mean()
        if self.objective.alignment.supervision != "none":
            found["alignment"] = self._alignment(rows)
        return found

    def _states(self, tokens: list[int]) -> list[Tensor]:
        """h_0 .. h_L of one sequence, all before the final norm, [tokens, width] each."""
        before_norm: list[Tensor] = []
        hook = self.inner.model.norm.register_forward_pre_hook(lambda _, inputs: before_norm.append(inputs[0]))
        found = self.model(input_ids=torch.tensor([tokens]), output_hidden_states=True, use_cache=False).hidden_states
        hook.remove()
        return [state[0] for state in (*found[:-1], before_norm[0])]

    def _logits(self, states: Tensor, norm: bool, detach: bool) -> Tensor:
        head, final = self.inner.lm_head.weight, self.inner.model.norm
        if detach:
            head = head.detach()
            constants = {name: parameter.detach() for name, parameter in final.named_parameters()}
            states = torch.func.functional_call(final, constants, (states,)) if norm else states
        elif norm:
            states = final(states)
        logits = states @ head.T
        cap = getattr(self.inner.config, "final_logit_softcapping", None)
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def _mean_loss(self, rows: list[EncodedRow], one: Callable[[EncodedRow], tuple[Tensor, int]]) -> Tensor:
        parts = [one(row) for row in rows]
        return torch.stack([loss for loss, _ in parts]).sum() / max(1, sum(count for _, count in parts))

    def _text(self, tokens: list[int]) -> tuple[Tensor, int]:
        logits = self._logits(self._states(tokens)[-1], True, False)
        return F.cross_entropy(logits[:-1], torch.tensor(tokens[1:]), reduction="sum"), len(tokens) - 1

    def _after(self, row: EncodedRow, prompt: str, text: str, layer: int, how: dict[str, bool]) -> tuple[Tensor, int]:
        before, labels = row.segments[prompt], row.segments[text]
        states = self._states([*before, *labels])[layer]
        logits = self._logits(states, how.get("norm", True), how.get("detach", False))
        return F.cross_entropy(logits[len(before) - 1 : -1], torch.tensor(labels), reduction="sum"), len(labels)

    def _beside(self, row: EncodedRow, places: list[int], text: str, layer: int, detach: bool) -> tuple[Tensor, int]:
        tokens = [*row.segments["target_prompt"], *row.segments["target_answer"]]
        labels = torch.full((len(tokens),), IGNORED)
        for place, label in zip(places, row.segments[text], strict=False):
            labels[place] = label
        logits = self._logits(self._states(tokens)[layer], self.objective.inner_norm, detach)
        if self.objective.reading == "position_wise":
            logits, labels = logits[:-1], labels[1:]
        loss = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
        return loss, int((labels != IGNORED).sum())

    def _conversion(self, row: EncodedRow) -> tuple[Tensor, int]:
        options = self.objective.conversion
        layer, detach = int(options.layer), options.detach_head
        if self.objective.reading == "teacher_forced":
            how = {"norm": self.objective.inner_norm, "detach": detach}
            return self._after(row, "target_prompt", "english_query", layer, how)
        places = row.spans["target_prompt"]
        if options.text == "prompt":
            places = list(range(1, len(row.segments["target_prompt"])))
        return self._beside(row, places, "english_query", layer, detach)

    def _thinking(self, row: EncodedRow) -> tuple[Tensor, int]:
        options = self.objective.thinking
        layer, detach = int(options.layer), options.detach_head
        if self.objective.reading == "teacher_forced":
            how = {"norm": self.objective.inner_norm, "detach": detach}
            return self._after(row, "target_prompt", "english_answer", layer, how)
        first = len(row.segments["target_prompt"])
        places = list(range(first, first + len(row.segments["target_answer"])))
        return self._beside(row, places, "english_answer", layer, detach)

    def _pool(self, row: EncodedRow, language: str, options: Any, layer: int, norm: bool) -> Tensor:
        prompt, answer = row.segments[f"{language}_prompt"], row.segments[f"{language}_answer"]
        tokens = [*prompt, *answer] if options.span == "prompt_and_answer" else prompt
        states = self._states(tokens)[layer]
        if norm:
            states = self.inner.model.norm(states)
        first = 1 if options.skip_bos else 0
        states = states[row.spans[f"{language}_prompt"]] if options.span == "query" else states[first:]
        if options.pooling == "mean":
            return states.mean(0)
        return states[-1] if options.pooling == "last" else states.max(0).values

    def _conversion_feature(self, row: EncodedRow) -> Tensor:
        options = self.objective.conversion
        english = self._pool(row, "english", options, int(options.layer), False)
        target = self._pool(row, "target", options, int(options.layer), False)
        return 1 - F.cosine_similarity(english.detach() if options.stop_gradient_english else english, target, 0)

    def _thinking_feature(self, row: EncodedRow) -> Tensor:
        options = self.objective.thinking
        english = self._pool(row, "english", options, self.depth, options.top_state != "pre_norm")
        target = self._pool(row, "target", options, int(options.layer), options.top_state == "norm_both")
        return 1 - F.cosine_similarity(english.detach() if options.stop_gradient_english else english, target, 0)

    def _alignment(self, rows: list[EncodedRow]) -> Tensor:
        options = self.objective.alignment
        layer = int(options.layer)
        english = [self._pool(row, "english", options, layer, False) for row in rows]
        target = [self._pool(row, "target", options, layer, False) for row in rows]
        if options.stop_gradient_english:
            english = [state.detach() for state in english]
        losses = [self._found(target[b], english, b) for b in range(len(rows))]
        if options.symmetric:
            losses += [self._found(english[b], target, b) for b in range(len(rows))]
        return torch.stack(losses).mean()

    def _found(self, anchor: Tensor, candidates: list[Tensor], own: int) -> Tensor:
        """InfoNCE of one anchor: -log of its own candidate's share."""
        scores = [
            torch.exp(F.cosine_similarity(anchor, candidate, 0) / self.objective.alignment.temperature)
            for candidate in candidates
        ]
        return -torch.log(scores[own] / torch.stack(scores).sum())
