"""Scores of a live model on one part of the chosen tasks; prepared once, then asked at every rung."""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from dft_search.evaluation.aggregate import aggregate
from dft_search.evaluation.answers import NEEDS_CONFIDENCE, Judge, answer_values, unanswerable_share, without_score
from dft_search.evaluation.choice import Chosen, chosen_tasks
from dft_search.evaluation.items import Item
from dft_search.evaluation.metrics import chance_level, rolling_metrics
from dft_search.evaluation.options import Part, ScoringOptions
from dft_search.evaluation.scores import Sample, Score, Scores, mean_score
from dft_search.evaluation.taskfile import HarnessOptions

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

    from dft_search.evaluation.harness import Encodings, LiveLM
    from dft_search.evaluation.harness_task import HarnessTask
    from dft_search.models.live import LiveModel

logger = logging.getLogger(__name__)

__all__ = ["Sample", "Score", "Scores", "Scorer"]


@dataclass(frozen=True)
class _Prepared:
    """A task with its requests built: ``requests[k]`` are those of item k."""

    chosen: Chosen
    items: list[Item]
    harness: "HarnessTask"
    requests: "list[list[Instance]]"
    judges: list[Judge] | None = None

    @property
    def output_type(self) -> str:
        """Kind of its requests."""
        return self.chosen.task.options.harness.output_type

    @property
    def generates(self) -> bool:
        """Whether answers are generated."""
        return self.output_type == "generate_until"

    @property
    def rolls(self) -> bool:
        """Whether whole texts are read."""
        return self.output_type == "loglikelihood_rolling"


@dataclass(frozen=True)
class _Measured:
    """What a task's items came to: values by metric, and of each item the likelihoods or the generated text."""

    values: dict[str, list[float]]
    likelihoods: list[tuple[float, ...]] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)


class Scorer:
    """Scores live models by the scoring section of a recipe.

    Items, harness tasks, requests and their tokens are kept between calls, so a scorer should live as long as its
    process; it keeps no model.
    """

    def __init__(self, options: ScoringOptions, samples: bool = False):
        """Take the scoring section; ``samples``: scores carry every item with what the model made of it."""
        self.options = options
        self._samples = samples
        self._prepared: dict[Part, list[_Prepared]] = {}
        self._tokenizer: object = None
        self._encodings: Encodings = {}

    def score(self, live: "LiveModel", part: Part) -> Scores:
        """Score the model as it is now. Collective: every rank calls it, and every rank gets the same scores.

        Weights, random state and the train or eval mode of every module are as before afterwards.

        Args:
            live: the model on its ranks.
            part: items to use; ``test`` is for confirmation and final training runs alone.

        Raises:
            RequestError: a task cannot be loaded (``check_scoring`` finds it before), or COMET fails.
        """
        from dft_search.evaluation.harness import LiveLM  # imports torch and the harness, which take seconds

        tasks = self._prepare(part)
        if live.tokenizer is not self._tokenizer:
            self._tokenizer, self._encodings = live.tokenizer, {}
        lm = LiveLM(live, self._encodings)
        asked = [r for task in tasks if not (task.generates or task.rolls) for item in task.requests for r in item]
        likelihoods = iter(lm.loglikelihood(asked) if asked else [])
        whole = [item[0] for task in tasks if task.rolls for item in task.requests]
        sums = iter(lm.loglikelihood_rolling(whole) if whole else [])
        texts = _generate(lm, [item[0] for task in tasks if task.generates for item in task.requests])
        items: dict[str, list[float]] = {}
        values: dict[str, Score] = {}
        samples: dict[str, list[Sample]] = {}
        for task in tasks:
            if task.generates:
                measured = _answers(task, live, texts)
            else:
                measured = _rolled(task, sums) if task.rolls else _likelihoods(task, likelihoods)
            for name, metric in task.chosen.task.metrics.items():
                if metric not in measured.values:
                    continue  # these items do not have it, which was said when they were prepared
                items[name] = measured.values[metric]
                values[name] = mean_score(items[name], _chance(task, metric))
            if self._samples:
                samples[task.chosen.task.name] = _tell(task, measured)
        score, shares = aggregate(self.options.score, [task.chosen for task in tasks], values, items)
        return Scores({"score": score, **values}, {**items, **shares}, samples)

    def _prepare(self, part: Part) -> list[_Prepared]:
        if part not in self._prepared:
            self._prepared[part] = [_prepare(chosen, part) for chosen in chosen_tasks(self.options, part)]
        return self._prepared[part]


def _prepare(chosen: Chosen, part: Part) -> _Prepared:
    from dft_search.evaluation.harness_task import Asking, HarnessTask, build_requests

    task, items = chosen.task, chosen.items(part)
    judges: list[Judge] | None = None
    if isinstance(task.options.harness, HarnessOptions):
        asking = Asking.of(task.options.harness)
    else:
        named = [entry for entry in task.entries(part, chosen.limit) if not isinstance(entry, Item)]
        asking, judges = named[0].asking, [entry.judge for entry in named]
    if chosen.is_wrapped(part):
        asking = replace(asking, target_delimiter="")
    for metric in without_score(task.options, items):
        logger.warning("%s has no %s on %s: none of its questions has an answer", task.name, metric, part)
    harness = HarnessTask(task.options, items, asking)
    return _Prepared(chosen, items, harness, build_requests(harness), judges)


def _generate(lm: "LiveLM", requests: "Sequence[Instance]") -> "Iterator[str]":
    """Generated texts in order; what two tasks ask alike is generated once."""
    places: dict[str, int] = {}
    unique: list[Instance] = []
    for request in requests:
        if places.setdefault(repr(request.args), len(unique)) == len(unique):
            unique.append(request)
    texts = lm.generate_until(unique) if unique else []
    return iter([texts[places[repr(request.args)]] for request in requests])


def _likelihoods(task: _Prepared, answers: Iterator[Any]) -> _Measured:
    """Measure a task whose requests are likelihoods."""
    found = [[next(answers) for _ in item] for item in task.requests]
    pairs = zip(task.requests, found, strict=True)
    results = [task.harness.process_results(requests[0].doc, got) for requests, got in pairs]
    values = {metric: [float(result[metric]) for result in results] for metric in task.chosen.task.options.all_metrics}
    return _Measured(values, likelihoods=[tuple(float(value) for value, _ in got) for got in found])


def _rolled(task: _Prepared, sums: Iterator[float]) -> _Measured:
    """Measure a task whose items are whole texts."""
    found = [next(sums) for _ in task.requests]
    values = rolling_metrics(found, [item.choices[0] for item in task.items])
    kept = {metric: values[metric] for metric in task.chosen.task.options.all_metrics}
    return _Measured(kept, likelihoods=[(value,) for value in found])


def _answers(task: _Prepared, live: "LiveModel", texts: Iterator[str]) -> _Measured:
    """Measure a task whose answers are generated."""
    options = task.chosen.task.options
    outputs = [next(texts) for _ in task.requests]
    no_answer = _no_answer(task, live, outputs) if NEEDS_CONFIDENCE in options.all_metrics else None

    def measure() -> dict[str, list[float]]:
        return answer_values(options, task.items, outputs, no_answer, task.judges)

    values = _on_one_rank(measure, live) if "comet" in options.all_metrics else measure()
    return _Measured(values, outputs=outputs)


def _no_answer(task: _Prepared, live: "LiveModel", outputs: Sequence[str]) -> list[float]:
    """For every output 1 minus the geometric mean of its tokens' probabilities; 1 where nothing was generated."""
    if task.chosen.task.options.no_answer == "constant":
        return [0.0] * len(outputs)
    from dft_search.evaluation.harness import LiveLM

    said = [(item, output) for item, output in zip(task.requests, outputs, strict=True) if output]
    requests = [
        replace(item[0], request_type="loglikelihood", arguments=(item[0].args[0], output)) for item, output in said
    ]
    # its own store of tokens: these texts are new at every rung
    found = iter(LiveLM(live).loglikelihood(requests) if requests else [])
    likelihoods = [next(found) if output else None for output in outputs]
    return [1.0 if one is None else 1 - math.exp(one.value / one.scored) for one in likelihoods]


def _on_one_rank(measure: Any, live: "LiveModel") -> dict[str, list[float]]:
    """The result of rank 0 on every rank, or its error."""
    import torch.distributed as dist

    if live.world_size == 1:
        return measure()
    told: list[Any] = [None]
    if live.rank == 0:
        try:
            told = [measure()]
        except Exception as error:  # the other ranks wait for it
            told = [error]
    dist.broadcast_object_list(told, src=0)
    if isinstance(told[0], Exception):
        raise told[0]
    return told[0]


def _chance(task: _Prepared, metric: str) -> float | None:
    options = task.chosen.task.options
    if metric == options.metric and options.chance is not None:
        return options.chance
    if metric == "best_f1":
        return unanswerable_share(task.items)
    return chance_level(metric, [len(item) for item in task.requests])


def _tell(task: _Prepared, measured: _Measured) -> list[Sample]:
    """The items with what the model made of them."""
    return [
        Sample(
            id=item.id,
            prompt=item.text,
            choices=item.choices,
            answer=item.answer,
            likelihoods=measured.likelihoods[place] if measured.likelihoods else (),
            output=measured.outputs[place] if measured.outputs else None,
            values={metric: values[place] for metric, values in measured.values.items()},
        )
        for place, item in enumerate(task.items)
    ]
