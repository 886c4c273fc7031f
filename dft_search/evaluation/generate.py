"""Greedy continuations of prompts, batch by batch, with cached keys and values."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text
from torch import Tensor
from transformers import DynamicCache, RepetitionPenaltyLogitsProcessor

from dft_search.config import Problem, RequestError
from dft_search.evaluation.likelihoods import logits_of
from dft_search.evaluation.spread import Passes
from dft_search.models.live import LiveModel
from dft_search.models.structure import body, causal_lm

Text = tuple[int, str, bool]  # request, continuation, whether it came to its end within the tokens it may have

DEFAULT_TOKENS = 256  # as the harness
# of keys and values, at most; a longer prompt makes a batch of its own
_CACHE_BYTES = {"cpu": 2**28}
_CACHE_BYTES_ACCELERATOR = 2**32
_ROWS = 64
# a small job is cut finer, so that ranks can share it, but the weights are read for so many rows at once
_BATCHES_AT_LEAST, _ROWS_AT_LEAST = 16, 8
# of sampling: without effect on greedy decoding
_IGNORED = ("temperature", "top_p", "top_k", "min_p", "typical_p")


@dataclass(frozen=True, slots=True)
class Decoding:
    """How to continue a prompt.

    Attributes:
        until: the text ends before the first of these.
        new_tokens: at most so many.
        repetition_penalty: divides the logits of tokens that are there already (Keskar et al. 2019); 1 for none.
    """

    until: tuple[str, ...]
    new_tokens: int
    repetition_penalty: float


@dataclass(frozen=True, slots=True)
class Prompts:
    """A batch: requests and the tokens of their prompts, the longest first."""

    requests: list[int]
    rows: list[list[int]]
    decoding: Decoding

    @property
    def cost(self) -> int:
        """Padded tokens at most."""
        return len(self.rows) * (len(self.rows[0]) + self.decoding.new_tokens)


def decoding_of(live: LiveModel, options: dict[str, Any]) -> Decoding:
    """Read a request's generation options as the harness does.

    Args:
        live: its generation config has the default of ``repetition_penalty``.
        options: ``until``, ``max_gen_toks`` (or one of its other names), ``repetition_penalty``; sampling is refused.

    Raises:
        RequestError: what is asked for is not greedy decoding, or leaves no room for a prompt.
    """
    given = dict(normalize_gen_kwargs(options, DEFAULT_TOKENS))
    until, tokens = given.pop("until"), given.pop("max_gen_toks")
    if given.pop("do_sample"):
        raise RequestError(Problem("a live model does not sample", key="do_sample", expected="false: greedy decoding"))
    if not 0 < tokens < live.max_length:
        expected = f"1 to {live.max_length - 1}: prompt and continuation share {live.max_length} tokens"
        raise RequestError(Problem(f"{tokens} new tokens are not possible", key="max_gen_toks", expected=expected))
    usual = getattr(causal_lm(live.model).generation_config, "repetition_penalty", None)
    penalty = given.pop("repetition_penalty", usual) or 1.0
    beams = given.pop("num_beams", 1)
    unknown = sorted(set(given) - set(_IGNORED)) + ["num_beams"] * (beams != 1)
    if unknown:
        message = f"a live model has no generation option '{unknown[0]}'"
        raise RequestError(Problem(message, expected="until, max_gen_toks, do_sample, repetition_penalty"))
    eos = live.tokenizer.decode(live.tokenizer.eos_token_id)
    return Decoding(tuple(dict.fromkeys([*until, eos])), tokens, float(penalty))


def group(
    prompts: Sequence[list[int]], decodings: Sequence[Decoding], live: LiveModel, least: int = _BATCHES_AT_LEAST
) -> list[Prompts]:
    """Batches of prompts that are continued alike, longest first; a prompt that is too long loses its beginning.

    The same for every number of ranks.

    Args:
        least: batches to make of many prompts, for ranks to share.
    """
    config = causal_lm(live.model).config
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    size = next(live.model.parameters()).element_size()
    a_token = 2 * config.num_hidden_layers * config.num_key_value_heads * width * size
    budget = _CACHE_BYTES.get(live.device.type, _CACHE_BYTES_ACCELERATOR) // a_token
    batches: list[Prompts] = []
    for decoding in dict.fromkeys(decodings):
        members = [number for number, other in enumerate(decodings) if other == decoding]
        most = min(_ROWS, max(_ROWS_AT_LEAST, len(members) // least))
        batch: Prompts | None = None
        for number in sorted(members, key=lambda number: len(prompts[number]), reverse=True):
            row = prompts[number][decoding.new_tokens - live.max_length :]
            if batch is None or len(batch.rows) >= min(most, budget // (len(batch.rows[0]) + decoding.new_tokens)):
                batch = Prompts([], [], decoding)
                batches.append(batch)
            batch.requests.append(number)
            batch.rows.append(row)
    return batches


def generate(live: LiveModel, batches: Sequence[Prompts], found: list[Text]) -> Passes:
    """Continue every batch; the texts go to ``found``. A row leaves its batch when it is done."""
    for batch in batches:
        yield from _generate(live, batch, found)


def _generate(live: LiveModel, batch: Prompts, found: list[Text]) -> Passes:
    decoding, ends, width = batch.decoding, _end_tokens(live), len(batch.rows[0])
    # padding is on the left and masked; a row's own first token changes nothing for the penalty either
    seen = torch.tensor([row[:1] * (width - len(row)) + row for row in batch.rows], device=live.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in batch.rows], device=live.device)
    penalize = RepetitionPenaltyLogitsProcessor(decoding.repetition_penalty)
    cache = DynamicCache(config=causal_lm(live.model).config)
    living = list(range(len(batch.rows)))
    written: list[list[int]] = [[] for _ in living]
    fresh = seen
    for left in reversed(range(decoding.new_tokens)):
        yield
        chosen = penalize(seen, _next_logits(live, fresh, mask, cache)).argmax(-1)
        kept = []
        for place, (row, token) in enumerate(zip(living, chosen.tolist(), strict=True)):
            written[row].append(token)
            text = live.tokenizer.decode(written[row], skip_special_tokens=True)
            ended = token in ends or _stops(text, decoding.until)
            if left == 0 or ended:
                found.append((batch.requests[row], _cut(text, decoding.until), ended))
            else:
                kept.append(place)
        if not kept:
            return
        if len(kept) < len(living):
            places = torch.tensor(kept, device=live.device)
            cache.batch_select_indices(places)
            chosen, seen, mask = chosen[places], seen[places], mask[places]
            living = [living[place] for place in kept]
        fresh = chosen[:, None]
        seen, mask = torch.cat([seen, fresh], 1), torch.cat([mask, torch.ones_like(fresh)], 1)


def _next_logits(live: LiveModel, fresh: Tensor, mask: Tensor, cache: DynamicCache) -> Tensor:
    """Logits [rows, V] after the tokens ``fresh`` [rows, T], which the cache then holds too."""
    positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -fresh.shape[1] :]
    out = body(live.model)(
        input_ids=fresh, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
    )
    return logits_of(live.model, out.last_hidden_state[:, -1])


def _end_tokens(live: LiveModel) -> set[int]:
    """The model's own end tokens (a chat model has several) and the tokenizer's."""
    ends = getattr(causal_lm(live.model).generation_config, "eos_token_id", None)
    many = ends if isinstance(ends, list) else [ends]
    return {token for token in (*many, live.tokenizer.eos_token_id) if token is not None}


def _cut(text: str, until: Sequence[str]) -> str:
    """The text before the first stop string, cut in the harness's order."""
    return postprocess_generated_text(text, list(until), None)


def _stops(text: str, until: Sequence[str]) -> bool:
    """Whether no more tokens can change what is left of ``text`` when it is cut.

    One stop string may have begun before another one that is complete.
    """
    kept = len(_cut(text, until))
    longest = max(map(len, until))
    begun = (text[start:] for start in range(max(0, len(text) - longest + 1), kept))
    return kept < len(text) and not any(stop.startswith(tail) for tail in begun for stop in until)
