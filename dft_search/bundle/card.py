"""The README of a bundle: what it is, how good, how sure that is, and the command lines."""

import re
from collections.abc import Iterable, Sequence

from dft_search.bundle.portable import FILES
from dft_search.bundle.read import Bundle, ScoreRecord, SpreadRecord
from dft_search.report.wording import describe_recipe

MISSING = "-"


def model_card(bundle: Bundle) -> str:
    """The whole page as Markdown."""
    about, recipe = bundle.bundle, bundle.recipe
    what = describe_recipe(recipe.model_dump(mode="json"))
    role = "champion" if about.champion else f"trial {about.trial}"
    parts = [
        f"# {bundle.name}: {what}",
        f"The {role} of the dft-search study `{bundle.name}`: a recipe to fine-tune `{recipe.model.path}` for "
        f"`{recipe.data.target_language}`, with what is needed to train it elsewhere and to check that the training is "
        "the same. It holds no weights and no data.",
        "## What the study found",
        about.verdict,
        _scores(bundle),
        "## What it is",
        _table(("", ""), _identity(bundle)),
        *_files(bundle),
        "## Check it",
        f"Install the pinned versions (in `environment.txt`) and dft-search {about.versions['dft-search']}, "
        f"then replay the first {len(about.steps)} steps and compare rows, weights, versions and losses (to "
        f"{about.tolerance:g} relative):",
        _shell(*_variables(bundle), "dft-search verify ."),
        "## Train it",
        "With as many workers as the trial had. `--set slots.workers=8` changes that and keeps the global batch, and "
        "`--set recipe.training.KEY=VALUE` changes the recipe:",
        _shell("dft-search train ."),
        "On a Ray cluster that has the same environment and sees the same files:",
        _shell(_submit(bundle)),
        "A longer run is another run, since the learning rate follows the length: its first loss alone is as noted.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _scores(bundle: Bundle) -> str:
    about = bundle.bundle
    rows = []
    if about.confirmed is not None:
        seeds = len(about.confirmed.seeds)
        for part, spread in (("test", about.confirmed.test), ("dev, select part", about.confirmed.dev)):
            rows.append((f"`{about.metric}`, {part}", _spread(spread), f"standard deviation over {seeds} fresh seeds"))
    for name, score in sorted(about.dev.items(), key=lambda pair: (pair[0] != about.metric, pair[0])):
        error = f"standard error over {score.n} items, one seed"
        rows.append((f"`{name}`, dev, {about.part} part", _score(score), error))
    note = "Dev chose this recipe among others, so its dev scores flatter it; test was read once."
    return _table(("score", "value", "± is the"), rows) + "\n\n" + note


def _identity(bundle: Bundle) -> list[tuple[str, str]]:
    about, recipe = bundle.bundle, bundle.recipe
    versions = ", ".join(f"{name} {version}" for name, version in about.versions.items())
    return [
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
    here = f"Those under `{FILES}` lay in folders of the study's machine. " if FILES in _used(bundle) else ""
    return [
        "## Files to bring",
        f"The recipe reads these. {here}Set each environment variable to a folder that holds its files, or point a key "
        "elsewhere, as in `--set recipe.model.path=/models/base`.",
        _table(("path in the recipe", "bytes", "sha256, first 16 digits"), rows),
    ]


def _variables(bundle: Bundle) -> list[str]:
    """Lines that set the environment variables that the recipe's paths use."""
    return [f"export {name}=/path/to/folder" for name in _used(bundle)]


def _used(bundle: Bundle) -> list[str]:
    names = re.findall(r"\$\{(\w+)\}", bundle.recipe.model_dump_json())
    return [name for name in dict.fromkeys(names) if name != "DFT_SEARCH_HOME"]  # that one has a default


def _submit(bundle: Bundle) -> str:
    variables = ", ".join(f'"{name}": "/path/to/folder"' for name in _used(bundle))
    environment = f""" --runtime-env-json '{{"env_vars": {{{variables}}}}}'""" if variables else ""
    return f"ray job submit --address http://HEAD:8265 --working-dir .{environment} -- dft-search train ."


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
