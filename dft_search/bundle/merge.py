"""Adapters into one, by peft's ``add_weighted_adapter``, and an adapter into its base."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from dft_search.bundle.adapters import Adapter, check_fit
from dft_search.bundle.tensors import Pieces

MERGED = "merged"


@dataclass(frozen=True)
class Combination:
    """How adapters are combined.

    Attributes:
        kind: one of ``merge_request.COMBINATIONS``. With A_k, B_k, scale s_k = alpha / rank and weight w_k, ``cat``
            stands the factors side by side, which is exactly sum_k w_k s_k B_k A_k at the sum of the ranks. ``linear``
            adds sqrt(w_k s_k) A_k and sqrt(w_k s_k) B_k, so that products of one adapter's B and another's A come in.
            ``svd`` is the best approximation of the sum at the largest rank. ``ties`` and ``dare`` leave values out,
            by size and sign (Yadav et al., arXiv 2306.01708) or by chance (Yu et al., arXiv 2311.03099), of A and B
            apart; with ``_svd`` of the products.
        density: share of values that ties and dare keep.
        seed: of what dare leaves out.
    """

    kind: str
    density: float | None = None
    seed: int = 0


def merge_adapters(
    config: PretrainedConfig, adapters: Sequence[Adapter], weights: Sequence[float], how: Combination
) -> Adapter:
    """Merge adapters without the base's values.

    Args:
        config: of the base.
        adapters: two or more, all on it. The first one says what the result is called and in which type it is.
        weights: one for each; may be negative.
        how: to combine them.

    Returns:
        One adapter, whose scale is 1.

    Raises:
        RequestError: they do not fit the base, or each other.

    Paper: mid-align, merging of task and alignment adapters
    Test: tests/bundle/test_merge.py::test_cat_is_the_weighted_sum
    Default: the exact weighted sum (`cat`), weights by dev
    Open: the paper says a weighted average, its code has none (`combination`)
    """
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(config)
    dtype = torch.float32
    for adapter in adapters:
        for tensor in adapter.tensors.values():
            dtype = torch.promote_types(dtype, tensor.dtype)
    for module in base.modules():
        if isinstance(module, nn.Linear):  # has a device and a type now, which peft asks for, and takes no memory
            module.weight = nn.Parameter(torch.zeros((), dtype=dtype).expand(module.weight.shape), requires_grad=False)
    check_fit(base, adapters, same_rank=how.kind != "cat" and not how.kind.endswith("svd"))
    model = _with_adapters(base, adapters)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(how.seed)
        model.base_model.add_weighted_adapter(
            list(model.peft_config), list(weights), MERGED, how.kind, density=how.density, svd_full_matrices=False
        )
    kind = next(iter(adapters[0].tensors.values())).dtype
    state = get_peft_model_state_dict(model, adapter_name=MERGED, save_embedding_layers=False)
    tensors = {name: tensor.to(kind).contiguous() for name, tensor in state.items()}
    ours, made = adapters[0].config, model.peft_config[MERGED]
    modules = list(dict.fromkeys(name for adapter in adapters for name in adapter.modules))
    merged = LoraConfig(
        r=made.r,
        lora_alpha=made.lora_alpha,
        lora_dropout=ours.lora_dropout,
        target_modules=_targets(base, modules),
        base_model_name_or_path=ours.base_model_name_or_path,
        task_type="CAUSAL_LM",
    )
    return Adapter(MERGED, merged, tensors)


def _with_adapters(base: PreTrainedModel, adapters: Sequence[Adapter]) -> PeftModel:
    """The base with the adapters in it."""
    model: PeftModel | None = None
    for number, adapter in enumerate(adapters):
        name = f"adapter{number:04d}"  # no part of another's, or of a module's: peft looks for it in whole paths
        config = LoraConfig(  # targets by their whole names: each adapter's own are patterns, which a merge would mix
            r=adapter.config.r,
            lora_alpha=adapter.config.lora_alpha,
            rank_pattern=adapter.config.rank_pattern,
            alpha_pattern=adapter.config.alpha_pattern,
            target_modules=list(adapter.modules),
            task_type="CAUSAL_LM",
        )
        if model is None:
            model = PeftModel(base, config, name)
        else:
            model.add_adapter(name, config)
        set_peft_model_state_dict(model, adapter.tensors, name)
    assert model is not None
    return model


def _targets(base: nn.Module, modules: Sequence[str]) -> list[str]:
    """Names that mean these modules and no other: the last parts if they do, as in ``q_proj``, else whole ones."""
    last = {name.rpartition(".")[2] for name in modules}
    meant = {name for name, _ in base.named_modules() if name.rpartition(".")[2] in last}
    return sorted(last) if meant == set(modules) else sorted(modules)


def into_base(base: Mapping[str, Pieces], adapter: Adapter) -> dict[str, Pieces]:
    """The base's weights with the adapter added, W + s B A, read some rows at a time.

    Args:
        base: all parameters by name.
        adapter: fits them.
    """
    found = dict(base)
    for module, (a, b) in adapter.modules.items():
        name = f"{module}.weight"
        whole = base[name]
        dtype = torch.promote_types(torch.promote_types(whole.dtype, a.dtype), torch.float32)
        read = partial(_sum, whole, a.to(dtype), b.to(dtype) * adapter.scaling(module))
        found[name] = Pieces(whole.shape, dtype, read)
    return found


def _sum(whole: Pieces, a: Tensor, b: Tensor) -> Iterator[Tensor]:
    row = 0
    for piece in whole.read():
        yield piece.to(a.dtype) + b[row : row + len(piece)] @ a
        row += len(piece)
