"""Answers of a live model to the prompts of a comparison: greedy, up to the end of the sequence."""

from collections.abc import Sequence

from lm_eval.api.instance import Instance

from dft_search.evaluation.harness import LiveLM
from dft_search.models.live import LiveModel

STOP = ["\n### Instruction:"]  # a model that goes on with the template has answered


def generate(live: LiveModel, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
    """One answer a prompt, stripped. Collective: every rank passes the same prompts and gets all answers."""
    settings = {"until": STOP, "max_gen_toks": max_new_tokens, "do_sample": False}
    requests = [Instance("generate_until", {}, (prompt, dict(settings)), index) for index, prompt in enumerate(prompts)]
    return [answer.strip() for answer in LiveLM(live).generate_until(requests)]
