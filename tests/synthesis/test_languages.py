"""Which of a model's codes a language is."""

from types import SimpleNamespace
from typing import Any

import pytest

from dft_search.config import RequestError
from dft_search.synthesis.languages import Target, find_target, iso_code

NLLB = {"eng_Latn": 5, "zho_Hans": 6, "zho_Hant": 7, "vie_Latn": 8, "arb_Arab": 9, "<mask>": 10, "<s>": 0}
MARIAN = {">>cmn_Hans<<": 1, ">>cmn_Hant<<": 2, ">>yue<<": 3, "▁the": 4}


def tokenizer(added: dict[str, int] | None = None, vocab: dict[str, int] | None = None, **attributes: Any) -> Any:
    """What is asked of a tokenizer: the two vocabularies, and what some kinds have."""
    return SimpleNamespace(get_added_vocab=lambda: added or {}, get_vocab=lambda: vocab or {}, **attributes)


@pytest.mark.parametrize(
    ("of", "language", "target"),
    [
        (tokenizer(NLLB), "zh", Target("eng_Latn", "zho_Hans", 6)),
        (tokenizer(NLLB), "zh-TW", Target("eng_Latn", "zho_Hant", 7)),
        (tokenizer(NLLB), "vie_Latn", Target("eng_Latn", "vie_Latn", 8)),
        (tokenizer(lang_code_to_id={"en": 1, "zh": 2}), "zh", Target("en", "zh", 2)),
        (tokenizer(lang_code_to_id={"en_XX": 1, "zh_CN": 2}), "zh", Target("en_XX", "zh_CN", 2)),
        (tokenizer(vocab=MARIAN), "zh", Target(code="cmn_Hans", prefix=">>cmn_Hans<< ")),
        (tokenizer(target_lang="vi"), "vi", Target()),
    ],
)
def test_a_language_is_found_in_every_kind_of_model(of, language, target):
    assert find_target(of, language) == target


@pytest.mark.parametrize(
    ("of", "language", "said"),
    [
        (tokenizer(NLLB), "vie_Latin", "did you mean 'vie_Latn'?"),
        (tokenizer(NLLB), "de", "one of arb_Arab, eng_Latn"),
        (tokenizer(lang_code_to_id={"en_XX": 1, "pt_BR": 2, "pt_PT": 3}), "pt", "expected one of pt_BR, pt_PT"),
        (tokenizer(target_lang="de"), "vi", "the model writes de, not vi"),
        (tokenizer(), "vi", "names no languages"),
    ],
)
def test_a_language_that_the_model_does_not_write_is_refused(of, language, said):
    with pytest.raises(RequestError, match=said.replace("?", r"\?").replace("[", r"\[")):
        find_target(of, language)


@pytest.mark.parametrize(("code", "iso"), [("zho_Hans", "zh"), ("zh_CN", "zh"), ("vi", "vi"), ("xyz_Latn", "xyz_Latn")])
def test_codes_of_models_are_told_in_iso(code, iso):
    assert iso_code(code) == iso
