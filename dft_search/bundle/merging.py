"""A trial's adapter merged with others: what is found before anything is read, and the weights that dev chooses."""

import math
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, set_peft_model_state_dict
from transformers import PretrainedConfig

from dft_search.bundle.adapters import Adapter, find_adapter, read_adapter
from dft_search.bundle.merge import Combination, merge_adapters
from dft_search.bundle.merge_request import KEY, Merge
from dft_search.config import InfrastructureError, Problem, RequestError
from dft_search.evaluation.choice import check_scoring
from dft_search.evaluation.scorer import Scorer
from dft_search.evaluation.scores import Score
from dft_search.models.live import LiveModel
from dft_search.models.loading import load_model, load_tokenizer
from dft_search.training.options import LoraChoice
from dft_search.training.recipe import Recipe

#: Weights of the other adapter that dev chooses from, as mid-align's authors tune them; the trial's own is what is
#: left of 1. The middle comes first: of equal scores the first one wins.
GRID = (0.5, 0.4, 0.6, 0.3, 0.7)


class Merging:
    """A merge on its way: found, made, told."""

    def __init__(self, merge: Merge, recipe: Recipe, trial: int, seed: int):
        """Find the other adapters.

        Args:
            merge: the request.
            recipe: of the trial, with the paths of this machine.
            trial: its number.
            seed: its seed, which dare draws from.

        Raises:
            RequestError: the trial has no adapter, another one is not to be found or has another base, or weights are
                to be searched without dev scores.
        """
        if not isinstance(recipe.training.trainable, LoraChoice):
            message = f"trial {trial} has no adapter: its training changed the model itself"
            raise RequestError(Problem(message, key=KEY, expected="a trial with `trainable: {lora: ...}`"))
        self._searched = not merge.weights
        if self._searched:
            if recipe.scoring is None:
                expected = "weights as numbers, or a recipe with `scoring`"
                raise RequestError(Problem("no dev scores could choose weights", key=KEY, expected=expected))
            if problems := check_scoring(recipe.scoring):
                raise RequestError(problems)
        self._request, self._recipe, self._seed = merge, recipe, seed
        self._own = f"trial {trial}"
        self._others = [find_adapter(text, recipe.model) for text in merge.others]
        self._weights = merge.weights
        self._dev: dict[tuple[float, ...], Score] = {}

    def record(self) -> dict[str, Any]:
        """What the bundle says about the merge (``read.MergedRecord``)."""
        others = [{"name": target.name, "fingerprint": target.fingerprint} for target in self._others]
        tried = [
            {"weights": list(weights), "score": {"value": score.value, "stderr": score.stderr, "n": score.n}}
            for weights, score in sorted(self._dev.items(), reverse=True)
        ]
        return {
            "combination": self._request.combination,
            "density": self._request.density,
            "adapters": [{"name": self._own, "fingerprint": None}, *others],
            "weights": list(self._weights),
            "searched": self._searched,
            "dev": tried,
        }

    def merge(self, config: PretrainedConfig, own: Adapter, scratch: Path) -> Adapter:
        """Read the other adapters and merge them with the trial's own.

        Args:
            config: of the base.
            own: the trial's adapter.
            scratch: folder beside which a checkpoint at a URL is copied for a moment.

        Raises:
            RequestError: the adapters do not fit the base, or each other.
            InfrastructureError: one cannot be read, or a merged model scores no number.
        """
        own = Adapter(self._own, own.config, own.tensors)
        adapters = [own, *(read_adapter(target, scratch) for target in self._others)]
        how = Combination(self._request.combination, self._request.density, self._seed)
        if not self._searched:
            return merge_adapters(config, adapters, self._weights, how)
        candidates: dict[tuple[float, ...], Adapter] = {
            weights: merge_adapters(config, adapters, weights, how)
            for weights in ((round(1 - weight, 6), weight) for weight in GRID)
        }
        self._dev = _dev_scores(candidates, self._recipe)
        self._weights = max(self._dev, key=lambda weights: self._dev[weights].value)
        return candidates[self._weights]


def _dev_scores(candidates: dict[tuple[float, ...], Adapter], recipe: Recipe) -> dict[tuple[float, ...], Score]:
    """The recipe's score on the steer part with each of the adapters, which are of one shape."""
    assert recipe.scoring is not None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = next(iter(candidates.values())).config
    model = PeftModel(load_model(recipe.model, device), config).eval()
    base = model.get_base_model()
    live = LiveModel(base, load_tokenizer(recipe.model), device, max_length=recipe.data.max_length)
    scorer, found = Scorer(recipe.scoring), {}
    for weights, adapter in candidates.items():
        set_peft_model_state_dict(model, adapter.tensors)
        found[weights] = scorer.score(live, "steer").values["score"]
        if not math.isfinite(found[weights].value):
            told = ", ".join(f"{weight:g}" for weight in weights)
            raise InfrastructureError(f"merged with the weights {told}, the model scores no number")
    return found
