"""The live model's log-likelihoods against the harness's own HFLM and against plain forward passes."""

import pytest
import torch
from lm_eval.models.huggingface import HFLM

from dft_search.config import RequestError
from dft_search.evaluation import likelihoods
from dft_search.evaluation.harness import LiveLM
from tests.evaluation.conftest import MAX_LENGTH, SENTENCES, make_live, make_model
from tests.evaluation.samples import PAIRS, answers, assert_same, instances


def requests(pairs):
    return instances("loglikelihood", pairs)


def direct(model, context: list[int], continuation: list[int]) -> float:
    """Log-likelihood from one forward pass over one text, in float64 from the logits on."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([context + continuation])).logits[0].double().log_softmax(-1)
    return sum(logits[len(context) - 1 + k, token].item() for k, token in enumerate(continuation))


@pytest.mark.parametrize(("family", "mode"), [("llama", "auto"), ("llama", "lock-step"), ("gemma2", "gathered")])
def test_equals_hflm_sample_by_sample(family, mode, tokenizer):
    model = make_model(tokenizer, family, steps=60).eval()
    expected = answers(HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, max_length=MAX_LENGTH))
    found = answers(LiveLM(make_live(model, tokenizer), mode=mode))

    assert_same(found, expected)
    assert {greedy for _, greedy in found["loglikelihood"]} == {True, False}
    # stop strings and ends cut some texts short, and the model has something to say
    assert len({len(text) for text in found["generate"]}) > 3


def test_generation_stops_where_hflm_cuts(tokenizer):
    """HFLM goes on until every row of a batch has stopped; one row's text must not depend on the others."""
    model = make_model(tokenizer, steps=60).eval()
    until = ["on", " sat on t", "the r", "t"]  # the second and third begin before another one ends
    options = [{"until": until[:count], "max_gen_toks": 20} for count in range(1, 5)]
    prompts = [(sentence[:9], given) for given in options for sentence in SENTENCES]
    expected = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=7, max_length=MAX_LENGTH)
    found = LiveLM(make_live(model, tokenizer)).generate_until(instances("generate_until", prompts))
    assert found == expected.generate_until(instances("generate_until", prompts), disable_tqdm=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"do_sample": True, "temperature": 0.8}, "does not sample"),
        ({"temperature": 0.8}, "does not sample"),
        ({"num_beams": 4, "max_gen_toks": 8}, "no generation option 'num_beams'"),
        ({"no_repeat_ngram_size": 2, "max_gen_toks": 8}, "no generation option 'no_repeat_ngram_size'"),
        ({"max_gen_toks": MAX_LENGTH}, "48 new tokens are not possible"),
    ],
)
def test_what_is_not_greedy_is_refused(live, options, message):
    with pytest.raises(RequestError, match=message):
        LiveLM(live).generate_until(instances("generate_until", [("The cat", options)]))


def test_continuation_that_merges_into_the_context_is_scored_by_itself(live):
    encode = live.tokenizer.encode
    assert len(encode("looked around")) <= len(encode("looked aroun")), "the border must be merged away"
    (found,) = LiveLM(live).loglikelihood(requests([("looked aroun", "d")]))
    alone = encode("d", add_special_tokens=False)
    assert found.tokens == len(alone) == 1
    assert found.value == pytest.approx(direct(live.model, encode("looked aroun"), alone), abs=1e-5)


def test_overlong_continuation_is_scored_up_to_the_window(live, caplog):
    (found,) = LiveLM(live).loglikelihood(requests([("The cat", " sat" * 100)]))
    tokens = live.tokenizer.encode("The cat" + " sat" * 100)
    begin = len(live.tokenizer.encode("The cat"))
    assert (found.tokens, found.scored) == (100, MAX_LENGTH)
    window = tokens[begin - 1 : begin + MAX_LENGTH]
    assert found.value == pytest.approx(direct(live.model, window[:1], window[1:]), rel=1e-5)
    assert "1 answers are longer than the window of 48 tokens" in caplog.text


def test_head_sees_only_needed_positions_a_few_at_a_time(live, monkeypatch):
    whole = LiveLM(live).loglikelihood(requests(PAIRS))
    monkeypatch.setattr(likelihoods, "LOGITS_AT_ONCE", 5 * live.model.lm_head.weight.shape[0])
    seen = []
    hook = live.model.lm_head.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape))
    chunked = LiveLM(live).loglikelihood(requests(PAIRS))
    hook.remove()

    assert max(rows for rows, _ in seen) == 5
    scored = sum(found.scored for found in chunked)
    # the eight letters, the places after "sat on" and the two texts about the cow share positions
    assert sum(rows for rows, _ in seen) < scored - 8
    assert [found.value for found in chunked] == pytest.approx([found.value for found in whole], abs=1e-5)
    assert [found.matched for found in chunked] == [found.matched for found in whole]


def test_model_is_left_as_it_was(tokenizer):
    model = make_model(tokenizer, dropout=0.5).train()
    model.model.layers[0].eval()  # a part that its owner keeps in eval mode
    modes = [module.training for module in model.modules()]
    bits = {name: value.clone() for name, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    live = make_live(model, tokenizer)

    first = LiveLM(live).loglikelihood(requests(PAIRS))
    second = LiveLM(live).loglikelihood(requests(PAIRS))
    assert list(first) == list(second), "dropout was on"
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(bits[name], value) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_answer_without_a_token_is_refused(live):
    with pytest.raises(RequestError, match="no token for the answer"):
        LiveLM(live).loglikelihood(requests([("The cat", "")]))
