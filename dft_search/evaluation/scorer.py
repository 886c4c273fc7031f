"""Scores of a live model on one part of the chosen tasks; prepared once, then asked at every rung."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dft_search.evaluation.choice import chosen_tasks
from dft_search.evaluation.metrics import chance_level
from dft_search.evaluation.options import Part, ScoringOptions
from dft_search.evaluation.samples import Sample, sample
from dft_search.evaluation.scores import Score, Scores, combine, mean_score
from dft_search.evaluation.tasks import Task

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

    from dft_search.evaluation.harness import Encodings
    from dft_search.evaluation.harness_task import HarnessTask
    from dft_search.models.live import LiveModel

__all__ = ["Score", "Scores", "Scorer"]


@dataclass(frozen=True)
class _Prepared:
    """A task with its requests built: ``requests[k]`` are those of item k."""

    task: Task
    harness: "HarnessTask"
    requests: "list[list[Instance]]"


class Scorer:
    """Scores live models by the scoring section of a recipe.

    Items, harness tasks, requests and their tokens are kept between calls, so a scorer should live as long as its
    process; it keeps no model.
    """

    def __init__(self, options: ScoringOptions):
        self.options = options
        self._prepared: dict[Part, list[_Prepared]] = {}
        self._tokenizer: object = None
        self._encodings: Encodings = {}

    def score(self, live: "LiveModel", part: Part, samples: dict[str, list[Sample]] | None = None) -> Scores:
        """Score the model as it is now. Collective: every rank calls it, and every rank gets the same scores.

        Weights, random state and the train or eval mode of every module are as before afterwards.

        Args:
            live: the model on its ranks.
            part: items to use; ``test`` is for confirmation and final training runs alone.
            samples: is given, by task, what each item was asked and what came of it.

        Raises:
            RequestError: a task cannot be loaded (``check_scoring`` finds it before).
        """
        from dft_search.evaluation.harness import LiveLM  # imports torch and the harness, which take seconds

        tasks = self._prepare(part)
        if live.tokenizer is not self._tokenizer:
            self._tokenizer, self._encodings = live.tokenizer, {}
        lm = LiveLM(live, self._encodings)
        answers = iter(lm.loglikelihood([request for task in tasks for item in task.requests for request in item]))
        items: dict[str, list[float]] = {}
        values: dict[str, Score] = {}
        for task in tasks:
            given = [[next(answers) for _ in item] for item in task.requests]
            results = [
                task.harness.process_results(item[0].doc, answer)
                for item, answer in zip(task.requests, given, strict=True)
            ]
            if samples is not None:
                told = zip(task.requests, given, results, strict=True)
                samples[task.task.name] = [sample(item, answer, values) for item, answer, values in told]
            choices = [len(item) for item in task.requests]
            for name, metric in task.task.metrics.items():
                items[name] = [float(result[metric]) for result in results]
                values[name] = mean_score(items[name], chance_level(metric, choices))
        return Scores({"score": combine(self.options.score.mean, values, items), **values}, items)

    def _prepare(self, part: Part) -> list[_Prepared]:
        if part not in self._prepared:
            from dft_search.evaluation.harness_task import HarnessTask, build_requests

            prepared = []
            for chosen in chosen_tasks(self.options, part):
                harness = HarnessTask(chosen.task.options, chosen.task.items(part, chosen.limit))
                prepared.append(_Prepared(chosen.task, harness, build_requests(harness)))
            self._prepared[part] = prepared
        return self._prepared[part]
