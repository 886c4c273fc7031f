"""How many questions a model answers right, by one forward pass: a quick look without the evaluation harness."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from dft_search.demo.questions import Question


@torch.no_grad()
def accuracy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, questions: Sequence[Question]) -> float:
    """Share of questions whose right choice is the likeliest one.

    Every choice is one token in this world, so the distribution after the prompt is all that is needed.
    """
    batch = tokenizer([question["prompt"] for question in questions], padding=True, return_tensors="pt")
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    last = batch["attention_mask"].sum(1) - 1
    after_prompt = logits[torch.arange(len(questions)), last]
    right = 0
    for scores, question in zip(after_prompt, questions, strict=True):
        choices = tokenizer.convert_tokens_to_ids(question["choices"])
        right += scores[choices].argmax().item() == question["answer"]
    return right / len(questions)
