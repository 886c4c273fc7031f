"""One optimizer step: counts agreed first, then forward, backward, one norm, one update, alike on all ranks."""

import math
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dft_search.data.encode import Encoded
from dft_search.data.order import RowOrder, share
from dft_search.objectives.batch import Batch, collate
from dft_search.objectives.flops import batch_flops
from dft_search.objectives.turns import turn_of
from dft_search.training.optimizer import clip, make_optimizer, squared_norm
from dft_search.training.peak import peak_flops
from dft_search.training.recipe import Recipe
from dft_search.training.reference import Reference
from dft_search.training.reporter import StepRecord
from dft_search.training.schedule import factor
from dft_search.training.seeds import derive
from dft_search.training.session import Session
from dft_search.training.trainable import trainable_parameters
from dft_search.training.workspace import Built


class Diverged(Exception):
    """The loss or the gradient of ``step`` is not finite. Raised on all ranks alike, before the update."""

    def __init__(self, step: int, history: Sequence[StepRecord] = ()):
        super().__init__(f"loss or gradient is not finite at step {step}")
        self.step, self.history = step, list(history)


@dataclass(frozen=True)
class Prepared:
    """What all ranks know before a step computes.

    Attributes:
        batches: this rank's micro-batches, equally many on every rank.
        counts: labels or rows of each term, over all ranks and micro-batches: what its loss is divided by. On the CPU.
        tokens: that the step reads, over all ranks.
        flops: floating-point operations that its reads need, forward and backward, over all ranks.
        flags: as rank 0 raised them.
        started: when the step began, by ``time.perf_counter``.
    """

    batches: list[Batch]
    counts: torch.Tensor
    tokens: int
    flops: float
    flags: tuple[bool, ...]
    started: float


class Stepper:
    """Does the steps of one run. Beside those of the sharding a step has two collectives: counts before, sums after."""

    def __init__(
        self,
        recipe: Recipe,
        built: Built,
        data: Encoded,
        session: Session,
        *,
        seed: int,
        total: int,
        micro_rows: int,
        reference: Reference | None = None,
    ):
        self._recipe, self._built, self._data, self._session = recipe, built, data, session
        self._seed, self._total, self._reference = seed, total, reference
        self.micro_rows = min(micro_rows, recipe.training.batch_rows)
        self._micro_batches = math.ceil(recipe.training.batch_rows / self.micro_rows)
        self._order = RowOrder(len(data), recipe.training.batch_rows, derive(seed, "order"))
        self._parameters = list(trainable_parameters(built.model).values())
        self._peak = peak_flops(session.device, built.compute)
        self.optimizer = make_optimizer(self._parameters, recipe.training.optimizer, session.device)

    def prepare(self, step: int, flags: tuple[bool, ...]) -> Prepared:
        """Collate this rank's rows of step ``step`` (0-based) and agree on counts. Collective, one all-reduce.

        Args:
            flags: rank 0's word; that of other ranks is ignored.
        """
        started = time.perf_counter()
        session = self._session
        rows = share(
            self._order.batch(step),
            rank=session.rank,
            world_size=session.world_size,
            micro_batch_rows=self.micro_rows,
        )
        objective, layers = self._recipe.objective, self._built.model.config.num_hidden_layers
        batches = [
            collate(
                [self._data[row] for row in micro],
                objective,
                layers,
                has_bos=self._data.has_bos,
                turn=turn_of(objective, step, number * session.world_size + session.rank, self._micro_batches),
                base=None if self._reference is None else [self._reference.row(row) for row in micro],
            )
            for number, micro in enumerate(rows)
        ]
        terms = len(objective.term_names)
        mine = torch.zeros(terms + 2 + len(flags), dtype=torch.float64)
        for batch in batches:
            mine[:terms] += batch.counts
            mine[terms] += batch.tokens
            mine[terms + 1] += batch_flops(self._built.module, batch).total if batch.tokens else 0
        if session.rank == 0:
            mine[terms + 2 :] = torch.tensor(flags, dtype=torch.float64)
        total = session.sum(mine)
        told = tuple(bool(flag) for flag in total[terms + 2 :])
        tokens, flops = int(total[terms]), float(total[terms + 1])
        return Prepared(batches, total[:terms], tokens, flops, told, started)

    def run(self, step: int, prepared: Prepared) -> StepRecord:
        """Compute and apply step ``step`` (0-based); the record counts from 1. Collective.

        Raises:
            Diverged: the loss or the gradient is not finite, on any rank.
        """
        session, training = self._session, self._recipe.training
        device = session.device
        counts = prepared.counts
        watched = self._built.module.watched
        found = torch.zeros(1 + len(counts) + 2 * len(watched), dtype=torch.float64, device=device)
        for number, batch in enumerate(prepared.batches):
            # a micro-batch has the same rows whatever the number of ranks, so it gets the same dropout too
            torch.manual_seed(derive(self._seed, "step", step, number * session.world_size + session.rank))
            loss, sums = self._built.module(batch.to(device), counts)
            # sharded gradients are averaged over ranks; the counts are already those of all ranks
            (loss * session.world_size).backward()
            found[0] += loss.detach()
            found[1:] += sums
        mine = torch.cat([found.cpu(), squared_norm(self._parameters).cpu()[None]])
        total = session.sum(mine)
        if not bool(torch.isfinite(total).all()):
            raise Diverged(step + 1)
        norm = math.sqrt(total[-1])
        clip(self._parameters, norm, training.clip_norm)
        rate = training.optimizer.learning_rate * factor(training.schedule, step, self._total)
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        metrics = {"loss/total": float(total[0])}
        told = [*(f"loss/{name}" for name in self._recipe.objective.term_names), *watched]
        sums, over = total[1 : 1 + len(told)], torch.cat([counts, total[1 + len(told) : -1]])
        for name, value, count in zip(told, sums, over, strict=True):
            if count > 0:  # else it is not this step's turn
                metrics[name] = float(value / count)
        metrics |= {"learning_rate": rate, "grad_norm": norm}
        seconds = max(time.perf_counter() - prepared.started, 1e-9)
        metrics["perf/tokens_per_s"] = prepared.tokens / seconds
        if self._peak is not None:
            metrics["perf/mfu"] = prepared.flops / (seconds * self._peak * session.world_size)
        metrics["perf/memory_gb"] = peak_memory(device) / 1e9
        return StepRecord(step + 1, metrics)


def peak_memory(device: torch.device) -> int:
    """Highest memory use so far, bytes: of the GPU's tensors, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
