"""Plans and collation: what is read once, what leaves, and what an empty micro-batch does."""

import copy
from typing import Any

import pytest
import torch

from dft_search.objectives.batch import collate
from dft_search.objectives.module import ObjectiveModule
from dft_search.objectives.options import Objective
from dft_search.objectives.terms import Side, StateRead, StateTerm
from tests.models.tiny import LAYERS, LENGTHS, VOCABULARY, make_model, make_rows

LOGITS = {"conversion": {"layer": 1}, "thinking": {"layer": 3}}
FEATURES = {
    "conversion": {"layer": 1, "supervision": "feature"},
    "thinking": {"layer": 3, "supervision": "feature"},
}


def test_the_prompt_is_read_once_and_branches_leave() -> None:
    [row] = rows = make_rows([(9, 7, 8, 5, 4)])
    plan = collate(rows, Objective(**LOGITS), LAYERS, has_bos=True).plan
    assert len(plan.segments) == 3  # prompt and answer are one
    # no branch needs its last token, and neither does the answer: nothing is predicted from it
    alive = {phase.last: phase.tokens for phase in plan.phases}
    assert alive == {1: 9 + 6 + 4 + 3, 3: 9 + 6 + 4, 4: 9 + 6}
    assert plan.token_layers == 22 + 2 * 19 + 15
    main = [*row.segments["target_prompt"], *row.segments["target_answer"][:-1]]
    assert plan.ids[:15].tolist() == main
    assert plan.positions[15:19].tolist() == [9, 10, 11, 12]  # a branch goes on where the prompt ends


def test_english_prompts_are_read_as_far_as_their_span() -> None:
    rows = make_rows([(9, 7, 8, 5, 4)])
    options = {**FEATURES, "thinking": {"supervision": "none"}}
    batch = collate(rows, Objective(**options), LAYERS, has_bos=True)
    # positions 2, 3, 5, 6 of the English prompt are its query, at layer 1
    assert [(phase.last, phase.tokens) for phase in batch.plan.phases] == [(1, 15 + 7), (4, 15)]
    english, target = batch.pools["conversion"]
    assert batch.plan.positions[english.index[0]].tolist() == [2, 3, 5, 6]
    assert batch.plan.positions[target.index[0]].tolist() == [2, 3, 5, 6, 7]


def test_counts() -> None:
    rows = make_rows(LENGTHS)
    assert collate(rows, Objective(**LOGITS), LAYERS, has_bos=True).counts.tolist() == [29.0, 30.0, 29.0]
    assert collate(rows, Objective(**FEATURES), LAYERS, has_bos=True).counts.tolist() == [29.0, 5.0, 5.0]


@pytest.mark.parametrize(("reading", "kept"), [("position_wise", 3), ("aligned", 3)])
def test_dropped_english_tokens_are_counted(reading: str, kept: int) -> None:
    rows = make_rows([(12, kept, 7, 8, 10)])
    batch = collate(rows, Objective(**LOGITS, reading=reading), LAYERS, has_bos=True)
    # the query of the target prompt has 8 places for 10 tokens, the answer 3 for 8
    assert batch.counts.tolist() == [3.0, 8.0, 3.0]
    assert batch.dropped.tolist() == [0.0, 2.0, 5.0]


@pytest.mark.parametrize("options", [LOGITS, FEATURES])
@pytest.mark.parametrize("family", ["qwen2", "gemma2"])
def test_an_empty_micro_batch_takes_part_and_adds_nothing(family: str, options: dict[str, Any]) -> None:
    objective = Objective(**options)
    model = make_model(family)
    module = ObjectiveModule(model, objective)
    full = collate(make_rows(LENGTHS), objective, LAYERS, has_bos=True)
    module(full, full.counts)[0].backward()
    reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    empty = collate([], objective, LAYERS, has_bos=True)
    assert empty.counts.tolist() == [0.0] * 3 and empty.tokens == 0
    loss, sums = module(empty, full.counts)
    loss.backward()
    assert loss.item() == 0.0 and not sums.any()
    assert {name for name, parameter in model.named_parameters() if parameter.grad is not None} == reached
    assert not any(parameter.grad.any() for parameter in model.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("options", [LOGITS, FEATURES])
def test_micro_batches_add_up(options: dict[str, Any]) -> None:
    objective, rows = Objective(**options), make_rows(LENGTHS)
    whole = make_model("llama")
    parts = copy.deepcopy(whole)
    batch = collate(rows, objective, LAYERS, has_bos=True)
    loss, sums = ObjectiveModule(whole, objective)(batch, batch.counts)
    loss.backward()
    module = ObjectiveModule(parts, objective)
    found = [module(collate(m, objective, LAYERS, has_bos=True), batch.counts) for m in (rows[:2], [], rows[2:])]
    for part, _ in found:
        part.backward()
    assert torch.allclose(sum(part for part, _ in found), loss, rtol=1e-6)
    terms = len(objective.term_names)  # what is watched beside them depends on the rows of a micro-batch
    assert torch.allclose(sum(part for _, part in found)[:terms], sums[:terms], rtol=1e-6)
    for name, parameter in parts.named_parameters():
        assert torch.allclose(parameter.grad, whole.get_parameter(name).grad, rtol=1e-5, atol=1e-9), name


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2"])
def test_a_switched_model_computes_what_it_did_before(family: str) -> None:
    model = make_model(family).eval()
    tokens = torch.randint(3, VOCABULARY, (2, 11))
    padded = torch.ones_like(tokens).index_fill_(1, torch.tensor([9, 10]), 0)
    with torch.no_grad():
        before = model(tokens).logits, model(tokens, attention_mask=padded).logits
        made = model.generate(tokens, max_new_tokens=4, do_sample=False)
        ObjectiveModule(model, Objective(method="tft"))
        assert torch.equal(model(tokens).logits, before[0])
        assert torch.equal(model(tokens, attention_mask=padded).logits, before[1])
        assert torch.equal(model.generate(tokens, max_new_tokens=4, do_sample=False), made)
    assert "segmented" not in model.config.to_json_string()


def test_bfloat16_is_reduced_in_float32() -> None:
    objective = Objective(**LOGITS)
    model = make_model("llama", dtype=torch.float32)
    batch = collate(make_rows(LENGTHS), objective, LAYERS, has_bos=True)
    exact, _ = ObjectiveModule(model, objective)(batch, batch.counts)
    loss, _ = ObjectiveModule(model.bfloat16(), objective)(batch, batch.counts)
    loss.backward()
    assert loss.dtype == torch.float32
    assert abs(float(loss.detach() - exact.detach())) < 0.05 * float(exact.detach())
    assert model.lm_head.weight.grad.dtype == torch.bfloat16


def test_separation_is_how_much_closer_a_row_is_to_its_own_translation() -> None:
    english = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]])
    target = torch.tensor([[1.0, 1.0], [0.0, 1.0], [4.0, 3.0]])
    half = 0.5**0.5
    cosines = [[half, half, 1.4 * half], [0.0, 1.0, 0.8], [0.8, 0.6, 0.96]]
    expected = [cosines[r][r] - sum(cosines[r][s] for s in range(3) if s != r) / 2 for r in range(3)]
    side = Side(1, lambda row, has_bos: StateRead((), ()))
    term = StateTerm("conversion", 1.0, side, side, "mean")
    assert term.watch(english, target)["separation"].tolist() == pytest.approx(expected, abs=1e-6)
    assert len(term.watch(english[:1], target[:1])["separation"]) == 0  # nothing to be told apart from


def test_what_is_watched_comes_with_its_count() -> None:
    objective = Objective(**FEATURES)
    module = ObjectiveModule(make_model("llama"), objective)
    assert module.watched == ("conversion/separation", "thinking/separation")
    for rows, count in ((make_rows(LENGTHS), len(LENGTHS)), (make_rows(LENGTHS)[:1], 0)):
        batch = collate(rows, objective, LAYERS, has_bos=True)
        _, sums = module(batch, batch.counts)
        assert sums[5:].tolist() == [count] * 2
        assert bool(sums[3:5].any()) == bool(count)
