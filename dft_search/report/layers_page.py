"""A layers profile as one HTML file that asks nothing of any network."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from dft_search.report.document import head
from dft_search.report.figures.cloud import cloud
from dft_search.report.figures.profile import Line, by_layer, entropy_by_layer
from dft_search.report.figures.svg import Figure
from dft_search.report.markup import scrolling

NUMBERED = 16  # a heat map with at most so many layers carries its numbers; the others tell them when pointed at
INKS = ((0.62, ""), (0.8, "between"), (1.01, "on"))  # up to which strength of color a number has which ink
STYLE = """
.tokens td, .tokens th { padding: .1rem .3rem; border: 0; font-size: .75rem; white-space: nowrap; }
.tokens td { text-align: right; min-width: 1.1rem;
  background: color-mix(in srgb, var(--accent) calc(var(--share) * 100%), var(--paper)); }
.tokens td.on { color: var(--on-accent); }
.tokens td.between { color: var(--between); }
.tokens th.outside { color: var(--others); }
"""


def render_layers(name: str, found: Mapping[str, Any]) -> str:
    """The page of what ``layers.json`` holds."""
    proposal = found["proposal"]
    title = f"Proposed layers: conversion i = {proposal['i']}, thinking j = {proposal['j']}"
    model = str(found["model"]).rstrip("/").rsplit("/", 1)[-1]
    facts = f"{model}, {found['num_layers']} layers · target language {found['language']} · {found['rows']} prompts"
    sections = [("entropy", "Entropy", _entropy(found)), ("translations", "Translations", _retrieval(found))]
    if found["gradients"]:
        sections.append(("gradients", "Gradients", _gradients(found)))
    if found.get("map"):
        sections.append(("map", "Map of the prompts", _maps(found)))
    sections.append(("tokens", "Token by token", "".join(_tokens(prompt, found) for prompt in found["tokens"])))
    links = "".join(f'<li><a href="#{key}">{escape(text)}</a></li>' for key, text, _ in sections)
    body = "".join(
        f'<section aria-labelledby="{key}"><h2 id="{key}">{escape(text)}</h2>{content}</section>'
        for key, text, content in sections
    )
    return f"""{head(f"{name}: {title}", style=STYLE)}
<body>
<a class="skip" href="#main">Skip to the proposal</a>
<header><p class="study">{escape(name)}</p><p class="facts">{escape(facts)}</p></header>
<main id="main">
<h1>{escape(title)}</h1>
<ul>{"".join(f"<li>{escape(line)}</li>" for line in _stability(found))}</ul>
<nav aria-label="Sections"><ul>{links}</ul></nav>
{body}
</main>
</body>
</html>
"""


def _stability(found: Mapping[str, Any]) -> list[str]:
    proposal = found["proposal"]
    lines = []
    for key in ("i", "j"):
        spread = ", ".join(f"{layer} in {100 * share:.0f} %" for layer, share in proposal["resampled"][key].items())
        clear = "" if proposal[f"{key}_found"] else " There is no clear drop; this is the steepest fall."
        lines.append(f"{key} over resampled prompts: layer {spread}.{clear}")
    others = [
        f"over {tokens.replace('_', ' ')} i = {other['i']}, j = {other['j']}"
        for tokens, other in found["proposals"].items()
        if tokens != proposal["tokens"]
    ]
    return [*lines, f"From other tokens: {'; '.join(others)}."]


def _entropy(found: Mapping[str, Any]) -> str:
    figures = [entropy_by_layer(found, tokens, f"Tokens: {tokens.replace('_', ' ')}") for tokens in found["entropy"]]
    return _figures(figures)


def _retrieval(found: Mapping[str, Any]) -> str:
    read = found["retrieval"]
    accuracy = by_layer(
        "Retrieval accuracy",
        [Line("accuracy", 0, read["accuracy"], read["interval"])],
        found,
        f"Share of prompts whose nearest prompt of the other language, by cosine of mean states, is their own "
        f"translation; chance is 1 in {found['rows']}.",
    )
    similarity = by_layer(
        "Similarity",
        [Line("same row", 0, read["similarity"]), Line("different rows", 0, read["random_similarity"])],
        found,
        "Mean cosine of the two prompts of a row (solid) and of different rows (dashed): only the gap means something.",
    )
    return _figures([accuracy, similarity])


def _gradients(found: Mapping[str, Any]) -> str:
    read = found["gradients"]
    lines = [
        Line(f"{name} ({term['supervision']})", 1, term["cosine"], term["interval"])
        for name, term in read["terms"].items()
    ]
    own = read["generation"]
    caption = (
        f"Cosine of each term's gradient to that of the loss of {read['dev_rows']} held-out target answers, over all "
        f"parameters that both reach; mean of {read['batches']} batches. Solid: conversion, dashed: thinking. Above "
        f"zero it pulls where the goal lies. Plain training's own gradient has {own['cosine']:+.3f} "
        f"[{own['interval'][0]:+.3f} {own['interval'][1]:+.3f}]."
    )
    return _figures([by_layer("Gradient alignment", lines, found, caption)])


def _maps(found: Mapping[str, Any]) -> str:
    """PCA and t-SNE of each layer that was mapped."""
    figures, models = [], found["map"]["models"]
    for layer in found["map"]["layers"]:
        accuracy = ", ".join(f"{name} {value:.0%}" for name, value in layer["accuracy"].items())
        for kind, name in (("pca", "PCA"), ("tsne", "t-SNE")):
            if layer[kind] is None:
                continue
            share = f" {sum(layer[kind]['share']):.0%} of the variance." if kind == "pca" else ""
            caption = (
                f"Mean states of {found['map']['rows']} prompts, {found['language']} as dots, English as squares; one "
                f"map for all panels.{share} Retrieval accuracy: {accuracy}. The table has the centers."
            )
            figures.append(cloud(f"Layer {layer['layer']}, {name}", layer[kind], models, caption))
    return _figures(figures)


def _tokens(prompt: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """One heat map: tokens downwards, layers rightwards."""
    most = max(max(values) for values in prompt["nats"]) or 1.0
    language = found["language"] if prompt["language"] == "target" else "en"
    head = "".join(f'<th scope="col" class="num">{layer}</th>' for layer in range(len(prompt["nats"])))
    rows = []
    for number, token in enumerate(prompt["tokens"]):
        name = escape(token.replace("\n", "\\n")) or "&nbsp;"
        outside = "" if prompt["query"][number] else ' class="outside"'
        cells = "".join(_cell(values[number], most, len(prompt["nats"]) <= NUMBERED) for values in prompt["nats"])
        rows.append(f'<tr><th scope="row"{outside}>{name}</th>{cells}</tr>')
    return (
        f'<p class="caption">Row {escape(str(prompt["id"]))}, {escape(language)}: entropy in nats, stronger where the '
        "layer knows less. Tokens of the template are pale.</p>"
        f'<div class="scroll" tabindex="0" role="region" aria-label="Entropy by token and layer, {escape(language)}">'
        f'<table class="tokens"><thead><tr><th scope="col">token</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _figures(figures: Sequence[Figure]) -> str:
    """Figures side by side, each with its numbers as a table that opens. Unlike the report's they need no script."""
    shown = []
    for figure in figures:
        head = "".join(f'<th scope="col">{escape(name)}</th>' for name in figure.head)
        rows = "".join(
            f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in row[1:])}</tr>'
            for row in figure.rows
        )
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        shown.append(
            f'<figure><p class="title">{escape(figure.title)}</p><div class="drawing">{figure.drawing}</div>'
            f'<div class="about"><figcaption>{escape(figure.caption)}</figcaption><details><summary>Numbers</summary>'
            f"{scrolling(f'Numbers: {figure.title}', table)}</details></div></figure>"
        )
    kind = "figures" if len(shown) > 1 else "figures solo"
    return f'<div class="{kind}">{"".join(shown)}</div>'


def _cell(value: float, most: float, numbered: bool) -> str:
    share = value / most
    ink = next(f' class="{name}"' if name else "" for limit, name in INKS if share < limit)
    text = f"{value:.1f}"
    if not numbered:
        return f'<td{ink} style="--share:{share:.2f}" title="{text}" aria-label="{text}"></td>'
    return f'<td{ink} style="--share:{share:.2f}">{text}</td>'
