"""Run where the toy package is installed: its loss and gradients against a hand-written one. Prints the errors."""

import json

import torch

import dft_search as ds
from dft_search.data.encode import encode_row
from dft_search.data.row import Row
from tests.models.tiny import make_model
from tests.objectives.reference import reference_terms
from tests.objectives.test_compute import ROWS, make_tokenizer

LAYER, WEIGHT, SCALE = 2, 0.3, 4.0


def main() -> None:
    """Print the largest relative errors as JSON."""
    objective = ds.Objective(method="toy", toy={"layer": LAYER, "weight": WEIGHT, "scale": SCALE})
    plain, model, tokenizer = make_model("llama"), make_model("llama"), make_tokenizer()
    rows = [encode_row(Row(id=str(n), **row), tokenizer, max_length=128) for n, row in enumerate(ROWS)]
    distances = []
    for row in rows:
        pooled = []
        for prompt in ("english_prompt", "target_prompt"):
            ids = torch.tensor([row.segments[prompt]])
            states = plain(input_ids=ids, output_hidden_states=True).hidden_states[LAYER][0]
            pooled.append(states[row.spans[prompt]].mean(0))
        distances.append(SCALE * ((pooled[0] - pooled[1]) ** 2).mean())
    toy = torch.stack(distances).mean()
    expected = reference_terms(plain, rows, ds.Objective(method="tft"))["generation"] + WEIGHT * toy
    out = ds.compute_loss(model, tokenizer, ROWS, objective)
    expected.backward()
    out.loss.backward()
    gradients = []
    for name, parameter in model.named_parameters():
        grad = plain.get_parameter(name).grad
        gradients.append(float((parameter.grad - grad).norm() / grad.norm()))
    errors = {
        "loss": float((out.loss - expected).abs() / expected),
        "term": float((out.terms["toy"] - toy).abs() / toy),
    }
    print(json.dumps({**errors, "gradients": max(gradients), "terms": list(out.terms)}))


if __name__ == "__main__":
    main()
