"""Metrics of a whole set: sacrebleu's numbers, MKQA's sweep, and items whose mean and spread are the metric's."""

import math
import random
import statistics

import pytest
import sacrebleu

from dft_search.evaluation.corpus import answerable_f1, best_threshold_f1, bleu, chrf, jackknife

ENGLISH = ["the cat sat on the mat .", "there is a red house near the river .", "he has two dogs and a bird ."]
CHINESE = ["猫坐在垫子上。", "河边有一座红色的房子。", "他有两条狗和一只鸟。"]


def spoiled(text, seed):
    rng = random.Random(seed)
    return "".join(c for c in text if rng.random() > 0.15)


def test_translations_score_as_sacrebleu_scores_them():
    outputs = [spoiled(text, seed) for seed, text in enumerate(ENGLISH * 4)]
    references = [(text,) for text in ENGLISH * 4]
    stream = [[one[0] for one in references]]
    assert statistics.fmean(chrf(outputs, references, "en")) == pytest.approx(
        sacrebleu.corpus_chrf(outputs, stream).score
    )
    assert statistics.fmean(bleu(outputs, references, "en")) == pytest.approx(
        sacrebleu.corpus_bleu(outputs, stream).score
    )
    outputs = [spoiled(text, seed) for seed, text in enumerate(CHINESE)]
    stream = [CHINESE]
    got = statistics.fmean(bleu(outputs, [(text,) for text in CHINESE], "zh"))
    assert got == pytest.approx(sacrebleu.corpus_bleu(outputs, stream, tokenize="zh").score) and got > 5
    assert got != pytest.approx(sacrebleu.corpus_bleu(outputs, stream).score, abs=1)


def test_several_references_of_unequal_number():
    outputs, references = ENGLISH[:2], [(ENGLISH[0], "a cat was on a mat ."), (ENGLISH[1],)]
    stream = [[ENGLISH[0], ENGLISH[1]], ["a cat was on a mat .", None]]
    assert statistics.fmean(chrf(outputs, references, "en")) == pytest.approx(
        sacrebleu.corpus_chrf(outputs, stream).score
    )


def test_extremes():
    assert statistics.fmean(chrf(ENGLISH, [(text,) for text in ENGLISH], "en")) == pytest.approx(100)
    assert chrf(["", ""], [("a b c",), ("d e f",)], "en") == [0.0, 0.0]
    assert bleu(["x"], [("y",)], "en") == [0.0]


def test_the_spread_of_the_items_is_the_bootstrap_error():
    texts = [f"{ENGLISH[k % 3]} {k * 37 % 101} {k * 11 % 13}" for k in range(120)]
    outputs = [spoiled(text, seed) if seed % 3 else text for seed, text in enumerate(texts)]
    items = chrf(outputs, [(text,) for text in texts], "en")
    error = statistics.stdev(items) / math.sqrt(len(items))
    rng = random.Random(0)
    draws = []
    for _ in range(300):
        chosen = rng.choices(range(120), k=120)
        draws.append(sacrebleu.corpus_chrf([outputs[k] for k in chosen], [[texts[k] for k in chosen]]).score)
    assert error == pytest.approx(statistics.stdev(draws), rel=0.2)


def sweep(f1, references, outputs, no_answer):
    """The official script's sweep, written out: threshold by threshold over the sorted probabilities."""
    score = best = sum(answers == ("",) for answers in references)
    for k in sorted(range(len(f1)), key=lambda k: no_answer[k]):
        if references[k] != ("",):
            score += f1[k]
        elif outputs[k]:
            score -= 1
        best = max(best, score)
    return best / len(f1)


def random_case(rng, count):
    references = [("x",) if rng.random() > 0.3 else ("",) for _ in range(count)]
    outputs = [rng.choice(["x", "y", ""]) for _ in range(count)]
    f1 = [float(out in ref) if rng.random() > 0.3 else 0.5 for out, ref in zip(outputs, references, strict=True)]
    return f1, references, outputs, [rng.choice([0.1, 0.2, 0.5, rng.random()]) for _ in range(count)]


def test_best_f1_is_the_official_sweep_and_its_items_are_its_jackknife():
    rng = random.Random(1)
    for count in [1, 2, 3, 10, 40] * 8:
        case = random_case(rng, count)
        items = best_threshold_f1(*case)
        assert statistics.fmean(items) == pytest.approx(sweep(*case))
        if count > 1:
            without = [sweep(*([*part[:k], *part[k + 1 :]] for part in case)) for k in range(count)]
            assert items == pytest.approx(jackknife(sweep(*case), without))


def test_the_floor_of_mkqa():
    """Of 10,000 questions 3,242 have no answer: a model that knows nothing scores 32.42 points, whatever it says."""
    references = [("",)] * 1427 + [("Paris",)] * 6758 + [("",)] * 1815
    f1 = [0.0] * 10000
    for outputs, no_answer in (
        (["London"] * 10000, [0.0] * 10000),
        (["London"] * 10000, [k / 10000 for k in range(10000)]),
        ([""] * 10000, [1.0] * 10000),
    ):
        f1 = [float(answers == ("",) and not out) for answers, out in zip(references, outputs, strict=True)]
        assert round(100 * statistics.fmean(best_threshold_f1(f1, references, outputs, no_answer)), 2) == 32.42


def test_a_constant_takes_the_best_beginning_of_the_file():
    references, outputs = [("a",), ("",), ("a",), ("a",)], ["a", "b", "b", "a"]
    f1 = [1.0, 0.0, 0.0, 1.0]
    # starts at 1 (one question without answer), then 2, 1, 1, 2
    assert statistics.fmean(best_threshold_f1(f1, references, outputs, [0.0] * 4)) == pytest.approx(2 / 4)
    reverse = [part[::-1] for part in (f1, references, outputs)]  # 2, 2, 1, 2: another order, here the same best
    assert statistics.fmean(best_threshold_f1(*reverse, [0.0] * 4)) == pytest.approx(2 / 4)
    # told apart by confidence the wrong ones stay out: 1, 2, 3
    assert statistics.fmean(best_threshold_f1(f1, references, outputs, [0.1, 0.9, 0.8, 0.2])) == pytest.approx(3 / 4)


def test_answerable_f1_is_the_mean_over_questions_that_have_an_answer():
    f1, references = [1.0, 0.5, 1.0, 0.0], [("a",), ("b", "c"), ("",), ("d",)]
    items = answerable_f1(f1, references)
    assert statistics.fmean(items) == pytest.approx(0.5) and len(items) == 4
    assert answerable_f1([1.0], [("",)]) is None
