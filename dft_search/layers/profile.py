"""The profile of a recipe's model on its rows: everything that ``layers.json`` holds."""

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dft_search.config import Problem, RequestError
from dft_search.data.encode import Encoded, EncodedRow, encode_rows
from dft_search.data.needs import PARALLEL
from dft_search.data.rows import Rows, read_rows
from dft_search.layers.gradients import Alignments, align_gradients, needed_rows
from dft_search.layers.map import Readings, chosen_layers, map_states
from dft_search.layers.prompts import LANGUAGES, PromptReadings
from dft_search.layers.proposal import Proposal, mean_profile, propose
from dft_search.layers.retrieval import retrieve
from dft_search.layers.sharded import read_on_ranks, spread_model
from dft_search.layers.trained import load_trained
from dft_search.models import structure
from dft_search.models.loading import load_model, load_tokenizer
from dft_search.training.recipe import Recipe
from dft_search.training.session import Session
from dft_search.training.together import together

FORMAT = 1
ROWS = 200  # prompts of each language
SHOWN_ROWS, SHOWN_TOKENS = 2, 96  # whose tokens are told one by one
TOKENS = "query"  # the tokens that the proposal is made from: the template is the same English in both languages
DIGITS = 6


def profile_recipe(
    recipe: Recipe,
    *,
    rows: int = ROWS,
    gradients: bool = True,
    maps: bool = False,
    after: Path | None = None,
    session: Session | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any] | None:
    """Look into the model of a recipe, untrained, with its own rows. Collective when there are several ranks.

    Args:
        recipe: of a checked file. What it would train, and at which layers, is ignored.
        rows: at most so many prompts of each language, drawn once and always alike.
        gradients: also compare gradients, which takes three times the memory of the weights and most of the time, on a
            single rank.
        maps: also draw maps of the prompts' states.
        after: a trained model or adapter, to be drawn on the same maps (``trained.find_trained``).
        session: the ranks that hold the model together; by default those of torchrun, or this process alone on the
            first GPU, else the CPU.
        say: is told what is being done.

    Returns:
        What ``layers.json`` holds, plain data; see ``describe``. None on other ranks than 0.

    Raises:
        RequestError: model or rows cannot be used, or the rows have one language only.
        InfrastructureError: an error on one of several ranks.
        FailedElsewhere: as ``together``.
    """
    began = time.monotonic()
    ranks = session or Session.from_environment()
    if ranks.world_size > 1:
        ranks.mesh()  # exchanges something: not to be left to when weights are read
    say("Reading rows")
    encoded, fingerprint, tokenizer = together(
        ranks, lambda: _encode(recipe, max(rows, needed_rows() if gradients else 0))
    )
    prompts, inner_norm = encoded[:rows], recipe.objective.inner_norm
    say(f"Loading {recipe.model.path}")
    live = together(ranks, lambda: spread_model(load_model(recipe.model), tokenizer, ranks))
    model = live.model
    say(f"Reading {len(prompts)} prompts in two languages, layer by layer")
    readings = together(ranks, lambda: read_on_ranks(live, prompts, inner_norm=inner_norm))
    models: dict[str, Readings] = {"before": readings}
    aligned = None
    if gradients:
        say("Comparing gradients, layer by layer")
        aligned = align_gradients(model, encoded[:], recipe.objective, has_bos=encoded.has_bos)
    facts = {
        "model": recipe.model.path,
        "num_layers": structure.num_layers(model),
        "vocabulary": structure.head(model).weight.shape[0],
        "language": recipe.data.target_language,
        "rows": len(prompts),
        "data_fingerprint": fingerprint,
        "inner_norm": inner_norm,
        "has_bos": encoded.has_bos,
    }
    if after is not None:
        say(f"Reading the same prompts with {after}")
        del model, live  # their memory is wanted
        models["after"] = _read_trained(recipe, after, facts["num_layers"], prompts, tokenizer, ranks)
    if ranks.rank != 0:
        return None
    shown = [
        _by_token(row, language, readings[language].entropies[number], tokenizer)
        for number, row in enumerate(prompts[:SHOWN_ROWS])
        for language in LANGUAGES
    ]
    document = describe(prompts, readings, aligned, encoded.has_bos, facts) | {"tokens": shown}
    if maps:
        document["map"] = _maps(models, document, say)
    return document | {"seconds": round(time.monotonic() - began, 1)}


def _read_trained(
    recipe: Recipe, folder: Path, num_layers: int, prompts: Sequence[EncodedRow], tokenizer: Any, ranks: Session
) -> Readings:
    """The same prompts, read by the trained model."""
    load = lambda: load_trained(folder, recipe.model, num_layers, "cpu")  # noqa: E731
    live = together(ranks, lambda: spread_model(load(), tokenizer, ranks))
    return together(ranks, lambda: read_on_ranks(live, prompts, inner_norm=recipe.objective.inner_norm))


def _maps(models: Mapping[str, Readings], document: Mapping[str, Any], say: Callable[[str], None]) -> dict[str, Any]:
    """Maps at the proposed layers and some between."""
    proposal = document["proposal"]
    layers = chosen_layers(document["num_layers"], [proposal["i"], proposal["j"]])
    say(f"Mapping layers {', '.join(map(str, layers))}")
    return map_states(models, layers)


def describe(
    rows: Sequence[EncodedRow],
    readings: Mapping[str, PromptReadings],
    aligned: Alignments | None,
    has_bos: bool,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Numbers by layer as plain data.

    Returns:
        {format, ...facts, unit, entropy: {TOKENS: {LANGUAGE: {mean, share, interval}}}, proposal, proposals: by TOKENS,
        retrieval, gradients}. TOKENS is ``query`` (instruction and input), ``prompt`` (all tokens) or
        ``prompt_without_bos``; lists run over layers 0..L, those of ``gradients`` over 1..L. ``mean`` is over all
        tokens of all rows, in nats; ``share`` is that of log V, the entropy of knowing nothing.
    """
    top = math.log(facts["vocabulary"])
    entropy: dict[str, Any] = {}
    proposals: dict[str, Any] = {}
    for name in (TOKENS, "prompt", *(["prompt_without_bos"] if has_bos else [])):
        entropy[name] = {}
        for language in LANGUAGES:
            sums, counts = _sums(rows, readings[language].entropies, language, name)
            proposed, mean = propose(sums, counts), mean_profile(sums, counts)
            entropy[name][language] = {
                "mean": _plain(mean),
                "share": _plain(mean / top),
                "interval": _plain(proposed.interval),
            }
            if language == "target":  # the drops are those of input that is not English
                proposals[name] = _proposal(proposed)
    found: dict[str, Any] = {"format": FORMAT, **facts, "unit": "nats", "entropy": entropy}
    found |= {"proposal": {"tokens": TOKENS, **proposals[TOKENS]}, "proposals": proposals}
    read = retrieve(readings["target"].pooled, readings["english"].pooled)
    found["retrieval"] = {name: _plain(value) for name, value in vars(read).items()}
    return found | {"gradients": None if aligned is None else _gradients(aligned)}


def _encode(recipe: Recipe, most: int) -> tuple[Encoded, str, Any]:
    """Rows of both languages as tokens, at most ``most``, with the fingerprint of all rows and the tokenizer."""
    train = recipe.data.train.model_copy(update={"english": "aligned", "english_rows": False, "mixture": None})
    rows = read_rows(train, needs=PARALLEL)
    drawn = sorted(random.Random("layers").sample(range(len(rows.rows)), min(most, len(rows.rows))))
    random.Random("layers order").shuffle(drawn)  # whatever a part of them is used for, it comes from the whole file
    tokenizer = load_tokenizer(recipe.model)
    some = Rows([rows.rows[index] for index in drawn], rows.dropped, rows.fingerprint)
    encoded = encode_rows(some, tokenizer, recipe.data, query_text=recipe.objective.conversion.text)
    if len(encoded) < 2:
        problem = Problem("one usable row", key="recipe.data.train.files", expected="at least two rows to compare")
        raise RequestError(problem)
    return encoded, rows.fingerprint, tokenizer


def _sums(
    rows: Sequence[EncodedRow], entropies: Sequence[np.ndarray], language: str, tokens: str
) -> tuple[np.ndarray, np.ndarray]:
    """Sums [R, L + 1] and counts [R] over the tokens that a name stands for."""
    kept = []
    for row, found in zip(rows, entropies, strict=True):
        if tokens == "query":
            kept.append(found[:, row.spans[f"{language}_prompt"]])
        else:
            kept.append(found[:, 1:] if tokens == "prompt_without_bos" else found)
    return np.stack([found.sum(1) for found in kept]), np.array([found.shape[1] for found in kept], dtype=np.float64)


def _proposal(proposed: Proposal) -> dict[str, Any]:
    drops = proposed.drops
    return {
        "i": drops.i,
        "j": drops.j,
        "i_found": drops.i_found,
        "j_found": drops.j_found,
        "stability": {"i": proposed.share_i, "j": proposed.share_j, "pair": proposed.share_pair},
        "resampled": {"i": _by_layer(proposed.layers_i), "j": _by_layer(proposed.layers_j)},
    }


def _by_layer(shares: Mapping[int, float]) -> dict[str, float]:
    return {str(layer): share for layer, share in shares.items()}  # as JSON has its keys


def _gradients(aligned: Alignments) -> dict[str, Any]:
    mean, low, high = aligned.generation
    terms = {
        name: {
            "supervision": term.supervision,
            "cosine": _plain(term.cosine),
            "interval": _plain(term.interval),
            "parameters": term.parameters,
        }
        for name, term in aligned.terms.items()
    }
    generation = {"cosine": round(mean, DIGITS), "interval": [round(low, DIGITS), round(high, DIGITS)]}
    return {"batches": aligned.batches, "dev_rows": aligned.dev_rows, "generation": generation, "terms": terms}


def _by_token(row: EncodedRow, language: str, entropies: np.ndarray, tokenizer: Any) -> dict[str, Any]:
    """The first tokens of a prompt: text, whether it belongs to the query, entropies by layer."""
    ids = row.segments[f"{language}_prompt"][:SHOWN_TOKENS]
    span = set(row.spans[f"{language}_prompt"])
    return {
        "id": row.id,
        "language": language,
        "tokens": [tokenizer.decode([token]) for token in ids],
        "query": [position in span for position in range(len(ids))],
        "nats": _plain(entropies[:, : len(ids)]),
    }


def _plain(values: np.ndarray) -> Any:
    return np.round(values, DIGITS).tolist()
