"""The README of a folder of weights: whose they are, how they are loaded, and the prompt that they know."""

from dft_search.bundle.card import LICENCE, base_name, front_matter, whose_weights
from dft_search.bundle.read import Bundle
from dft_search.data.template import render_prompt

FULL = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("model")
tokenizer = AutoTokenizer.from_pretrained("model")"""
ADAPTER = """\
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained("{base}"{revision})
model = PeftModel.from_pretrained(base, "model")
tokenizer = AutoTokenizer.from_pretrained("model")"""


def weights_card(bundle: Bundle) -> str:
    """The whole page as Markdown. ``bundle`` has weights."""
    about, recipe = bundle.bundle, bundle.recipe
    assert about.weights is not None
    base, adapter = base_name(recipe), about.weights.kind == "adapter"
    told = f", revision `{recipe.model.revision}`" if recipe.model.revision else ""
    revision = f', revision="{recipe.model.revision}"' if recipe.model.revision else ""
    code = ADAPTER.format(base=base, revision=revision) if adapter else FULL
    parts = [
        front_matter(bundle, library="peft" if adapter else "transformers"),
        f"# {bundle.name}: {'adapter' if adapter else 'model'}",
        f"Trained by dft-search from `{base}`{told} (weights `{about.model.fingerprint or 'not noted'}`) for "
        f"`{recipe.data.target_language}`, recipe `{about.recipe_hash}`. {whose_weights(bundle)} The bundle that this "
        "folder belongs to says how good the recipe is, and trains it again.",
        LICENCE,
        "## Load it",
        f"```python\n{code}\n```",
        "## Prompt it",
        "Training used the Alpaca prompt, in English for every language; the answer follows without a space or a new "
        "line. An input, where there is one, follows the instruction as `### Input:`. The tokenizer's chat template is "
        "that of the base model where it has one (training did not use it), else this prompt:",
        f"```text\n{render_prompt('{instruction}', '').text}\n```",
    ]
    return "\n\n".join(parts) + "\n"
