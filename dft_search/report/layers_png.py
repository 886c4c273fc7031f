"""Pictures of a layers profile as PNG, for papers and slides."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LAST_TOKENS = 48  # of a prompt that is drawn token by token: its end, where the query is


def draw_curves(found: Mapping[str, Any], path: Path) -> None:
    """Entropy, retrieval and gradient alignment by layer, with the proposed layers. Replaces ``path``."""
    figure = _figure(3 if found["gradients"] else 2)
    layers = range(found["num_layers"] + 1)
    entropy, retrieval = found["entropy"][found["proposal"]["tokens"]], found["retrieval"]
    panels = list(figure.axes)
    for language, name in (("target", found["language"]), ("english", "en")):
        _line(panels[0], layers, entropy[language]["mean"], entropy[language]["interval"], name)
    panels[0].set_title("Entropy of the logit lens, nats")
    _line(panels[1], layers, retrieval["accuracy"], retrieval["interval"], "retrieval accuracy")
    panels[1].plot(layers, retrieval["similarity"], "--", label="similarity of a row's prompts")
    panels[1].plot(layers, retrieval["random_similarity"], ":", label="of different rows")
    panels[1].set_title("Parallel prompts")
    if found["gradients"]:
        for name, term in found["gradients"]["terms"].items():
            _line(panels[2], layers[1:], term["cosine"], term["interval"], f"{name} ({term['supervision']})")
        panels[2].axhline(0, color="0.6", linewidth=0.8)
        own = found["gradients"]["generation"]["cosine"]
        panels[2].axhline(own, color="0.4", linestyle=":", label="plain training")
        panels[2].set_title("Cosine to the gradient of the dev loss")
    for panel in panels:
        for key in ("i", "j"):
            panel.axvline(found["proposal"][key], color="0.75", linewidth=6, zorder=0)
        panel.set_xlabel("layer")
        panel.legend(frameon=False, fontsize="small")
    _save(figure, path)


def draw_tokens(found: Mapping[str, Any], path: Path) -> None:
    """Heat maps (tokens x layers) of the prompts that are told token by token. Replaces ``path``."""
    shown = found["tokens"][:2]  # one row in both languages
    figure = _figure(len(shown), height=8.0)
    most = max(max(column) for prompt in shown for column in prompt["nats"])
    for panel, prompt in zip(figure.axes, shown, strict=True):
        values = [column[-LAST_TOKENS:] for column in prompt["nats"]]
        tokens = prompt["tokens"][-LAST_TOKENS:]
        picture = panel.imshow(list(zip(*values, strict=True)), aspect="auto", cmap="viridis", vmin=0, vmax=most)
        panel.set_yticks(range(len(tokens)), [token.replace("$", r"\$").replace("\n", "\\n") for token in tokens])
        panel.tick_params(axis="y", labelsize=6)
        panel.set_xlabel("layer")
        panel.set_title(f"{found['language'] if prompt['language'] == 'target' else 'en'}, row {prompt['id']}")
        figure.colorbar(picture, ax=panel, label="nats", fraction=0.05)
    _save(figure, path)


def draw_maps(found: Mapping[str, Any], path: Path) -> None:
    """PCA and t-SNE of the prompts' states: a column a layer, a row a kind of map and model. Replaces ``path``."""
    maps, models = found["map"]["layers"], found["map"]["models"]
    kinds = [(kind, model) for kind in ("pca", "tsne") if maps[0][kind] is not None for model in models]
    figure = _figure(len(maps), height=2.6 * len(kinds), rows=len(kinds), width=2.6)
    for number, panel in enumerate(figure.axes):
        (kind, model), layer = kinds[number // len(maps)], maps[number % len(maps)]
        both = [point for name in models for side in ("english", "target") for point in layer[kind][name][side]]
        for side, marker in (("english", "o"), ("target", "^")):
            label = "en" if side == "english" else found["language"]
            panel.scatter(*zip(*layer[kind][model][side], strict=True), s=6, marker=marker, alpha=0.7, label=label)
        for axis, limit in ((0, panel.set_xlim), (1, panel.set_ylim)):  # of all models: the axes are the same
            values = [point[axis] for point in both]
            room = 0.05 * (max(values) - min(values)) or 1.0
            limit(min(values) - room, max(values) + room)
        panel.set_xticks([])
        panel.set_yticks([])
        name = {"pca": "PCA", "tsne": "t-SNE"}[kind]
        panel.set_title(f"{name} {model}, layer {layer['layer']}", fontsize="small")
    figure.axes[0].legend(frameon=False, fontsize="small")
    _save(figure, path)


def _figure(panels: int, height: float = 3.6, *, rows: int = 1, width: float = 4.6) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * panels, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.subplots(rows, panels)
    return figure


def _line(panel: Any, layers: Any, values: Any, interval: Any, label: str) -> None:
    (line,) = panel.plot(layers, values, marker=".", label=label)
    low, high = zip(*interval, strict=True)
    panel.fill_between(layers, low, high, color=line.get_color(), alpha=0.2, linewidth=0)


def _save(figure: Any, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the HTML page shows every script
        figure.savefig(path, dpi=150)
