"""The shipped suites on real files, offline: the harness's own prompts, whole articles, scores of every task."""

import pytest
from lm_eval.utils import apply_template

from dft_search.config import expand_path
from dft_search.evaluation import Scorer, ScoringOptions, check_scoring
from dft_search.evaluation.items import read_rows
from dft_search.evaluation.metrics import METRICS
from dft_search.evaluation.named import task_manager
from dft_search.evaluation.tasks import load_task, suites

pytestmark = pytest.mark.usefixtures("data_folder")

PARTS = ("steer", "select", "test")
LOCAL = ["english_retention", "local_qa", "local_nlu", "translation", "response_language"]


def rows_of(task):
    (path,) = {name for part in PARTS for name in getattr(task.options.parts, part).files}
    return read_rows(expand_path(path), task.document)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [*((f"xquad_{code}", f"xquad_{code}") for code in ("ar", "en", "vi", "zh")), ("truthfulqa_en", "truthfulqa_mc1")],
)
def test_questions_are_asked_as_the_harness_asks_them(name, theirs):
    task, config = load_task(name), task_manager().task_index[theirs].cfg
    rows = {str(row["id"]): row for row in rows_of(task)}
    items = [item for part in PARTS for item in task.items(part)]
    assert len(items) == len(rows)
    for item in items[::7]:
        assert item.text == apply_template(config["doc_to_text"], rows[item.id])
    if name.startswith("xquad"):
        assert all(item.choices == tuple(rows[item.id]["answers"]) for item in items)
        kwargs, ours = config["generation_kwargs"], task.options.harness.generation_kwargs
        assert (kwargs["until"], kwargs["do_sample"]) == (ours.until, False)


def test_mmlu_is_asked_as_the_harness_asks_it():
    config = task_manager().task_index["m_mmlu_ar"].cfg
    task = load_task("mmlu_ar")
    rows = {row["id"]: row for row in rows_of(task)}
    for item in task.items("test")[::50]:
        row = rows[item.id]
        options = dict(zip(("option_a", "option_b", "option_c", "option_d"), row["ar_choices"], strict=True))
        assert item.text == apply_template(config["doc_to_text"], {"instruction": row["ar_question"], **options})
        assert (list(item.choices), item.answer) == (config["doc_to_choice"], row["answer"])


def test_languages_hold_out_the_same_items_and_xquad_whole_articles():
    for family, codes in (("xquad", "ar en vi zh"), ("mkqa", "ar en zh"), ("sib200", "ar en vi zh")):
        tasks = [load_task(f"{family}_{code}") for code in codes.split()]
        for part in PARTS:
            assert len({tuple(item.id for item in task.items(part)) for task in tasks}) == 1
    articles = {part: {item.cluster for item in load_task("xquad_zh").items(part)} for part in PARTS}
    assert sum(map(len, articles.values())) == len(set.union(*articles.values())) == 48
    # the same sentences are translated and sorted by topic
    same = [load_task(name).items("test") for name in ("sib200_zh", "flores200_zh-en")]
    assert [item.id for item in same[0]] == [item.id for item in same[1]]


def test_all_local_suites_are_scored_offline(live):
    """A tiny model that knows bytes alone: what counts is that every task gives every score, with its error."""
    names = [name for suite in LOCAL for name in suites()[suite]]
    options = ScoringOptions.model_validate(
        {
            "dev": [{"suite": suite, "limit": 2} for suite in LOCAL],
            "score": {"mean": names, "normalize": "chance", "per": "language"},
        }
    )
    assert len(names) == len(set(names)) == 30
    assert check_scoring(options) == []
    live.max_length = 300  # 256 tokens are generated
    scores = Scorer(options, samples=True).score(live, "steer")
    for name in names:
        task = load_task(name)
        for score, metric in task.metrics.items():
            value, best = scores.values[score], METRICS[task.options.harness.output_type][metric].best
            assert value.stderr is not None and value.n == len(scores.items[score]) == 2
            assert best is None or 0 <= value.value <= best
        assert [sample.values[task.options.metric] for sample in scores.samples[name]] == scores.items[name]
    assert scores.values["mmlu_ar"].chance == 0.25 and scores.values["mkqa_zh"].chance == 0
    assert scores.values["score"].stderr is not None and scores.values["score"].n == 60
