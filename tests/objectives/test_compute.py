"""``compute_loss`` and ``Objective`` as people with their own trainer use them."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

import dft_search as ds
from dft_search.config import RequestError
from dft_search.data.encode import encode_row
from dft_search.data.row import Row
from tests.models.tiny import VOCABULARY, make_model
from tests.objectives.reference import reference_terms

ROWS = [
    {
        "en_instruction": "b c",
        "en_input": "d e f",
        "en_output": "g h",
        "tgt_instruction": "m n o",
        "tgt_input": "p",
        "tgt_output": "q r s t",
    },
    {
        "en_instruction": "b",
        "en_input": "",
        "en_output": "g",
        "tgt_instruction": "m n",
        "tgt_input": "",
        "tgt_output": "q",
    },
]


def make_tokenizer() -> PreTrainedTokenizerFast:
    words = ["<unk>", "<s>", "</s>", *"abcdefghijklmnopqrstuvwxyz", "###", ":", "Instruction", "Input", "Response"]
    tool = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tool.pre_tokenizer = pre_tokenizers.Whitespace()
    tool.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tool, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


CASES: list[dict[str, Any]] = [
    {"conversion": {"layer": 2, "weight": 0.5}, "thinking": {"layer": "75%"}},
    {"conversion": {"layer": 2, "text": "instruction"}, "thinking": {"layer": 3}},
    {"conversion": {"layer": 2, "text": "prompt"}, "thinking": {"layer": 3}, "reading": "aligned"},
    {"conversion": {"layer": 2, "supervision": "feature"}, "thinking": {"layer": 3, "supervision": "feature"}},
    {"method": "tft"},
    {"method": "sft"},
    {"method": "mid_align", "alignment": {"layer": 2, "weight": 0.3}},
]


@pytest.mark.parametrize("options", CASES)
def test_against_plain_forward_passes(options: dict[str, Any], tokenizer: PreTrainedTokenizerFast) -> None:
    objective = ds.Objective(**options)
    plain, model = make_model("llama"), make_model("llama")
    text = objective.conversion.text
    rows = [encode_row(Row(id=str(n), **row), tokenizer, max_length=128, query_text=text) for n, row in enumerate(ROWS)]
    expected = reference_terms(plain, rows, objective)
    out = ds.compute_loss(model, tokenizer, ROWS, objective)
    assert tuple(out.terms) == objective.term_names == tuple(expected)
    for name, value in expected.items():
        assert torch.allclose(out.terms[name].double(), value, rtol=2e-6), name
    weights = {"generation": 1.0} | {name: options.weight for name, options in objective.supervisions.items()}
    total = torch.stack([weights[name] * value for name, value in expected.items()]).sum()
    assert torch.allclose(out.loss.double(), total, rtol=2e-6)
    total.backward()
    out.loss.backward()
    for name, parameter in model.named_parameters():
        grad = plain.get_parameter(name).grad
        assert float((parameter.grad - grad).norm() / grad.norm()) < 2e-6, name


def test_terms_have_gradients_of_their_own(tokenizer: PreTrainedTokenizerFast) -> None:
    model = make_model("llama")
    out = ds.compute_loss(model, tokenizer, ROWS, ds.Objective(**CASES[0]))
    out.terms["conversion"].backward()
    assert model.model.layers[1].mlp.up_proj.weight.grad.any()
    assert not any(p.grad is not None and p.grad.any() for p in model.model.layers[2].parameters())
    assert model.lm_head.weight.grad is None or not model.lm_head.weight.grad.any()


def test_plain_text(tokenizer: PreTrainedTokenizerFast) -> None:
    model = make_model("llama").eval()
    out = ds.compute_loss(model, tokenizer, [{"text": "b c d e"}], ds.Objective(method="lm"))
    tokens = torch.tensor([[1, *tokenizer.encode("b c d e", add_special_tokens=False), 2]])
    assert torch.allclose(out.loss.float(), model(tokens, labels=tokens).loss, rtol=1e-5)


BAD: list[tuple[Any, dict[str, Any], str]] = [
    ([], {"method": "tft"}, "no rows"),
    ([{"tgt_instruction": "m"}], {"method": "tft"}, "row 0: tgt_output is missing or empty"),
    ([{**ROWS[0], "en_output": ""}], CASES[0], "row 0: en_output is missing or empty"),
    ([{**ROWS[0], "tgt_outputs": ""}], CASES[0], "row 0: unknown key 'tgt_outputs' (did you mean 'tgt_output'?)"),
    (ROWS, {}, "recipe.objective.thinking.layer: layer 15 is outside of the model (expected 1..4)"),
]


@pytest.mark.parametrize(("rows", "options", "message"), BAD)
def test_a_bad_request_is_refused(
    rows: Any, options: dict[str, Any], message: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(RequestError) as caught:
        ds.compute_loss(make_model("llama"), tokenizer, rows, ds.Objective(**options))
    assert message in str(caught.value)


def test_an_unsupported_family_is_refused_by_name(tokenizer: PreTrainedTokenizerFast) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=8, n_layer=1, n_head=1))
    with pytest.raises(RequestError, match="family 'gpt2' is not supported .*llama.*mistral.*qwen2.*qwen3.*gemma2"):
        ds.compute_loss(model, tokenizer, ROWS, ds.Objective(method="tft"))


@pytest.mark.parametrize(
    "line", ["import dft_search; dft_search.__version__", "from dft_search import Objective; Objective().canonical()"]
)
def test_importing_is_light(line: str) -> None:
    check = "import sys; heavy = {'torch', 'ray', 'transformers'} & set(sys.modules); assert not heavy, heavy"
    subprocess.run([sys.executable, "-c", f"{line}; {check}"], check=True, timeout=60)


def test_an_unknown_attribute_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        ds.nothing  # noqa: B018
    assert {"Objective", "compute_loss", "__version__"} <= set(dir(ds))
