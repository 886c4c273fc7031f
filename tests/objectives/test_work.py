"""What a pass does and leaves out: blocks once each, no backward below what trains, no row in another's numbers."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dft_search.data.encode import EncodedRow
from dft_search.objectives.batch import Batch, collate
from dft_search.objectives.module import ObjectiveModule
from dft_search.objectives.options import Objective
from tests.models.tiny import LAYERS, LENGTHS, VOCABULARY, make_model, make_rows

FEATURE = {"supervision": "feature"}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "tft": {"method": "tft"},
    "logits": {"conversion": {"layer": 1}, "thinking": {"layer": 3}},
    "features": {"conversion": {**FEATURE, "layer": 1}, "thinking": {**FEATURE, "layer": 3}},
    "aligned": {"conversion": {"layer": 1}, "thinking": {"layer": 3}, "reading": "aligned"},
}

# prompt 9, answer 7, English prompt 8, English answer 5, English query 4: nothing is predicted from a last token
MAIN = 9 + 7 - 1
COUNTED: dict[str, tuple[int, ...]] = {  # tokens by block, counted by hand
    "tft": (MAIN, MAIN, MAIN, MAIN),
    "logits": (MAIN + 4 + 3, MAIN + 4, MAIN + 4, MAIN),
    "features": (MAIN + 7, MAIN + 7, MAIN + 7, MAIN + 7),  # the English query ends at its prompt's seventh token
    "aligned": (MAIN, MAIN, MAIN, MAIN),
}


@pytest.mark.parametrize("family", ["llama", "gemma2"])
@pytest.mark.parametrize("case", COUNTED)
def test_every_block_runs_once_over_the_living(case: str, family: str) -> None:
    module, batch = prepared(make_model(family), case, make_rows([(9, 7, 8, 5, 4)]))
    seen: list[tuple[int, int]] = []
    for number, block in enumerate(module.model.model.layers, 1):
        block.register_forward_pre_hook(
            lambda _, inputs, number=number: seen.append((number, inputs[0][..., 0].numel()))
        )
    module(batch, batch.counts)[0].backward()
    assert seen == list(enumerate(COUNTED[case], 1))
    assert batch.plan.token_layers == sum(COUNTED[case])
    module(batch, batch.counts)
    assert len(seen) == 2 * LAYERS  # no block runs again for the backward pass, and a second micro-batch is one more


def prepared(model: Any, case: str, rows: list[EncodedRow]) -> tuple[ObjectiveModule, Batch]:
    objective = Objective(**OBJECTIVES[case])
    return ObjectiveModule(model, objective), collate(rows, objective, LAYERS, has_bos=True)


def changed(row: EncodedRow) -> EncodedRow:
    """Another row of the same lengths."""
    segments = {name: [3 + (7 * token + 5) % (VOCABULARY - 3) for token in row.segments[name]] for name in row.segments}
    return EncodedRow(row.id, segments, row.spans)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("place", [0, 6])
@pytest.mark.parametrize("case", OBJECTIVES)
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_a_row_changes_no_bit_of_another(family: str, case: str, place: int, dtype: torch.dtype) -> None:
    """Neither of its losses by label, nor of the gradients that they send back."""
    rows = make_rows([(9, 7, 8, 5, 4)] * 4 + LENGTHS)
    model, mine = make_model(family, dtype=dtype), own_values(case, rows, place)
    found = []
    for own in (rows[place], changed(rows[place])):
        module, batch = prepared(model, case, [*rows[:place], own, *rows[place + 1 :]])
        values = module.values(batch)
        model.zero_grad()
        torch.stack([value[~mine[name]].float().sum() for name, value in values.items()]).sum().backward()
        found.append((values, {name: parameter.grad for name, parameter in model.named_parameters()}))
    (before, gradients), (after, again) = found
    for name, own in mine.items():
        assert torch.equal(before[name][~own], after[name][~own]), name
        assert not torch.equal(before[name][own], after[name][own]), name
    for name, gradient in gradients.items():
        assert gradient is not None and gradient.any() and torch.equal(gradient, again[name]), name


def own_values(case: str, rows: list[EncodedRow], place: int) -> dict[str, Tensor]:
    """Which values of each term are those of one row: they lie in row order."""
    objective = Objective(**OBJECTIVES[case])
    first, last, end = (
        collate(rows[:n], objective, LAYERS, has_bos=True).counts.long().tolist() for n in (place, place + 1, len(rows))
    )
    return {
        name: (torch.arange(end[n]) >= first[n]) & (torch.arange(end[n]) < last[n])
        for n, name in enumerate(objective.term_names)
    }


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # on modules whose input needs no gradient
@pytest.mark.parametrize("case", ["tft", "logits", "features"])
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_no_backward_below_what_trains(family: str, case: str) -> None:
    """Only block 3 trains; conversion at layer 1 would reach nothing, so it reads at layer 3 as well."""
    model = make_model(family)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("model.layers.2."))
    options: dict[str, Any] = {
        name: {**part, "layer": 3} if isinstance(part, dict) else part for name, part in OBJECTIVES[case].items()
    }
    module = ObjectiveModule(model, objective := Objective(**options))
    states: dict[int, Tensor] = {}
    for number, block in enumerate(model.model.layers, 1):
        block.register_forward_hook(lambda _, __, out, number=number: states.update({number: out}))
    reached: list[str] = []
    for name, part in model.named_modules():
        if not list(part.children()):
            part.register_full_backward_hook(lambda *_, name=name: reached.append(name))
    batch = collate(make_rows(LENGTHS), objective, LAYERS, has_bos=True)
    module(batch, batch.counts)[0].backward()
    assert [states[number].requires_grad for number in range(1, LAYERS + 1)] == [False, False, True, True]
    assert all(states[number].grad_fn is None for number in (1, 2))
    assert any(name.startswith("model.layers.3.") for name in reached)
    assert not any(name.startswith(("model.layers.0.", "model.layers.1.", "model.embed")) for name in reached)
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == name.startswith("model.layers.2."), name


@pytest.mark.parametrize("case", ["tft", "logits", "features"])
def test_inner_terms_send_nothing_above_their_layer(case: str) -> None:
    """The backward pass of a block takes the tokens alive in it, and no others."""
    module, batch = prepared(make_model("llama"), case, make_rows([(9, 7, 8, 5, 4)]))
    seen: list[tuple[int, int]] = []

    def count(number: int) -> Any:
        return lambda _, __, gradients: seen.append((number, gradients[0][..., 0].numel()))

    for number, block in enumerate(module.model.model.layers, 1):
        linear: nn.Module = block.self_attn.o_proj
        linear.register_full_backward_hook(count(number))
    module(batch, batch.counts)[0].backward()
    assert seen == list(enumerate(COUNTED[case], 1))[::-1]
