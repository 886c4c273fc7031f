"""Log-likelihoods on a live model against the harness's own: `python -m tests.benchmarks.evaluation [--json]`.

The same requests by ``LiveLM`` and by ``HFLM``, on one process: XCOPA (two short choices), XQuAD-style choices (a
paragraph, a question and four answers of that paragraph) and XQuAD-style answers (the likelihood of the right one).
``HFLM`` runs with ``batch_size="auto"``, which first tries how many of the longest rows fit, and again with the size
that this finds, without the trial. Both read texts, so tokenizing is in the times. Results of all arms must agree.
"""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedTokenizerBase

from dft_search.evaluation.harness import LiveLM
from dft_search.evaluation.tasks import load_task
from dft_search.models.live import LiveModel
from tests.benchmarks import program, shapes
from tests.benchmarks.rows import LANGUAGES, bpe_tokenizer
from tests.benchmarks.timing import TOLERANCE, Clock, of_unit, paired, repeat, spread, verdict

SHAPE = "8x256x688x4x8000"
VOCABULARY = 8000  # with 32,000 the head would be most of so small a model, and HFLM computes all logits
MAX_LENGTH = 512
CHOICES = 4
OURS, SAME, AUTO, FIXED = "ours", "ours_again", "hflm_auto", "hflm_fixed"
LIMIT = 2.0  # times as fast as HFLM with batch_size="auto"
AGREEMENT = 1e-3  # nats, of one log-likelihood
Pair = tuple[str, str]  # context, continuation


@dataclass(frozen=True)
class Case:
    """Requests of one kind."""

    name: str
    pairs: list[Pair]


def xcopa(items: int) -> Case:
    """The harness's prompts of XCOPA in Chinese and Vietnamese."""
    pairs = []
    for language in LANGUAGES:
        for item in load_task(f"xcopa_{language}").items("test", items // len(LANGUAGES)):
            pairs += [(item.text, f" {choice}") for choice in item.choices]
    return Case("xcopa", pairs)


def xquad(file: Path, paragraphs: int, fits: Callable[[str], bool]) -> tuple[Case, Case]:
    """Choices among answers of a paragraph, and the right answers alone.

    Args:
        file: an XQuAD file, in SQuAD's format.
        paragraphs: so many are taken, from the first on, of those whose requests all fit.
        fits: whether a text is short enough.
    """
    choices: list[Pair] = []
    answers: list[Pair] = []
    taken = 0
    articles = json.loads(file.read_text(encoding="utf-8"))["data"]
    for paragraph in (paragraph for article in articles for paragraph in article["paragraphs"]):
        asked = [(qa["question"], qa["answers"][0]["text"]) for qa in paragraph["qas"]]
        prompts = [f"{paragraph['context']}\n\nQuestion: {question}\n\nAnswer:" for question, _ in asked]
        found = list(dict.fromkeys(answer for _, answer in asked))
        longest = max(found, key=len)
        if len(found) < CHOICES or not all(fits(f"{prompt} {longest}") for prompt in prompts):
            continue
        for prompt, (_, right) in zip(prompts, asked, strict=True):
            others = [answer for answer in found if answer != right][: CHOICES - 1]
            choices += [(prompt, f" {answer}") for answer in (right, *others)]
            answers.append((prompt, f" {right}"))
        taken += 1
        if taken == paragraphs:
            break
    return Case("xquad_choices", choices), Case("xquad_answers", answers)


def measure(
    case: Case,
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    clock: Clock,
    repetitions: int,
    told: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Time all arms and compare what they find."""
    requests = [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(case.pairs)]
    auto = HFLM(pretrained=model, tokenizer=tokenizer, batch_size="auto", max_length=MAX_LENGTH)
    values: dict[str, list[float]] = {}

    def by_live(name: str) -> None:
        live = LiveModel(model, tokenizer, clock.device, max_length=MAX_LENGTH)
        values[name] = [value for value, _ in LiveLM(live).loglikelihood(requests)]

    def by_harness(name: str, lm: HFLM) -> None:
        values[name] = [value for value, _ in lm.loglikelihood(requests, disable_tqdm=True)]

    by_harness(AUTO, auto)
    size = max(auto.batch_sizes.values())
    fixed = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=size, max_length=MAX_LENGTH)
    steps: dict[str, Callable[[], Any]] = {
        OURS: partial(by_live, OURS),
        AUTO: partial(by_harness, AUTO, auto),
        FIXED: partial(by_harness, FIXED, fixed),
        SAME: partial(by_live, SAME),
    }
    samples = repeat(steps, repetitions, clock, told=told)
    unit = clock.unit
    differences = [abs(mine - theirs) for mine, theirs in zip(values[OURS], values[FIXED], strict=True)]
    return {
        "requests": len(requests),
        "batch_size": size,
        "verdict": verdict(samples, OURS, SAME, unit),
        "unit": unit,
        "same_arm_ratio": paired(samples, SAME, OURS, unit).json(),
        "steal_seconds": spread([sample.steal for taken in samples.values() for sample in taken]).json(),
        "most_difference": max(differences),
        "arms": {
            name: {
                "seconds": spread(of_unit(samples[name], unit)).json(),
                "time_over_ours": paired(samples, name, OURS, unit).json(),
            }
            for name in steps
        },
    }


def missed(cases: dict[str, Any]) -> list[str]:
    """The cases that are not fast enough, or in which scores differ."""
    out = []
    for name, case in cases.items():
        ratio = case["arms"][AUTO]["time_over_ours"]["median"]
        if ratio < LIMIT:
            out.append(f"{name} is {ratio:.2f} times as fast")
        if case["most_difference"] > AGREEMENT:
            out.append(f"{name} differs by {case['most_difference']:.1e} nats")
    return out


def lines(found: dict[str, Any]) -> list[str]:
    """The report, to be read."""
    out = [
        "| case | requests | ours, CPU s | HFLM auto / ours | HFLM fixed / ours | its batch | most difference, nats |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, case in found["cases"].items():
        ratios = {arm: case["arms"][arm]["time_over_ours"] for arm in (AUTO, FIXED)}
        auto, fixed = (f"{r['median']:.2f} [{r['least']:.2f} {r['most']:.2f}]" for r in ratios.values())
        seconds = case["arms"][OURS]["seconds"]["median"]
        out.append(
            f"| {name} | {case['requests']} | {seconds:.2f} | {auto} | {fixed} | {case['batch_size']} | "
            f"{case['most_difference']:.1e} |"
        )
    for name, case in found["cases"].items():
        same, steal = case["same_arm_ratio"]["median"], case["steal_seconds"]["median"]
        out.append(f"{name}: the same arm twice {same:.2f}, stolen {steal:.2f} s: {case['verdict']}")
    return [*out, "missed: " + ("; ".join(missed(found["cases"])) or "nothing")]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.evaluation", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--model", default=SHAPE, help=shapes.SHAPE_HELP)
    parser.add_argument("--items", type=int, default=100, help="of XCOPA")
    parser.add_argument("--paragraphs", type=int, default=3, help="of XQuAD")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=2)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    data = Path(os.environ["DFT_SEARCH_DATA"])
    tokenizer = bpe_tokenizer(
        {name: data / "train" / f"alpaca_en_{name}.train.jsonl" for name in LANGUAGES}, VOCABULARY
    )
    clock = Clock(torch.device("cpu"), given.threads)
    model = shapes.random_model(shapes.model_config(given.model), clock.device, clock.dtype).eval()

    def fits(text: str) -> bool:
        return len(tokenizer.encode(text)) <= MAX_LENGTH

    cases = [xcopa(given.items), *xquad(data / "eval" / "xquad" / "xquad.zh.json", given.paragraphs, fits)]
    found: dict[str, Any] = {"benchmark": "evaluation", "model": given.model, "threads": given.threads}
    found |= {"repetitions": given.repetitions, "tolerance": TOLERANCE, "cases": {}}
    with contextlib.redirect_stdout(sys.stderr):  # HFLM prints
        for case in cases:
            told = program.teller(case.name)
            found["cases"][case.name] = measure(case, model, tokenizer, clock, given.repetitions, told)
    found["missed"] = missed(found["cases"])
    print(json.dumps(found, indent=1) if given.json else "\n".join(lines(found)))
    if any(case["verdict"] == "inconclusive" for case in found["cases"].values()):
        return program.INCONCLUSIVE
    return 1 if found["missed"] else 0


if __name__ == "__main__":
    program.ensure_passive("tests.benchmarks.evaluation")
    sys.exit(main())
