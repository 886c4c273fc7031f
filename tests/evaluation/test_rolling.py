"""Tasks that read whole texts: articles of WikiText, and the harness's own perplexities of them."""

import math
from pathlib import Path

import pytest
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import bits_per_byte, weighted_perplexity
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks.wikitext.preprocess_wikitext import process_results, wikitext_detokenizer

from dft_search.config import RequestError
from dft_search.config.document import to_yaml
from dft_search.evaluation import Scorer
from dft_search.evaluation.choice import check_scoring
from dft_search.evaluation.metrics import rolling_metrics
from dft_search.evaluation.retention import english_tasks
from dft_search.evaluation.tasks import load_task
from tests.evaluation.conftest import MAX_LENGTH, make_live, make_task, scoring

METRICS = ("word_perplexity", "byte_perplexity", "bits_per_byte")
BODIES = [
    "The cat sat on the mat . " * 9,
    "A @-@ cow , it was said , ate .",
    "It ran . = No title =",
    "It sat .",
]
ARTICLES = [f" = Title {number} = \n \n {body} \n \n = = Part = = \n \n The end . \n \n"
            for number, body in enumerate(BODIES)]  # fmt: skip
HARNESS = {"output_type": "loglikelihood_rolling", "doc_to_target": "{{ wikitext(page) }}", "doc_to_count": "page"}


def write_task(folder: Path, **changes: object) -> Path:
    """A task over two articles a part; the first line of a file is blank or not."""
    for part, text in (("dev", " \n"), ("test", "")):
        (folder / f"{part}.txt").write_text(text + "".join(ARTICLES[:2] if part == "dev" else ARTICLES[2:]))
    parts = {"steer": {"files": ["dev.txt"]}, "test": {"files": ["test.txt"]}}
    about = {"task": "wiki", "description": "Articles.", "language": "en", "id": "title", "metric": METRICS[0]}
    path = folder / "wiki.yaml"
    path.write_text(to_yaml({**about, "metrics": METRICS[1:], "parts": parts, "harness": HARNESS, **changes}))
    return path


def test_articles_are_read_as_the_harness_reads_them(tmp_path):
    task = load_task(str(write_task(tmp_path)))
    for part, articles in (("steer", ARTICLES[:2]), ("test", ARTICLES[2:])):
        items = task.items(part)
        assert [item.choices for item in items] == [(page,) for page in articles]
        assert [item.text for item in items] == [wikitext_detokenizer({"page": page}) for page in articles]
    (tmp_path / "dev.txt").write_text("no article")
    with pytest.raises(RequestError, match="has no article"):
        load_task(str(tmp_path / "wiki.yaml")).items("steer")


def test_perplexities_are_those_of_the_harness(trained, tokenizer, tmp_path):
    """And scores of other tasks do not change beside them."""
    path, other = write_task(tmp_path), make_task(tmp_path)
    options = scoring(["places"], path, other)
    live = make_live(trained, tokenizer)
    found = Scorer(options.model_copy(update={"alpaca_wrap": True}), samples=True).score(live, "steer")
    model = HFLM(pretrained=trained, tokenizer=tokenizer, batch_size=1, max_length=MAX_LENGTH)
    texts = [wikitext_detokenizer({"page": page}) for page in ARTICLES[:2]]
    asked = [Instance("loglikelihood_rolling", {}, (text,), number) for number, text in enumerate(texts)]
    likelihoods = model.loglikelihood_rolling(asked, disable_tqdm=True)
    results = [process_results({"page": page}, [v]) for page, v in zip(ARTICLES[:2], likelihoods, strict=True)]
    for metric, name in zip(METRICS, ("wiki", "wiki.byte_perplexity", "wiki.bits_per_byte"), strict=True):
        combine = bits_per_byte if metric == "bits_per_byte" else weighted_perplexity
        assert found.values[name].value == pytest.approx(combine([result[metric] for result in results]), rel=1e-6)
        assert found.values[name].n == 2 and found.values[name].chance is None
    assert [sample.prompt for sample in found.samples["wiki"]] == texts
    alone = Scorer(scoring(["places"], other)).score(live, "steer")
    without = Scorer(options).score(live, "steer")
    assert alone.values["places"] == without.values["places"] and alone.values["score"] == without.values["score"]
    assert english_tasks(options) == english_tasks(scoring(["places"], other)), "retention is of what rises"


def test_the_spread_of_the_items_is_the_error_of_the_whole():
    """By leaving one text out at a time (the jackknife), which agrees for many texts."""
    texts = [f"{'word ' * (5 + n % 7)}end" for n in range(300)]
    nats = [-(2 + 0.3 * math.sin(n)) * len(text.split()) for n, text in enumerate(texts)]
    found = rolling_metrics(nats, texts)
    for metric, items in found.items():
        n = len(items)
        mean = math.fsum(items) / n
        error = math.sqrt(math.fsum((x - mean) ** 2 for x in items) / (n - 1) / n)
        left = []
        for out in range(n):
            rest = rolling_metrics(nats[:out] + nats[out + 1 :], texts[:out] + texts[out + 1 :])[metric]
            left.append(math.fsum(rest) / (n - 1))
        middle = math.fsum(left) / n
        jackknife = math.sqrt((n - 1) / n * math.fsum((x - middle) ** 2 for x in left))
        assert error == pytest.approx(jackknife, rel=0.02)


def test_a_broken_model_has_a_perplexity_too():
    found = rolling_metrics([-1e6, -10.0], ["a b", "a b c"])
    assert found["word_perplexity"] == [math.inf, math.inf] and math.isfinite(sum(found["bits_per_byte"]))


@pytest.mark.parametrize(
    ("harness", "said"),
    [
        ({**HARNESS, "doc_to_text": "title"}, "loglikelihood_rolling has no prompt"),
        ({**HARNESS, "output_type": "loglikelihood", "doc_to_text": "title"}, "doc_to_count belongs to"),
        ({"output_type": "loglikelihood_rolling"}, "doc_to_target is required"),
    ],
)
def test_a_wrong_task_file_is_refused(tmp_path, harness, said):
    with pytest.raises(RequestError, match=said):
        load_task(str(write_task(tmp_path, harness=harness)))


def test_a_metric_that_falls_is_no_part_of_the_score(tmp_path):
    problems = check_scoring(scoring(["wiki"], write_task(tmp_path)))
    (problem,) = [one for one in problems if one.key == "recipe.scoring.score.mean[0]"]
    assert "'wiki' falls as models get better" in str(problem)
