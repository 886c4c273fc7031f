"""Generated answers against right ones: the harness's MLQA functions, and cases worked out by hand from the scripts."""

import random

import pytest
from lm_eval.tasks.mlqa import utils as mlqa

from dft_search.evaluation.text_metrics import NORMALIZERS, best_f1, best_match

SQUAD, MLQA, MKQA = (NORMALIZERS[name] for name in ("squad", "mlqa", "mkqa"))


@pytest.mark.parametrize(
    ("output", "reference", "f1", "exact"),
    [
        ("The Denver Broncos!", "Denver Broncos", 1.0, 1.0),
        ("a Denver", "Denver Broncos", 2 / 3, 0.0),
        ("308 points", "308", 2 / 3, 0.0),
        ("丹佛野马队", "丹佛野马", 0.0, 0.0),  # no spaces: one word each
        ("丹佛野马。", "丹佛野马", 0.0, 0.0),  # SQuAD takes ASCII punctuation away only
        ("", "308", 0.0, 0.0),
        ("the", "an", 1.0, 1.0),  # nothing is left of either
        ("b b c", "b c c", 2 / 3, 0.0),
    ],
)
def test_squad(output, reference, f1, exact):
    assert best_f1(output, [reference], SQUAD, "zh") == pytest.approx(f1)
    assert best_match(output, [reference], SQUAD, "zh") == exact


def test_mlqa_is_what_the_harness_computes():
    rng = random.Random(3)
    pieces = {
        "zh": ["丹佛", "野马队", "308", " Super Bowl ", "，", "“杯”", " the ", "々"],
        "vi": ["của ", "là ", "Huế ", "những ", "cái ", "sông, ", "308 ", "(Đà) "],
        "ar": ["ال", "القاهرة ", " المدينة", "، ", "في ", "والنيل ", "308 ", " "],
        "en": ["the ", "a ", "an", "cat ", "Cat, ", "“dog” ", "308 ", "$ "],
        "de": ["der ", "Die ", "einem ", "Fluss ", "fluss. ", "308 ", "ß ", "- "],
    }
    compared = 0
    for language, words in pieces.items():
        for _ in range(150):
            output, *references = ("".join(rng.choices(words, k=rng.randint(0, 5))) for _ in range(3))
            want = mlqa.process_results_lang({"answers": references}, [output], language)
            assert best_f1(output.strip(), references, MLQA, language) == pytest.approx(want["f1"]), (
                output,
                references,
            )
            assert best_match(output.strip(), references, MLQA, language) == want["exact_match"]
            compared += 0 < want["f1"] < 1
    assert compared > 50, "all or nothing would prove little"


@pytest.mark.parametrize(
    ("language", "output", "references", "f1"),
    [
        ("zh", "戴维·埃德", ["戴维·埃德蒙兹"], 2 * 1 * 5 / 7 / (1 + 5 / 7)),  # characters; the dot is not ASCII
        ("zh", "戴维 埃德", ["戴维埃德"], 1.0),
        ("en", "the Beatles", ["Beatles", "x"], 1.0),
        ("ar", "القاهرة", ["قاهرة"], 1.0),  # the article goes wherever it stands
        ("ar", "خالد", ["خد"], 0.0),  # also within a word, which leaves two
        ("vi", "của Huế", ["Huế"], 1.0),
        ("en", "", [""], 1.0),  # no answer, rightly
        ("en", "Paris", [""], 0.0),
        ("en", "", ["Paris"], 0.0),
        ("en", "?", [""], 1.0),  # nothing is left of it
        ("en", "1969 july", ["july 20 1969", "1969"], 0.8),
        ("xx", "un mot", ["un mot"], 1.0),  # a language without articles
    ],
)
def test_mkqa(language, output, references, f1):
    assert best_f1(output, references, MKQA, language) == pytest.approx(f1)


def test_mlqa_words_differ_from_squad_words_for_chinese():
    assert best_f1("丹佛野马队", ["丹佛野马"], MLQA, "zh") == pytest.approx(8 / 9)
    assert best_match("《丹佛野马》。", ["丹佛野马"], MLQA, "zh") == 1.0
