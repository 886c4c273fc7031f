"""Adapters that were trained apart: found by path or study, and read as matrices, whoever wrote them."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig
from peft.utils.other import get_pattern_key
from torch import Tensor, nn

from dft_search.bundle.choice import choose
from dft_search.bundle.facts import model_fingerprint
from dft_search.bundle.kept import kept_weights
from dft_search.bundle.merge_request import KEY
from dft_search.bundle.sharded import checkpoint_here, checkpoint_tensors
from dft_search.bundle.tensors import read_safetensors
from dft_search.config import Problem, RequestError, expand_path, nearest
from dft_search.models.options import ModelOptions
from dft_search.report.collect import collect
from dft_search.search.options import NAME
from dft_search.search.scoring.target import ADAPTER, Target, find_target
from dft_search.search.study_folder import study_path
from dft_search.training.trainable import adapter_config, adapter_file_name

EXPECTED = "a study's name, or the folder of a trial, a checkpoint, a bundle with an adapter, or an adapter of peft"
PREFIX = "base_model.model."
_MATRIX = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
INITS = (True, False, "gaussian", "orthogonal")  # others change the base's own weights


@dataclass(frozen=True)
class Adapter:
    """An adapter in memory.

    Attributes:
        name: for people.
        config: peft's description; what is said there about targets may be wider than what there is.
        tensors: by the names of peft's files.
    """

    name: str
    config: LoraConfig
    tensors: dict[str, Tensor]

    @property
    def modules(self) -> dict[str, tuple[Tensor, Tensor]]:
        """A and B by the name of the base's module that they are on."""
        names = dict.fromkeys(found[1] for found in map(_MATRIX.fullmatch, self.tensors) if found)
        return {name: tuple(self.tensors[f"{PREFIX}{name}.lora_{side}.weight"] for side in "AB") for name in names}

    def rank(self, module: str) -> int:
        """The rank that the configuration gives a module."""
        return _of(self.config.rank_pattern, module, self.config.r)

    def scaling(self, module: str) -> float:
        """What the product of a module's B and A is multiplied by."""
        return _of(self.config.alpha_pattern, module, self.config.lora_alpha) / self.rank(module)


def _of(pattern: dict[str, Any], module: str, default: Any) -> Any:
    return pattern.get(get_pattern_key(list(pattern), module), default)


def find_adapter(text: str, base: ModelOptions) -> Target:
    """Find what an OTHER of ``--merge`` means, without reading its weights.

    Args:
        text: EXPECTED. A study means the trial that ``export`` would take.
        base: what the adapter must have been made on.

    Raises:
        RequestError: there is none, it is no adapter, or it was made on another base.
    """
    path = Path(expand_path(text))
    try:
        if not path.is_dir():
            path = _study(text, path)
        if (path / "study.yaml").is_file():
            path = _chosen_trial(path)
        target = find_target(str(path), base)
        if target.adapter is None and target.lora is None:
            raise RequestError(Problem(f"'{text}' is a whole model, not an adapter"))
        if target.kind == "adapter":
            _check_named_base(target, base)
    except RequestError as error:
        problems = [replace(problem, key=KEY, expected=EXPECTED) for problem in error.problems]
        raise RequestError(problems) from None
    return target


def _study(text: str, path: Path) -> Path:
    if re.match(NAME, text):
        return study_path(text)
    beside = [other.name for other in path.parent.iterdir() if other.is_dir()] if path.parent.is_dir() else []
    near = nearest(path.name, beside)
    raise RequestError(Problem(f"no folder '{text}'", nearest=near and str(path.parent / near)))


def _chosen_trial(study: Path) -> Path:
    view = collect(study)
    trial = choose(view, None)
    kept_weights(view, trial)
    return study / "trials" / f"t{trial.number:04d}"


def _check_named_base(target: Target, base: ModelOptions) -> None:
    """Compare the bases by name where an adapter's file has no fingerprint of its base.

    Raises:
        RequestError: it was made on another one.
    """
    from safetensors import safe_open

    assert target.adapter is not None
    with safe_open(sorted(target.adapter.glob("adapter_model*.safetensors"))[0], "pt") as opened:
        if (opened.metadata() or {}).get("base_fingerprint"):
            return  # `find_target` has compared it
    told = json.loads((target.adapter / ADAPTER).read_text(encoding="utf-8"))
    named = told.get("base_model_name_or_path")
    if not named or named == base.path:
        return
    there, ours = model_fingerprint(ModelOptions(path=named, revision=told.get("revision"))), model_fingerprint(base)
    same = there == ours if there and ours else Path(named).name == Path(base.path).name
    if not same:
        raise RequestError(Problem(f"'{target.name}' was made on another base model ('{named}', not '{base.path}')"))


def read_adapter(target: Target, scratch: Path) -> Adapter:
    """Read an adapter that ``find_adapter`` found.

    Args:
        target: with an adapter's folder, or a checkpoint of one.
        scratch: folder beside which a checkpoint at a URL is copied for a moment.

    Raises:
        RequestError: it is more than low-rank matrices.
        InfrastructureError: it cannot be read.
    """
    if target.adapter is not None:
        try:
            config: PeftConfig = PeftConfig.from_pretrained(str(target.adapter))
        except (OSError, ValueError, TypeError, KeyError) as error:
            message = f"'{target.name}': {ADAPTER} cannot be read: {' '.join(str(error).split())[:160]}"
            raise RequestError(Problem(message, key=KEY)) from None
        files = sorted(target.adapter.glob("adapter_model*.safetensors"))
        pieces = {name: piece for file in files for name, piece in read_safetensors(file).items()}
        tensors = {name: torch.cat(list(piece.read())) for name, piece in pieces.items()}
    else:
        assert target.checkpoint is not None and target.lora is not None
        config = adapter_config(target.lora, target.base.path)
        with checkpoint_here(target.checkpoint, scratch) as folder:
            trained = checkpoint_tensors(folder).items()
            tensors = {adapter_file_name(name): torch.cat(list(piece.read())) for name, piece in trained}
    assert isinstance(config, LoraConfig)  # `find_target` takes no other kind
    return _plain(target.name, config, tensors)


def _plain(name: str, config: LoraConfig, tensors: dict[str, Tensor]) -> Adapter:
    """The adapter, if it is B A times a number in linear layers and nothing else. Raises RequestError."""
    options: dict[str, Any] = {
        "use_dora": config.use_dora,
        "use_rslora": config.use_rslora,
        "bias": config.bias != "none" or config.lora_bias,
        "modules_to_save": config.modules_to_save,
        "target_parameters": config.target_parameters,
        "init_lora_weights": config.init_lora_weights not in INITS,
    }
    used = [key for key, value in options.items() if value]
    odd = [key for key in tensors if not _MATRIX.fullmatch(key)]
    if used or odd:
        what = f"uses {', '.join(used)}" if used else f"holds {odd[0]}"
        expected = "adapters of low-rank matrices in linear layers alone"
        raise RequestError(Problem(f"'{name}' {what}", key=KEY, expected=expected))
    return Adapter(name, config, tensors)


def check_fit(model: nn.Module, adapters: Sequence[Adapter], *, same_rank: bool) -> None:
    """Refuse adapters that do not fit the base, or each other.

    Args:
        model: the base; may be without values.
        adapters: two or more.
        same_rank: the combination adds A to A and B to B.

    Raises:
        RequestError: with the first mistake of each adapter.
    """
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    problems = [problem for adapter in adapters if (problem := _misfit(adapter, linear))]
    if problems:
        raise RequestError(problems)
    ranks = [sorted({adapter.config.r, *map(adapter.rank, adapter.modules)}) for adapter in adapters]
    if same_rank and any(len(rank) > 1 or rank != ranks[0] for rank in ranks):
        pairs = zip(ranks, adapters, strict=True)
        told = ", ".join(f"{' and '.join(map(str, rank))} in '{adapter.name}'" for rank, adapter in pairs)
        expected = "cat, svd, ties_svd, dare_linear_svd or dare_ties_svd, or adapters of one rank"
        raise RequestError(Problem(f"the ranks differ: {told}", key="--combination", expected=expected))


def _misfit(adapter: Adapter, linear: dict[str, nn.Linear]) -> Problem | None:
    if not adapter.tensors:
        return Problem(f"'{adapter.name}' holds no matrices", key=KEY)
    for name in adapter.tensors:
        found = _MATRIX.fullmatch(name)
        assert found is not None
        module, other = found[1], name.replace(f"lora_{found[2]}", "lora_B" if found[2] == "A" else "lora_A")
        if module not in linear:
            near = nearest(module, linear)
            return Problem(
                f"'{adapter.name}' has a matrix for '{module}', which the base has not", key=KEY, nearest=near
            )
        if other not in adapter.tensors:
            return Problem(f"'{adapter.name}' has no {other}", key=KEY)
    for module, (a, b) in adapter.modules.items():
        shape, product = tuple(linear[module].weight.shape), (b.shape[0], a.shape[-1])
        if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1] or product != shape:
            what = f"B {tuple(b.shape)} and A {tuple(a.shape)} for {module}"
            return Problem(f"'{adapter.name}' has {what}", key=KEY, expected=f"a product of shape {shape}")
        if len(a) != adapter.rank(module):
            expected = f"rank {adapter.rank(module)}, as its configuration says"
            return Problem(f"'{adapter.name}' is of rank {len(a)} in {module}", key=KEY, expected=expected)
        if not math.isfinite(float(a.float().abs().sum() + b.float().abs().sum())):
            return Problem(f"'{adapter.name}' has values in {module} that are no numbers", key=KEY)
    return None
