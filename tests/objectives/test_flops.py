"""The operations that a pass needs: against torch's own counter, and against pairs counted one by one.

Linears and head are compared exactly with what ``FlopCounterMode`` sees of ``mm`` and ``addmm``. Attention is not: a
kernel may compute padding, pairs above the diagonal, or scores twice. Its pairs are counted by brute force, its
operations for each pair by transformers' own eager attention, which computes the full square.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dft_search.models import structure
from dft_search.models.flops import Flops, HeadRead, pass_flops
from dft_search.models.segments import Segment, make_plan
from dft_search.objectives.batch import Batch, collate
from dft_search.objectives.flops import batch_flops
from dft_search.objectives.module import ObjectiveModule
from dft_search.objectives.options import Objective
from tests.models.tiny import FAMILIES, LAYERS, LENGTHS, WINDOW, make_model, make_rows

VOCABULARY = 509  # no other dimension is of this size, so a product with it is the head's
DENSE = 2 * 4 * 8  # operations of one product for each pair: 4 heads of width 8

FEATURE = {"supervision": "feature"}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "tft": {"method": "tft"},
    "logits": {"conversion": {"layer": 1}, "thinking": {"layer": 3}},
    "none_detached": {"conversion": {"layer": 1, "detach_head": False}, "thinking": {"layer": 3}},
    "features": {"conversion": {**FEATURE, "layer": 1}, "thinking": {**FEATURE, "layer": 3}},
    "aligned": {"conversion": {"layer": 1}, "thinking": {"layer": 3}, "reading": "aligned", "inner_norm": False},
}


class Counter(FlopCounterMode):
    """Counts matrix products, those with the vocabulary apart."""

    def __init__(self) -> None:
        self.head = self.linears = 0

        def mm(a: tuple[int, int], b: tuple[int, int], *_: Any, **__: Any) -> int:
            count = 2 * a[0] * a[1] * b[1]
            if VOCABULARY in (*a, *b):
                self.head += count
            else:
                self.linears += count
            return count

        def addmm(_: Any, a: tuple[int, int], b: tuple[int, int], *__: Any, **___: Any) -> int:
            return mm(a, b)

        aten = torch.ops.aten
        super().__init__(display=False, custom_mapping={aten.mm: mm, aten.addmm: addmm, aten.addmm_: addmm})


def counted(module: ObjectiveModule, batch: Batch) -> tuple[Counter, Counter]:
    """What one forward and one backward pass really compute."""
    with Counter() as forward:
        loss, _ = module(batch, batch.counts)
    with Counter() as backward:
        loss.backward()
    return forward, backward


def check(model: nn.Module, options: dict[str, Any]) -> Flops:
    """Compare the linears exactly, and the head up to logits that a backward pass computes again."""
    objective = Objective(**options)
    module = ObjectiveModule(model, objective)
    batch = collate(make_rows(LENGTHS), objective, LAYERS, has_bos=True)
    assert len(batch.plan.ids) < VOCABULARY
    flops = batch_flops(module, batch)
    forward, backward = counted(module, batch)
    assert flops.linears.forward == forward.linears
    assert flops.linears.backward == backward.linears
    logits = 2 * VOCABULARY * 32 * sum(len(labels.labels) for labels in batch.labels.values())
    assert flops.head.forward == logits
    assert forward.head + backward.head - flops.head.total in (0, logits)
    assert flops.token_layers == batch.plan.token_layers
    return flops


@pytest.mark.parametrize("case", OBJECTIVES)
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2"])
def test_linears_and_head(family: str, case: str) -> None:
    flops = check(make_model(family, vocab_size=VOCABULARY), OBJECTIVES[case])
    assert flops.blocks.backward == 2 * flops.blocks.forward  # all of it trains


def test_every_query_head_with_keys_of_its_own() -> None:
    check(make_model("llama", vocab_size=VOCABULARY, num_key_value_heads=4), OBJECTIVES["logits"])


def only(*parts: str) -> Callable[[nn.Module], None]:
    def choose(model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(any(part in name for part in parts))

    return choose


def adapters(model: nn.Module) -> None:
    model.requires_grad_(False)
    inject_adapter_in_model(LoraConfig(r=3, target_modules=["q_proj", "down_proj"], layers_to_transform=[1, 2]), model)


PARTS: dict[str, Callable[[nn.Module], None]] = {
    "attention": only("self_attn"),
    "upper blocks": only("layers.2.", "layers.3."),
    "one middle block": only("layers.1."),
    "embedding": only("embed_tokens"),
    "head": only("lm_head"),
    "keys of one block": only("layers.0.self_attn.k_proj"),
    "values of one block": only("layers.2.self_attn.v_proj"),
    "norms inside": only("post_attention_layernorm", "q_norm"),
    "down projections": only("layers.3.mlp.down_proj", "layers.0.mlp.down_proj"),
    "adapters": adapters,
}


def high(case: str) -> dict[str, Any]:
    """Terms that all reach the third block: one that reaches nothing that trains is refused."""
    conversion, thinking = OBJECTIVES[case]["conversion"], OBJECTIVES[case]["thinking"]
    return {"conversion": {**conversion, "layer": 3}, "thinking": {**thinking, "layer": LAYERS}}


@pytest.mark.parametrize("case", ["logits", "features"])
@pytest.mark.parametrize("part", PARTS)
def test_frozen_parts_need_no_gradient(part: str, case: str) -> None:
    options = high(case)
    model = make_model("qwen3", vocab_size=VOCABULARY)
    everything = batch_flops(*_pass(model, options))
    PARTS[part](model)
    flops = check(model, options)
    assert flops.token_layers == everything.token_layers
    assert flops.blocks.backward < everything.blocks.backward or part == "embedding"


@pytest.mark.parametrize("part", ["attention", "upper blocks", "embedding"])
def test_frozen_parts_of_a_tied_model(part: str) -> None:
    PARTS[part](model := make_model("gemma2", vocab_size=VOCABULARY))
    check(model, high("none_detached"))


def test_a_final_norm_that_trains_alone() -> None:
    only("model.norm")(model := make_model("llama", vocab_size=VOCABULARY))
    flops = check(model, OBJECTIVES["none_detached"])
    assert flops.blocks.backward == 0 and flops.head.backward == flops.head.forward


def _pass(model: nn.Module, options: dict[str, Any]) -> tuple[ObjectiveModule, Batch]:
    objective = Objective(**options)
    return ObjectiveModule(model, objective), collate(make_rows(LENGTHS), objective, LAYERS, has_bos=True)


def test_a_detached_head_needs_two_of_three_products() -> None:
    weight = VOCABULARY * 32
    model = make_model("llama", vocab_size=VOCABULARY)
    plan = make_plan([Segment(range(9), LAYERS)])
    costs = [pass_flops(model, plan, [HeadRead(LAYERS, 5, attached)]).head.total for attached in (True, False)]
    assert costs == [3 * 2 * weight * 5, 2 * 2 * weight * 5]


def test_a_constant_needs_no_backward() -> None:
    free, constant = (
        batch_flops(
            *_pass(
                make_model("llama"),
                {name: {**options, "stop_gradient_english": stop} for name, options in OBJECTIVES["features"].items()},
            )
        )
        for stop in (False, True)
    )
    assert constant.blocks.forward == free.blocks.forward and constant.head == free.head
    english = LAYERS * sum(_last_of_query(row) for row in make_rows(LENGTHS))
    per_token = free.linears.forward // free.token_layers
    assert free.linears.backward - constant.linears.backward == 2 * english * per_token


def _last_of_query(row: Any) -> int:
    return max(row.spans["english_prompt"]) + 1


def test_a_dummy_token_needs_no_backward() -> None:
    model, objective = make_model("llama"), Objective(method="tft")
    flops = batch_flops(ObjectiveModule(model, objective), collate([], objective, LAYERS, has_bos=True))
    assert (flops.blocks.backward, flops.head.total, flops.token_layers) == (0, 0, LAYERS)


ROWS = [
    Segment(range(10), 4),
    Segment(range(4), 2, parent=0, start=6),
    Segment(range(5), 3, parent=0, start=6),
    Segment(range(2), 3, parent=2, start=9),
    Segment(range(9), 1),
]


def pairs(layer: int, window: int | None, depths: list[int]) -> int:
    """Queries times visible keys, one by one."""
    found = 0
    for segment, depth in zip(ROWS, depths, strict=True):
        for query in range(segment.start, segment.start + len(segment.tokens)) if depth >= layer else ():
            found += sum(1 for key in range(query + 1) if window is None or query - key < window)
    return found


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("window", [1, 3, WINDOW, 7, 50])
def test_pairs_of_attention(family: str, window: int) -> None:
    options: dict[str, Any] = {} if family == "llama" else {"sliding_window": window}
    model = make_model(family, **options)
    by_family: dict[str, list[int | None]] = {  # by layer, as transformers documents each family
        "llama": [None] * 4,
        "mistral": [window] * 4,
        "gemma2": [window, None] * 2,
    }
    windows = by_family.get(family, [None, None, window, window])
    # nobody reads the last branch for a gradient, and only a branch of the second one hands it down from layer 3
    given, handed = [1, 2, 0, 3, 0], [3, 2, 3, 3, 0]
    flops = pass_flops(model, make_plan(ROWS), [], given)
    layers = list(zip(range(1, LAYERS + 1), windows, strict=True))
    depths = [segment.depth for segment in ROWS]
    assert flops.attention.forward == 2 * DENSE * sum(pairs(k, w, depths) for k, w in layers)
    assert flops.attention.backward == 4 * DENSE * sum(pairs(k, w, handed) for k, w in layers)
    tokens = sum(len(s.tokens) * depth for s, depth in zip(ROWS, handed, strict=True))
    assert flops.linears.backward * flops.token_layers == 2 * flops.linears.forward * tokens


@pytest.mark.parametrize("family", FAMILIES)
def test_operations_for_each_pair(family: str) -> None:
    """Of the full square that eager attention computes we count the part on and below the diagonal."""
    model, length = make_model(family, sliding_window=50), 12  # a window that holds everything
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as forward:
        logits = model(torch.arange(3, 3 + length)[None], use_cache=False).logits
    with FlopCounterMode(display=False) as backward:
        logits.sum().backward()
    found = [counter.get_flop_counts()["Global"][torch.ops.aten.bmm] for counter in (forward, backward)]
    flops = pass_flops(model, make_plan([Segment(range(length), LAYERS)]), [])
    assert [count * (length + 1) // (2 * length) for count in found] == [
        flops.attention.forward,
        flops.attention.backward,
    ]


PRODUCTS = {"q_proj": [0, 0, 2, 4], "k_proj": [0, 0, 2, 4], "v_proj": [0, 0, 1, 4], "o_proj": [0, 0, 0, 4]}


@pytest.mark.parametrize("part", PRODUCTS)
def test_frozen_parts_need_fewer_products_of_attention(part: str) -> None:
    only(f"layers.2.self_attn.{part}")(model := make_model("llama"))
    flops = pass_flops(model, make_plan([Segment(range(7), LAYERS)]), [])
    assert flops.attention.backward == DENSE * 28 * sum(PRODUCTS[part])


def test_passes_add_up() -> None:
    model = make_model("llama")
    assert structure.num_layers(model) == LAYERS
    one, two = (pass_flops(model, make_plan([Segment(range(n), LAYERS)]), [HeadRead(LAYERS, n)]) for n in (5, 8))
    both = pass_flops(model, make_plan([Segment(range(n), LAYERS) for n in (5, 8)]), [HeadRead(LAYERS, 13)])
    assert one + two == both
    assert both.total == both.blocks.total + both.head.total
