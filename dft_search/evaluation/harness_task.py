"""Our tasks as tasks of lm-evaluation-harness, with items in memory and our metrics beside its own."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask

from dft_search.evaluation.items import Item
from dft_search.evaluation.metrics import answer_metrics, margin
from dft_search.evaluation.taskfile import HarnessOptions, TaskFile
from dft_search.evaluation.text_metrics import NORMALIZERS, best_f1, best_match

_HARNESS_METRICS = ("acc", "acc_norm")


@dataclass(frozen=True)
class Asking:
    """What the requests of a task have beside its items.

    Attributes:
        target_delimiter: text between prompt and choice.
        generation: arguments of ``generate_until``, as the harness names them.
    """

    target_delimiter: str = " "
    generation: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, options: HarnessOptions) -> "Asking":
        """As a task file says."""
        given = options.generation_kwargs
        generation = {} if given is None else given.model_dump()
        return cls(options.target_delimiter, {"until": [], "max_gen_toks": 256, **generation, "do_sample": False})


class HarnessTask(ConfigurableTask):
    """A task over rendered items. Nothing is downloaded, and the harness renders no template of a task file."""

    def __init__(self, options: TaskFile, items: Sequence[Item], asking: Asking | None = None):
        """Build the task from its file and at least one item; ``asking`` is the file's own where none is given."""
        self._docs: list[dict[str, Any]] = [
            {"id": item.id, "text": item.text, "choices": list(item.choices), "answer": item.answer} for item in items
        ]
        self._options = options
        if asking is None:
            assert isinstance(options.harness, HarnessOptions)
            asking = Asking.of(options.harness)
        rolling = options.harness.output_type == "loglikelihood_rolling"
        kind: dict[str, Any] = {"doc_to_choice": "choices", "doc_to_target": "answer"}
        metrics = [name for name in options.all_metrics if name in _HARNESS_METRICS] or ["acc"]
        if options.harness.output_type != "multiple_choice":
            for doc in self._docs:
                doc["target"] = doc["text"] if rolling else doc["choices"][0]
            kind = {"doc_to_target": "target"}
        if options.harness.output_type == "generate_until":
            kind["generation_kwargs"] = asking.generation
        if rolling or options.harness.output_type == "generate_until":
            metrics = ["bypass"]
        super().__init__(
            config={
                "task": options.task,
                "output_type": options.harness.output_type,
                "test_split": "test",
                "doc_to_text": "text",
                "target_delimiter": asking.target_delimiter,
                "num_fewshot": 0,
                "metric_list": [{"metric": n, "aggregation": "mean", "higher_is_better": True} for n in metrics],
                "metadata": {"version": options.version},
                **kind,
            }
        )

    def download(self, *_: Any, **__: Any) -> None:
        """The items are here already."""
        self.dataset = {"test": Dataset.from_list(self._docs)}

    def process_results(self, doc: dict[str, Any], results: Sequence[Any]) -> dict[str, float]:
        """Metrics of one item by itself; those of a whole set of outputs are none of it.

        Args:
            doc: the item.
            results: a ``Likelihood`` for each of its requests (for multiple choice, pairs (log-likelihood, greedy) do),
                or the generated text.
        """
        if self.OUTPUT_TYPE == "loglikelihood":
            return answer_metrics(results[0], len(doc["target"]))
        if self.OUTPUT_TYPE == "generate_until":
            by, language = NORMALIZERS[self._options.normalizer], self._options.answer_language
            return {
                "f1": best_f1(results[0], doc["choices"], by, language),
                "exact_match": best_match(results[0], doc["choices"], by, language),
            }
        values = super().process_results(doc, results)
        return {**values, "margin": margin([value for value, _ in results], doc["answer"])}


def build_requests(task: HarnessTask) -> list[list[Instance]]:
    """Requests of every item, in order: one for each choice, or one for the answer or the text."""
    requests = []
    for index, doc in enumerate(task.eval_docs):
        context = task.fewshot_context(doc, num_fewshot=0)
        built = task.construct_requests(doc=doc, ctx=context, metadata=(task.config.task, index, 1))
        requests.append(built if isinstance(built, list) else [built])
    return requests
