"""Cross-lingual preference, generation in chosen languages and retention against slow references; what they cost.

The references run transformers' own model over one sequence at a time: four sequences a row for two DPO records, and
whole distributions over the vocabulary for the KL, of the model and of a second one that is the untrained base.
"""

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch import Tensor

from dft_search.config import RequestError, build, parse_document
from dft_search.data.encode import EncodedRow, encode_row
from dft_search.data.needs import PARALLEL
from dft_search.data.row import Row
from dft_search.models import head
from dft_search.models.flops import Flops
from dft_search.objectives.batch import collate
from dft_search.objectives.check import check_objective
from dft_search.objectives.compute import compute_loss
from dft_search.objectives.flops import batch_flops
from dft_search.objectives.module import ObjectiveModule
from dft_search.objectives.options import Objective
from dft_search.objectives.preference import PreferenceOptions, PreferenceTerm, read_pairs
from dft_search.objectives.retention import RetentionOptions
from dft_search.objectives.section import TermContext
from tests.models.tiny import LAYERS, LENGTHS, VOCABULARY, make_model, make_rows
from tests.objectives.based import batch_of, moved
from tests.objectives.family import SHIPPED, relative, same_gradients
from tests.objectives.reference import reference_terms
from tests.objectives.test_compute import ROWS, make_tokenizer

TWO: dict[str, Any] = {"languages": ["target", "english"]}
RECORDS = (("target", "english"), ("english", "target"))  # language of prompt and chosen answer, of the rejected one
DISTILLED: dict[str, Any] = {"supervision": "distillation", "weight": 0.7, "top": 5}


def clo(**preference: Any) -> dict[str, Any]:
    return {"method": "clo", "preference": {"balance": 0.3, "beta": 0.4, **preference}}


CASES: dict[str, dict[str, Any]] = {
    "dpo": clo(),
    "the sum of both records": clo(reduction="sum"),
    "per token": clo(length_normalised=True, beta=2.0),
    "kto": clo(variant="kto"),
    "kto per token": clo(variant="kto", length_normalised=True, beta=2.0),
    "simpo": clo(variant="simpo", beta=2.0, gamma=1.0),
    "preference alone": clo(balance=0.0),
    "nll in both languages": {**clo(), "generation": TWO},
    "nll in English": {**clo(), "generation": {"languages": ["english"]}},
    "sums of tokens": {**clo(), "generation": {**TWO, "reduction": "sum"}},
    "with retention": {**clo(), "retention": DISTILLED},
    "tft in both languages": {"method": "tft", "generation": TWO},
    "dft in both languages": {"conversion": {"layer": 2}, "thinking": {"layer": 3}, "generation": TWO},
    "mid_align in both languages": {"method": "mid_align", "alignment": {"layer": 2}, "generation": TWO},
    "tft by row": {"method": "tft", "generation": {"reduction": "sum"}},
    "tft with retention": {"method": "tft", "retention": DISTILLED},
    "one token told apart": {"method": "tft", "retention": {**DISTILLED, "top": 1}},
    "all tokens told apart": {"method": "tft", "retention": {**DISTILLED, "top": 1000}},
    "dft with retention": {"conversion": {"layer": 2}, "thinking": {"layer": 3}, "retention": DISTILLED},
    "mid_align with retention": {"method": "mid_align", "alignment": {"layer": 2}, "retention": DISTILLED},
}


class Slow:
    """The terms of an objective by full, unpacked passes of ``model`` and of ``base``."""

    def __init__(self, model: Any, base: Any, objective: Objective):
        self.model, self.base, self.objective = model, base, objective

    def terms(self, rows: Sequence[EncodedRow]) -> dict[str, Tensor]:
        """In the order of the objective's terms."""
        found = reference_terms(self.model, list(rows), self.objective)
        for language, name in (("target", "generation"), ("english", "generation_english")):
            answers = [self.log_probs(self.model, row, language, language) for row in rows]
            whole = -torch.cat(answers).sum()
            by_row = self.objective.generation.reduction == "sum"
            found[name] = whole / (len(rows) if by_row else sum(map(len, answers)))
        options = self.objective.preference
        records = [
            self.record(row, own, other)
            for row in rows
            for own, other in (("target", "english"), ("english", "target"))
        ]
        found["preference"] = torch.stack(records).sum() / len(rows) / (1 if options.reduction == "sum" else 2)
        found["retention"] = torch.cat([self.kl(row) for row in rows]).mean()
        return {name: found[name] for name in self.objective.term_names}

    def logits(self, model: Any, prompt: list[int], answer: list[int]) -> Tensor:
        """[len(answer), V], at the positions that predict the answer's tokens."""
        tokens = torch.tensor([[*prompt, *answer]])
        return model(input_ids=tokens, use_cache=False).logits[0, len(prompt) - 1 : -1]

    def log_probs(self, model: Any, row: EncodedRow, asked: str, answered: str) -> Tensor:
        """Of each token of the answer in one language after the prompt in another."""
        answer = row.segments[f"{answered}_answer"]
        logits = self.logits(model, row.segments[f"{asked}_prompt"], answer)
        return -F.cross_entropy(logits, torch.tensor(answer), reduction="none")

    def record(self, row: EncodedRow, own: str, other: str) -> Tensor:
        """One DPO record: prompt and chosen answer in ``own``, rejected answer in ``other``."""
        options = self.objective.preference
        chosen, rejected = (self.log_probs(self.model, row, own, answered) for answered in (own, other))
        if options.variant == "simpo":
            return -torch.log(torch.sigmoid(options.beta * (chosen.mean() - rejected.mean()) - options.gamma))
        with torch.no_grad():
            before = [self.log_probs(self.base, row, own, answered) for answered in (own, other)]
        ratios = [(now.sum() - then.sum()) for now, then in zip((chosen, rejected), before, strict=True)]
        if options.length_normalised:
            ratios = [ratio / len(then) for ratio, then in zip(ratios, before, strict=True)]
        better, worse = (options.beta * ratio for ratio in ratios)
        if options.variant == "kto":
            return (1 - torch.sigmoid(better) + 1 - torch.sigmoid(-worse)) / 2
        return -torch.log(torch.sigmoid(better - worse))

    def kl(self, row: EncodedRow) -> Tensor:
        """[tokens of the English answer], with all but the base's most likely tokens in one bucket."""
        prompt, answer = row.segments["english_prompt"], row.segments["english_answer"]
        with torch.no_grad():
            p = self.logits(self.base, prompt, answer).softmax(-1)
        q = self.logits(self.model, prompt, answer).softmax(-1)
        found = []
        for mine, theirs in zip(p, q, strict=True):
            order = mine.argsort(descending=True)
            top, rest = order[: self.objective.retention.top], order[self.objective.retention.top :]
            value = (mine[top] * torch.log(mine[top] / theirs[top])).sum()
            if len(rest):
                value = value + mine[rest].sum() * torch.log(mine[rest].sum() / theirs[rest].sum())
            found.append(value)
        return torch.stack(found)


def compare(model: Any, options: dict[str, Any], base: Any, plain: Any = None) -> None:
    """Losses and all gradients against the slow reference; the open values too."""
    objective, rows = Objective(**options), make_rows(LENGTHS)
    plain = copy.deepcopy(model) if plain is None else plain
    expected = Slow(plain, base, objective).terms(rows)
    module = ObjectiveModule(model, objective)
    batch = batch_of(objective, base, rows)
    weights = {term.name: term.weight for term in module.terms}
    assert list(weights) == list(expected) == list(objective.term_names)
    torch.stack([weights[name] * value for name, value in expected.items()]).sum().backward()
    loss, sums = module(batch, batch.counts)
    loss.backward()
    for (name, value), found in zip(expected.items(), sums[: len(expected)] / batch.counts, strict=True):
        assert relative(found, value.detach()) < SHIPPED, name
    same_gradients(model, plain, SHIPPED)
    model.zero_grad(set_to_none=True)
    values = module.values(batch)
    terms = [weights[name] * values[name].sum() / count for name, count in zip(expected, batch.counts, strict=True)]
    again = torch.stack(terms).sum()
    again.backward()
    assert relative(again.detach(), loss.detach()) < SHIPPED
    same_gradients(model, plain, SHIPPED)


@pytest.mark.parametrize("case", CASES)
def test_every_option(case: str) -> None:
    model = make_model("llama")
    compare(model, CASES[case], moved(model))


@pytest.mark.parametrize("case", ["dpo", "with retention"])
def test_a_tied_head_with_softcap_and_windows(case: str) -> None:
    model = make_model("gemma2")
    compare(model, CASES[case], moved(model))


@pytest.mark.parametrize("chunk", [1, 3])
def test_answers_longer_than_a_chunk(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "chunk_rows", lambda *_: chunk)
    model = make_model("llama")
    compare(model, CASES["nll in both languages"], moved(model))


@pytest.mark.parametrize("case", ["dpo", "simpo", "with retention"])
def test_attention_alone(case: str) -> None:
    model = make_model("llama")
    base = moved(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("self_attn" in name)
    compare(model, CASES[case], base)


@pytest.mark.parametrize("case", ["dpo", "with retention"])
def test_lora(case: str) -> None:
    adapter = LoraConfig(r=2, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM")
    base = make_model("llama")
    model = get_peft_model(copy.deepcopy(base), adapter)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    compare(model, CASES[case], base)


def test_an_untrained_model_is_the_base() -> None:
    """All log-ratios are 0, and so is the KL."""
    model, objective = make_model("llama"), Objective(**CASES["with retention"])
    module, batch = ObjectiveModule(model, objective), batch_of(objective, model, make_rows(LENGTHS))
    _, sums = module(batch, batch.counts)
    named = dict(zip([*objective.term_names, *module.watched], sums.tolist(), strict=False))
    assert named["preference"] / 10 == pytest.approx(torch.tensor(2.0).log().item(), rel=1e-6)
    assert abs(named["retention"]) < 1e-4 and named["preference/margin"] == pytest.approx(0, abs=1e-6)


def test_accuracy_and_margin() -> None:
    model, objective = make_model("llama"), Objective(**clo(beta=1.0))
    base, rows = moved(model), make_rows(LENGTHS)
    slow = Slow(model, base, objective)
    margins = []
    for row in rows:
        for own, other in RECORDS:
            with torch.no_grad():
                ratios = [
                    float((slow.log_probs(model, row, own, said) - slow.log_probs(base, row, own, said)).sum())
                    for said in (own, other)
                ]
            margins.append(ratios[0] - ratios[1])
    module, batch = ObjectiveModule(model, objective), batch_of(objective, base, rows)
    _, sums = module(batch, batch.counts)
    assert module.watched == ("preference/accuracy", "preference/margin") and sums[4:].tolist() == [batch.counts[1]] * 2
    accuracy, margin = (sums[2:4] / sums[4:]).tolist()
    assert margin == pytest.approx(sum(margins) / len(margins), rel=1e-5)
    assert accuracy == sum(one > 0 for one in margins) / len(margins)


def test_both_records_are_one_pass_that_shares_prompts_and_the_chosen_answer() -> None:
    rows, objective = make_rows(LENGTHS), Objective(**clo())
    batch = collate(rows, objective, LAYERS, has_bos=True)
    read = [row.segments for row in rows]
    prompts = sum(len(row[f"{side}_prompt"]) for row in read for side in ("target", "english"))
    answers = sum(2 * (len(row["target_answer"]) + len(row["english_answer"]) - 2) for row in read)
    assert batch.tokens == prompts + answers and batch.plan.token_layers == LAYERS * batch.tokens
    assert set(batch.shared) == {"generation"}
    labels = batch.pairs["preference"].labels.labels[batch.shared["generation"]]
    assert labels.tolist() == batch.labels["generation"].labels.tolist()
    both = collate(rows, Objective(**{**clo(), "generation": TWO}), LAYERS, has_bos=True)
    assert set(both.shared) == {"generation", "generation_english"} and both.tokens == batch.tokens


def test_operations_count_shared_labels_once() -> None:
    rows, model = make_rows(LENGTHS), make_model("llama")

    def cost(options: dict[str, Any]) -> Flops:
        objective = Objective(**options)
        module = ObjectiveModule(model, objective)
        return batch_flops(module, collate(rows, objective, LAYERS, has_bos=True))

    one, two = cost(clo()), cost({**clo(), "generation": TWO})
    assert one == two
    labels = sum(2 * (len(row.segments["target_answer"]) + len(row.segments["english_answer"])) for row in rows)
    assert one.head.forward == 2 * labels * VOCABULARY * 32 and one.head.backward == 2 * one.head.forward
    tft, kept = cost({"method": "tft"}), cost({"method": "tft", "retention": DISTILLED})
    english = sum(len(row.segments["english_answer"]) for row in rows)
    assert kept.head.forward - tft.head.forward == 2 * english * VOCABULARY * 32
    assert kept.token_layers > tft.token_layers


def test_what_counts() -> None:
    plain = Objective(**clo())
    assert plain.term_names == ("generation", "preference") and plain.needs == PARALLEL
    assert Objective(**clo(gamma=9.0)).canonical() == plain.canonical()
    assert (
        Objective(**clo(variant="simpo", length_normalised=True)).canonical()
        == Objective(**clo(variant="simpo")).canonical()
    )
    for name, value in {"beta": 0.5, "balance": 0.4, "length_normalised": True, "reduction": "sum"}.items():
        assert Objective(**clo(**{name: value})).canonical() != plain.canonical(), name
    assert Objective(preference={"beta": 3.0}, retention={"top": 3}).canonical() == Objective().canonical()
    assert Objective(generation={"languages": ["target"], "reduction": "mean"}).canonical() == Objective().canonical()
    assert Objective(method="sft", generation=TWO).canonical() == {"method": "sft"}
    assert Objective(method="tft", generation={"languages": ["english"]}).canonical() == {"method": "sft"}
    swapped = {"languages": ["english", "target"]}
    assert Objective(generation=swapped).canonical() == Objective(generation=TWO).canonical() != Objective().canonical()
    off = {"supervision": "none"}
    kept = Objective(conversion=off, thinking=off, retention=DISTILLED)
    assert kept.canonical() == Objective(method="tft", retention=DISTILLED).canonical()
    assert kept.canonical()["method"] == "tft" and kept.needs == PARALLEL


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("generation: {languages: []}", "objective.generation.languages"),
        ("generation: {languages: [target, target]}", "each language once"),
        ("generation: {languages: [thai]}", "objective.generation.languages"),
        ("preference: {beta: 0}", "objective.preference.beta"),
        ("preference: {balance: 1}", "objective.preference.balance"),
        ("preference: {variant: dpa}", "did you mean 'dpo'?"),
        ("retention: {top: 0}", "objective.retention.top"),
    ],
)
def test_a_mistake_gets_one_clear_line(lines: str, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        build(Objective, parse_document(f"objective:\n  {lines}\n", "f.yaml"), ("objective",))
    assert len(caught.value.problems) == 1 and message in str(caught.value)


def test_two_terms_that_compare_pairs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a method of a package may have them: the head takes the pairs of one, the other's loss would be zero."""

    def term(options: RetentionOptions, context: TermContext) -> PreferenceTerm:
        return PreferenceTerm("retention", 1.0, context.num_layers, read_pairs, PreferenceOptions())

    monkeypatch.setattr(RetentionOptions, "term", term)
    with pytest.raises(RequestError, match="preference and retention compare pairs of answers"):
        check_objective(Objective(**{**clo(), "retention": DISTILLED}), LAYERS, "full")
    assert len(Objective(method="tft", retention=DISTILLED).terms(LAYERS)) == 2


def test_they_reach_whatever_trains() -> None:
    objective = Objective(**{**clo(), "retention": DISTILLED})
    assert not check_objective(objective, LAYERS, {"layers": [LAYERS, LAYERS]})


def test_a_row_without_one_of_its_answers_has_no_pair() -> None:
    """Its other answer is still generated, and still kept near the base."""
    model, objective = make_model("llama"), Objective(**{**CASES["with retention"], "generation": TWO})
    base, rows = moved(model), make_rows(LENGTHS)
    rows[1].segments["english_answer"] = []
    whole = [row for number, row in enumerate(rows) if number != 1]
    module, batch = ObjectiveModule(model, objective), batch_of(objective, base, rows)
    english = sum(len(row.segments["english_answer"]) for row in rows)
    target = sum(len(row.segments["target_answer"]) for row in rows)
    assert batch.counts.tolist() == [target, english, 2 * len(whole), english]
    assert set(batch.shared) == {"generation_english"}  # one target answer is in no pair
    _, sums = module(batch, batch.counts)
    expected = Slow(model, base, objective).terms(whole)
    for number, name in enumerate(objective.term_names):
        if name != "generation":
            assert float(sums[number] / batch.counts[number]) == pytest.approx(float(expected[name].detach()), rel=1e-5)
    nothing = batch_of(objective, base, [])
    loss, sums = module(nothing, batch.counts)
    loss.backward()
    assert not sums.any() and not any(p.grad.any() for p in model.parameters() if p.grad is not None)


def test_answers_are_cut_alike_after_both_prompts() -> None:
    tokenizer, row = make_tokenizer(), Row(id="1", **ROWS[0])
    free = encode_row(row, tokenizer, max_length=128)
    longest = max(len(free.segments[f"{side}_prompt"]) for side in ("target", "english"))
    cut, plain = (encode_row(row, tokenizer, max_length=longest + 1, crossed=crossed) for crossed in (True, False))
    assert len(cut.segments["target_answer"]) == len(cut.segments["english_answer"]) == 1
    shorter = longest - len(free.segments["target_prompt"])
    assert len(plain.segments["target_answer"]) == min(1 + shorter, len(free.segments["target_answer"]))
    assert Objective(method="clo").crosses_answers and not Objective(method="mid_align").crosses_answers


def test_with_a_trainer_of_ones_own() -> None:
    model, tokenizer = make_model("llama"), make_tokenizer()
    base, plain = moved(model), copy.deepcopy(model)
    objective = Objective(**{**CASES["with retention"], "generation": {**TWO, "reduction": "sum"}})
    out = compute_loss(model, tokenizer, ROWS, objective, max_length=64, reference=base)
    out.loss.backward()
    encoded = [encode_row(Row(id=str(n), **row), tokenizer, max_length=64, crossed=True) for n, row in enumerate(ROWS)]
    expected = Slow(plain, copy.deepcopy(base).eval(), objective).terms(encoded)
    weights = {term.name: term.weight for term in objective.terms(LAYERS)}
    loss = torch.stack([weights[name] * value for name, value in expected.items()]).sum()
    loss.backward()
    assert list(out.terms) == list(expected) and relative(out.loss.detach(), loss.detach()) < SHIPPED
    same_gradients(model, plain, SHIPPED)
    assert base.training
    with pytest.raises(RequestError, match="compares with the untrained base"):
        compute_loss(model, tokenizer, ROWS, objective)
