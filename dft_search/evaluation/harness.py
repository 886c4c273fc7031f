"""A live model as a language model of lm-evaluation-harness, its work spread over the ranks."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from torch import Tensor

from dft_search.config import Problem, RequestError
from dft_search.evaluation.batches import Batch, Read, plan, share
from dft_search.models.live import LiveModel
from dft_search.models.structure import body, head, logit_softcap

Encodings = dict[tuple[str, str], tuple[list[int], list[int]]]  # (context, continuation) -> their tokens
Result = tuple[int, float, int]  # request, log-likelihood in nats, matched tokens

LOGITS_AT_ONCE = 2**25  # positions x vocabulary, 128 MiB in float32
logger = logging.getLogger(__name__)


class Likelihood(tuple[float, bool]):
    """(log-likelihood in nats, greedy) of a continuation, as the harness expects it, with token counts beside it.

    Attributes:
        value: the log-likelihood of the scored tokens.
        tokens: length of the continuation.
        scored: tokens that fitted in the model's window; fewer than ``tokens`` only for an overlong continuation.
        matched: scored tokens that have the highest probability, given the right tokens before them.
    """

    value: float
    tokens: int
    scored: int
    matched: int

    def __new__(cls, value: float, tokens: int, scored: int, matched: int) -> "Likelihood":
        self = super().__new__(cls, (value, matched == scored))
        self.value, self.tokens, self.scored, self.matched = value, tokens, scored, matched
        return self


class LiveLM(TemplateLM):
    """Log-likelihoods under a live model, sharded or not.

    Tokens are those of the harness's own ``HFLM``: context and continuation are encoded together and cut at the length
    of the context alone, its trailing spaces moved to the continuation; a text that is too long loses its beginning.
    Two cases in which ``HFLM`` stops are scored: a continuation that the tokenizer merges into the context is encoded
    by itself, and one that is longer than the window by itself is scored up to the window's length.

    To the harness this is one process (``rank`` 0 of 1): every rank is given all requests and returns all results.
    """

    def __init__(self, live: LiveModel, encodings: Encodings | None = None):
        """Take the model on its ranks, and the tokens of earlier requests under its tokenizer (filled further)."""
        super().__init__()
        self._live = live
        self._device = live.device
        self._encodings = {} if encodings is None else encodings
        self.tokenizer = live.tokenizer

    @property
    def eot_token_id(self) -> int:
        """The end-of-sequence token."""
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """The token before a continuation without context: beginning of sequence, else end of sequence."""
        begin = self.tokenizer.bos_token_id
        return self.eot_token_id if begin is None else begin

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Tokens of a text; the tokenizer adds its special tokens unless the text has them or the flag says no."""
        if add_special_tokens is None:
            add_special_tokens = not string.startswith(self.tokenizer.decode(self.prefix_token_id))
        return self.tokenizer.encode(string, add_special_tokens=add_special_tokens)

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        pair = self._encodings.get((context, continuation))
        if pair is None:
            pair = super()._encode_pair(context, continuation)
            if not pair[1]:
                pair = pair[0], self.tok_encode(continuation, add_special_tokens=False)
            if not pair[1]:
                raise RequestError(Problem(f"the tokenizer has no token for the answer '{continuation.strip()[:60]}'"))
            self._encodings[context, continuation] = pair
        return pair

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[Likelihood]:
        """Log-likelihood of every continuation given its context. Collective: all ranks pass the same requests.

        Args:
            requests: instances whose arguments are (context, continuation).
            disable_tqdm: as in the harness; off, since ranks would draw over each other.

        Returns:
            One result a request, in order, the same on every rank.
        """
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], disable_tqdm: bool = True, **_: Any
    ) -> list[Likelihood]:
        live = self._live
        reads, batches = plan([pair[1:] for pair in requests], live.max_length, live.device.type)
        mine = share([batch.cost for batch in batches], live.world_size)[live.rank]
        found: list[Result] = []
        failure: Exception | None = None
        try:
            with live.gathered():  # full weights on every rank, eval mode, no gradients
                for index in mine:
                    found += _score(live, batches[index])
        except Exception as error:  # kept until all ranks have met below, or the others would wait there for ever
            failure = error
        results = _exchange(live, found, failure)
        overlong = 0
        answers: list[Likelihood] = []
        for read, (_request, value, matched) in zip(reads, sorted(results), strict=True):
            tokens = len(requests[read.request][2])
            overlong += len(read.targets) < tokens
            answers.append(Likelihood(value, tokens, len(read.targets), matched))
        if overlong and live.rank == 0:
            logger.warning("%d answers are longer than the window of %d tokens", overlong, live.max_length)
        return answers

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> NoReturn:
        """Not offered: task files cannot ask for it."""
        raise RequestError("a live model answers loglikelihood requests only")

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> NoReturn:
        """Not offered: task files cannot ask for it."""
        raise RequestError("a live model answers loglikelihood requests only")


def _score(live: LiveModel, batch: Batch) -> list[Result]:
    """One forward pass; the head sees only positions that some continuation needs, a bounded number at a time."""
    width = len(batch.rows[0])
    tokens = torch.zeros(len(batch.rows), width, dtype=torch.long)
    for index, row in enumerate(batch.rows):
        tokens[index, : len(row)] = torch.tensor(row)
    # padding is on the right, where a causal model cannot see it from any real token
    states = body(live.model)(input_ids=tokens.to(live.device), use_cache=False).last_hidden_state.flatten(0, 1)

    positions, labels, owners = _labels(batch.reads, width)
    needed, place = positions.unique(return_inverse=True)
    order = place.argsort(stable=True)
    place, labels, owners = place[order], labels[order], owners[order]
    values = torch.zeros(len(batch.reads), dtype=torch.float64)
    matched = torch.zeros(len(batch.reads), dtype=torch.long)
    project, softcap = head(live.model), logit_softcap(live.model)
    rows = max(1, LOGITS_AT_ONCE // project.weight.shape[0])
    for begin in range(0, len(needed), rows):
        states_here = states[needed[begin : begin + rows].to(live.device)]
        low, high = torch.searchsorted(place, torch.tensor([begin, begin + rows])).tolist()
        local, label = (place[low:high] - begin).to(live.device), labels[low:high].to(live.device)
        logits = project(states_here).float()
        if softcap is not None:
            logits = softcap * torch.tanh(logits / softcap)
        gain = logits[local, label] - logits.logsumexp(-1)[local]
        values.index_add_(0, owners[low:high], gain.cpu().double())
        matched.index_add_(0, owners[low:high], (logits.argmax(-1)[local] == label).cpu().long())
    requests = [read.request for read in batch.reads]
    return list(zip(requests, values.tolist(), matched.tolist(), strict=True))


def _labels(reads: Sequence[Read], width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Flat position in the padded batch, next token, and index of the read, of every token that is scored."""
    positions: list[int] = []
    labels: list[int] = []
    owners: list[int] = []
    for index, read in enumerate(reads):
        start = read.row * width + read.start
        positions += range(start, start + len(read.targets))
        labels += read.targets
        owners += [index] * len(read.targets)
    return torch.tensor(positions), torch.tensor(labels), torch.tensor(owners)


@dataclass(frozen=True, slots=True)
class _Failure:
    """What went wrong on another rank."""

    rank: int
    message: str
    out_of_memory: bool


def _exchange(live: LiveModel, found: list[Result], failure: Exception | None) -> list[Result]:
    """Results of all ranks. An error on one rank is raised on every rank, its own one where it happened."""
    if live.world_size == 1:
        if failure is not None:
            raise failure
        return found
    message: _Failure | list[Result] = found
    if failure is not None:
        memory = isinstance(failure, torch.OutOfMemoryError)
        message = _Failure(live.rank, f"{type(failure).__name__}: {failure}", memory)
    parts: list[Any] = [None] * live.world_size
    dist.all_gather_object(parts, message)
    if failure is not None:
        raise failure
    for part in parts:
        if isinstance(part, _Failure):
            kind = torch.OutOfMemoryError if part.out_of_memory else RuntimeError
            raise kind(f"scoring failed on rank {part.rank}: {part.message}")
    return [result for part in parts for result in part]
