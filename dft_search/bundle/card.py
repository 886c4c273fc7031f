"""The README of a bundle: what it is, how good, how sure that is, and the command lines."""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from dft_search.bundle.portable import FILES
from dft_search.bundle.read import Bundle, ScoreRecord, SpreadRecord
from dft_search.config.paths import PACKAGE
from dft_search.data.needs import TARGET
from dft_search.objectives.registry import find_method
from dft_search.report.wording import describe_recipe
from dft_search.training.recipe import Recipe

MISSING = "-"
LICENCE = (
    "Licence: dft-search knows neither that of the base model nor that of the training rows. What is trained from them "
    "may be used only as both allow; set `license` above once you know."
)


def model_card(bundle: Bundle) -> str:
    """The whole page as Markdown."""
    about, recipe = bundle.bundle, bundle.recipe
    what = describe_recipe(recipe.model_dump(mode="json"))
    role = "champion" if about.champion else f"trial {about.trial}"
    holds = "weights of one run of it, and no data" if about.weights else "no weights and no data"
    parts = [
        front_matter(bundle, library="dft-search"),
        f"# {bundle.name}: {what}",
        f"The {role} of the dft-search study `{bundle.name}`: a recipe to fine-tune `{recipe.model.path}` for "
        f"`{recipe.data.target_language}`, with what is needed to train it elsewhere and to check that the training is "
        f"the same. It holds {holds}.",
        "## What the study found",
        about.verdict,
        _scores(bundle),
        "## What it is",
        _table(("", ""), _identity(bundle)),
        LICENCE,
        *_files(bundle),
        *_weights(bundle),
        "## Check it",
        f"Install the pinned versions (`pip install -r environment.txt`, on Python {about.versions['python']}) and "
        f"dft-search {about.versions['dft-search']}, then replay the first {len(about.steps)} steps and compare rows, "
        f"weights, versions and losses (to {about.tolerance:g} relative):",
        _shell(*_variables(bundle), "dft-search verify ."),
        "## Train it",
        "With as many workers as the trial had. `--set slots.workers=8` changes that and keeps the global batch, and "
        "`--set recipe.training.KEY=VALUE` changes the recipe:",
        _shell("dft-search train ."),
        "On a Ray cluster that has the same environment and sees the same files:",
        _shell(_submit(bundle)),
        "On Kubernetes through KubeRay, once `rayjob.yaml` names your image and your volume:",
        _shell(
            f"kubectl create configmap {bundle.name}-bundle --from-file=bundle.yaml",
            "kubectl apply -f rayjob.yaml",
        ),
        "A longer run is another run, since the learning rate follows the length: its first loss alone is as noted.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def front_matter(bundle: Bundle, *, library: str) -> str:
    """The card's metadata as the hub reads it (https://huggingface.co/docs/hub/model-cards)."""
    recipe = bundle.recipe
    language = recipe.data.target_language.replace("_", "-").partition("-")[0].lower()
    told = {
        "base_model": base_name(recipe),
        "language": [language] if recipe.needs == TARGET or language == "en" else [language, "en"],
        "library_name": library,
        "license": "unknown",
        "pipeline_tag": "text-generation",
        "tags": ["dft-search", "deep-supervision", recipe.method],
    }
    # JSON is YAML too, and quotes `no`, which YAML 1.1 takes for false
    return "\n".join(["---", *(f"{key}: {json.dumps(value)}" for key, value in told.items()), "---"])


def base_name(recipe: Recipe) -> str:
    """What the base model is called elsewhere: its name on the hub, or that of its folder."""
    path = recipe.model.path
    local = path.startswith((PACKAGE, "${", "/", ".", "~"))
    return path.removeprefix(PACKAGE).rstrip("/").rpartition("/")[2] if local else path


def _scores(bundle: Bundle) -> str:
    about = bundle.bundle
    rows = []
    if (found := about.confirmed) is not None:
        error = f"standard deviation over {len(found.seeds)} fresh seeds"
        parts = (("test", found.test, found.test_tasks), ("dev, select part", found.dev, found.dev_tasks))
        for part, spread, tasks in parts:
            rows.append((f"`{about.metric}`, {part}", _spread(spread), error))
            rows += [(f"`{name}`, {part}", _spread(task), error) for name, task in sorted(tasks.items())]
    for name, score in sorted(about.dev.items(), key=lambda pair: (pair[0] != about.metric, pair[0])):
        error = f"standard error over {score.n} items, one seed"
        rows.append((f"`{name}`, dev, {about.part} part", _score(score), error))
    note = "Dev chose this recipe among others, so its dev scores flatter it; test was read once."
    return _table(("score", "value", "± is the"), rows) + "\n\n" + note


def _identity(bundle: Bundle) -> list[tuple[str, str]]:
    about, recipe = bundle.bundle, bundle.recipe
    versions = ", ".join(f"{name} {version}" for name, version in about.versions.items())
    method = find_method(recipe.method)
    follows = f", a re-implementation ({method.reimplements})" if method.reimplements else ""
    return [
        ("method", f"{method.label}{follows}"),
        ("base model", f"`{recipe.model.path}`, weights `{about.model.fingerprint or 'not noted'}`"),
        ("rows", f"{about.data.rows or 'unknown number'}, fingerprint `{about.data.fingerprint or 'not noted'}`"),
        ("recipe", f"`{about.recipe_hash}` (in `bundle.yaml`)"),
        ("seed", f"{bundle.seed}"),
        ("chosen by the search", ", ".join(f"`{key}` = {value}" for key, value in about.params.items()) or MISSING),
        ("trial", f"{about.trial}, ranks: {bundle.slots.workers}"),
        ("versions", versions),
    ]


def _files(bundle: Bundle) -> list[str]:
    """What must be brought along."""
    files = bundle.bundle.files
    if not files:
        return []
    rows = []
    for file in files:
        size = MISSING if file.bytes is None else str(file.bytes)
        rows.append((f"`{file.path}`", size, f"`{file.sha256}`" if file.sha256 else MISSING))
    here = f"Those under `{FILES}` lay in folders of the study's machine. " if FILES in used_variables(bundle) else ""
    return [
        "## Files to bring",
        f"The recipe reads these. {here}Set each environment variable to a folder that holds its files, or point a key "
        "elsewhere, as in `--set recipe.model.path=/models/base`.",
        _table(("path in the recipe", "bytes", "sha256, first 16 digits"), rows),
    ]


def _weights(bundle: Bundle) -> list[str]:
    about = bundle.bundle
    if about.weights is None:
        return []
    what = "the whole model" if about.weights.kind == "full" else "an adapter on the base model"
    return [
        "## The weights",
        f"The folder `model` holds {what}, in {about.weights.dtype}, as transformers and peft load it; see its "
        f"README.md. {whose_weights(bundle)}",
        *_tried(bundle),
    ]


def _tried(bundle: Bundle) -> list[str]:
    """The dev scores that chose the weights of a merge."""
    merged = bundle.bundle.weights and bundle.bundle.weights.merged
    if not merged or not merged.dev:
        return []
    rows = []
    for one in merged.dev:
        chosen = "chosen" if one.weights == merged.weights else ""
        rows.append((*(f"{weight:g}" for weight in one.weights), _score(one.score), chosen))
    n = merged.dev[0].score.n
    note = f"The score of the recipe on {n} items of dev, steer part, which chose the weights and so flatters them."
    return [_table((*(f"`{one.name}`" for one in merged.adapters), "`score`", ""), rows), note]


def whose_weights(bundle: Bundle) -> str:
    """Which run left the weights."""
    about = bundle.bundle
    others = ""
    if about.confirmed is not None:
        seeds = ", ".join(map(str, about.confirmed.seeds))
        others = f" The confirmation trained the same recipe again with the seeds {seeds}; those weights are not these."
    if about.weights is not None and (merged := about.weights.merged) is not None:
        told = [f"`{one.name}` ({one.fingerprint or f'seed {bundle.seed}'})" for one in merged.adapters]
        total = " + ".join(f"{weight:g} x {name}" for weight, name in zip(merged.weights, told, strict=True))
        kept = "" if merged.density is None else f", density {merged.density:g}"
        return (
            f"They are adapters that were trained apart, merged by `{merged.combination}`{kept}: {total}. The scores "
            f"and losses of this bundle are those of trial {about.trial} alone." + others
        )
    return f"They are those of trial {about.trial}, seed {bundle.seed}: one run." + others


def _variables(bundle: Bundle) -> list[str]:
    """Lines that set the environment variables that the recipe's paths use."""
    return [f"export {name}=/path/to/folder" for name in used_variables(bundle)]


def used_variables(bundle: Bundle) -> list[str]:
    """Environment variables in the recipe's paths that have no default."""
    names = re.findall(r"\$\{(\w+)\}", bundle.recipe.model_dump_json())
    return [name for name in dict.fromkeys(names) if name != "DFT_SEARCH_HOME"]  # that one has a default


def _submit(bundle: Bundle) -> str:
    environment: dict[str, Any] = {"excludes": ["/model"]} if bundle.bundle.weights else {}
    if used := {name: "/path/to/folder" for name in used_variables(bundle)}:
        environment["env_vars"] = used
    option = f" --runtime-env-json '{json.dumps(environment)}'" if environment else ""
    return f"ray job submit --address http://HEAD:8265 --working-dir .{option} -- dft-search train ."


def _score(score: ScoreRecord) -> str:
    return f"{score.value:.4g}" if score.stderr is None else f"{score.value:.4g} ± {score.stderr:.2g}"


def _spread(spread: SpreadRecord) -> str:
    if spread.mean is None:
        return MISSING
    return f"{spread.mean:.4g}" if spread.sd is None else f"{spread.mean:.4g} ± {spread.sd:.2g}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _shell(*lines: str) -> str:
    return "```sh\n" + "\n".join(lines) + "\n```"
