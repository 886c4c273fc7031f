"""Tasks whose answers are generated, on a live model: against the harness's own evaluation and the scripts' rules."""

import math
import statistics
import sys

import pytest
import sacrebleu
import torch
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM

from dft_search.config import RequestError
from dft_search.evaluation import Scorer, check_scoring
from dft_search.evaluation.answers import answers_in
from dft_search.evaluation.harness import LiveLM
from dft_search.evaluation.harness_task import HarnessTask
from dft_search.evaluation.tasks import load_task
from tests.evaluation.conftest import MAX_LENGTH, make_task, scoring

GENERATES = {
    "output_type": "generate_until",
    "doc_to_text": "prompt",
    "doc_to_target": "{{ choices | tojson if answer else '[]' }}",  # every second question has no answer
    "generation_kwargs": {"until": [" ."], "max_gen_toks": 12},
}


def generating(folder, name="said", **changes):
    task = {"metric": "f1", "metrics": ["exact_match"], "harness": GENERATES, **changes}
    return make_task(folder, name, **task)


def test_scores_equal_the_harness_evaluation(tmp_path, live):
    path = generating(tmp_path)
    scores = Scorer(scoring(["said"], path), samples=True).score(live, "select")
    task = load_task(str(path))
    reference = HFLM(pretrained=live.model, tokenizer=live.tokenizer, batch_size=4, max_length=MAX_LENGTH)
    results = evaluate(reference, {"said": HarnessTask(task.options, task.items("select"))}, bootstrap_iters=0)
    samples = sorted(results["samples"]["said"], key=lambda sample: sample["doc_id"])
    assert [sample.output for sample in scores.samples["said"]] == [sample["resps"][0][0] for sample in samples]
    assert scores.items["said"] == pytest.approx([sample["f1"] for sample in samples])
    assert scores.values["said"].value == pytest.approx(results["results"]["said"]["f1,none"])
    assert 0 < scores.values["said"].value < 1, "a degenerate model would prove nothing"
    assert scores.values["said"].chance == 0 and scores.values["said"].stderr > 0
    first = scores.samples["said"][0]
    assert (first.prompt, first.choices, first.likelihoods) == (task.items("select")[0].text, ("",), ())
    assert first.values == {"f1": scores.items["said"][0], "exact_match": scores.items["said.exact_match"][0]}


def test_mkqa_asks_how_sure_the_model_is_of_its_answer(tmp_path, live):
    mkqa = {"metric": "best_f1", "metrics": ["f1", "answerable_f1"], "normalizer": "mkqa"}
    scores = Scorer(scoring(["said"], generating(tmp_path, **mkqa)), samples=True).score(live, "steer")
    samples = scores.samples["said"]
    sure = []
    for sample in samples:
        if not sample.output:
            sure.append(0.0)
            continue
        context = live.tokenizer.encode(sample.prompt)
        answer = live.tokenizer.encode(sample.prompt + sample.output)[len(context) :]
        with torch.no_grad():
            logits = live.model(input_ids=torch.tensor([context + answer])).logits[0, len(context) - 1 : -1]
        chosen = logits.log_softmax(-1)[torch.arange(len(answer)), torch.tensor(answer)]
        sure.append(math.exp(chosen.mean().item()))
    best = running = sum(sample.choices == ("",) for sample in samples)
    for place in sorted(range(len(samples)), key=lambda k: -sure[k]):
        if samples[place].choices != ("",):
            running += scores.items["said.f1"][place]
        elif samples[place].output.strip():
            running -= 1
        best = max(best, running)
    assert scores.values["said"].value == pytest.approx(best / len(samples))
    assert scores.values["said"].value > 0.5 == scores.values["said"].chance
    constant = generating(tmp_path, "same", **{**mkqa, "no_answer": "constant"})
    running = best = sum(sample.choices == ("",) for sample in samples)
    for sample in samples:
        running += sample.values["f1"] if sample.choices != ("",) else -bool(sample.output.strip())
        best = max(best, running)
    found = Scorer(scoring(["same"], constant)).score(live, "steer")
    assert found.values["same"].value == pytest.approx(best / len(samples))
    answerable = [s.values["f1"] for s in samples if s.choices != ("",)]
    assert scores.values["said.answerable_f1"].value == pytest.approx(statistics.fmean(answerable))


def test_questions_without_any_answer_have_no_answerable_f1(tmp_path, live, caplog):
    """No score, said in a line; and refused beforehand where the study's score would need it."""
    nothing = {**GENERATES, "doc_to_target": "{{ [] | tojson }}"}
    path = generating(tmp_path, metrics=["answerable_f1"], normalizer="mkqa", harness=nothing)
    scores = Scorer(scoring(["said"], path), samples=True).score(live, "steer")
    assert set(scores.values) == {"score", "said"} and set(scores.items) == {"said"}
    assert math.isfinite(scores.values["score"].value) and set(scores.samples["said"][0].values) == {"f1"}
    assert "said has no answerable_f1 on steer: none of its questions has an answer" in caplog.text
    assert check_scoring(scoring(["said"], path)) == []
    problems = check_scoring(scoring(["said.answerable_f1"], path))
    assert [problem.key for problem in problems] == ["recipe.scoring.score.mean[0]"] * 3
    assert "'said.answerable_f1' has no value on steer: none of its questions has an answer" in str(problems[0])


def test_what_two_tasks_ask_alike_is_generated_once(tmp_path, live, monkeypatch):
    tasks = generating(tmp_path), generating(tmp_path, "same", normalizer="mlqa")
    seen = []
    generate = LiveLM.generate_until

    def counted(self, requests, **options):
        seen.append(len(requests))
        return generate(self, requests, **options)

    monkeypatch.setattr(LiveLM, "generate_until", counted)
    scores = Scorer(scoring(["said", "same"], *tasks), samples=True).score(live, "steer")
    assert [sample.output for sample in scores.samples["said"]] == [s.output for s in scores.samples["same"]]
    assert seen == [12]


def test_translations_are_scored_as_a_set(tmp_path, live):
    target = {**GENERATES, "doc_to_target": "{{ choices[answer] }}"}
    path = generating(tmp_path, metric="chrf", metrics=["bleu", "language_accuracy"], harness=target, chance=1.5)
    scores = Scorer(scoring(["said"], path), samples=True).score(live, "steer")
    outputs = [sample.output.strip() for sample in scores.samples["said"]]
    references = [[sample.choices[0] for sample in scores.samples["said"]]]
    want = (
        sacrebleu.corpus_chrf(outputs, references).score,
        sacrebleu.corpus_bleu(outputs, references, force=True).score,
    )
    assert (scores.values["said"].value, scores.values["said.bleu"].value) == pytest.approx(want)
    assert want[0] > 0 and scores.values["score"].stderr == pytest.approx(scores.values["said"].stderr)
    assert 0 < scores.values["said"].stderr < 100
    assert scores.values["said"].chance == 1.5, "as the task file says"
    assert scores.values["said.bleu"].chance is None


def test_prompts_in_the_alpaca_template(tmp_path, live):
    live.max_length = 4 * MAX_LENGTH
    paths = make_task(tmp_path, items=4), generating(tmp_path, items=4)
    options = scoring(["places.margin", "said"], *paths).model_copy(update={"alpaca_wrap": True})
    scores = Scorer(options, samples=True).score(live, "steer")
    plain = Scorer(scoring(["places.margin", "said"], *paths), samples=True).score(live, "steer")
    for name in ("places", "said"):
        prompt, before = scores.samples[name][0].prompt, plain.samples[name][0].prompt
        assert prompt.endswith(f"### Instruction:\n{before}\n\n### Response:")
    reference = HFLM(pretrained=live.model, tokenizer=live.tokenizer, batch_size=1, max_length=live.max_length)
    sample = scores.samples["places"][1]
    pairs = [(sample.prompt, choice) for choice in sample.choices]  # the answer follows directly
    requests = [type("R", (), {"args": pair})() for pair in pairs]
    want = [value for value, _ in reference.loglikelihood(requests, disable_tqdm=True)]
    assert sample.likelihoods == pytest.approx(want, abs=1e-3)


@pytest.mark.parametrize(
    ("answer", "language", "right"),
    [
        ("", "zh", False),
        ("首先，您需要确定您的目标，然后制定一个详细的学习计划并坚持执行下去。", "zh", True),
        ("First you need to set a goal, and then make a detailed plan and follow it.", "zh", False),
        ("Trước tiên bạn cần xác định mục tiêu của mình và lập kế hoạch chi tiết.", "vi", True),
        ("42", "ar", True),
    ],
)
def test_the_language_of_an_answer(answer, language, right):
    assert answers_in(answer, language) is right


COMET_TASK = {"metric": "comet", "metrics": [], "harness": {**GENERATES, "doc_to_source": "prompt"}}


def fake_comet(folder, count):
    """A command that reads COMET's arguments and files, and scores line k as k/100."""
    folder.mkdir(exist_ok=True)
    command = folder / "comet-score"
    command.write_text(
        f"#!{sys.executable}\n"
        "import json, sys\n"
        "given = dict(zip(sys.argv[1:], sys.argv[2:]))\n"
        "lines = {k: open(given[k], encoding='utf-8').read().split(chr(10))[:-1] for k in ('-s', '-t', '-r')}\n"
        f"assert len(lines['-s']) == len(lines['-t']) == len(lines['-r']) == {count}, lines\n"
        "assert given['--model'] == 'Unbabel/wmt22-comet-da'\n"
        "scores = [{'COMET': k / 100, 'src': s} for k, s in enumerate(lines['-s'])]\n"
        "json.dump({given['-t']: scores}, open(given['--to_json'], 'w'))\n"
    )
    command.chmod(0o755)
    return command


def test_comet_is_asked_of_its_own_command(tmp_path, live, monkeypatch):
    path = generating(tmp_path, **COMET_TASK)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (problem,) = check_scoring(scoring(["said"], path))
    assert "needs the command comet-score" in str(problem) and "pipx install unbabel-comet" in str(problem)
    with pytest.raises(RequestError, match="pipx install"):
        Scorer(scoring(["said"], path)).score(live, "steer")

    command = fake_comet(tmp_path / "bin", 12)
    scores = Scorer(scoring(["said"], path)).score(live, "steer")
    assert scores.items["said"] == pytest.approx(list(range(12)))
    command.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('no such model')\n")
    with pytest.raises(RequestError, match="comet-score failed: no such model"):
        Scorer(scoring(["said"], path)).score(live, "steer")
