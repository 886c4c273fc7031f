"""Where terms beside conversion and thinking read the model, and what dev score came of it."""

from typing import Any

from dft_search.report.collect import StudyView


def term_layers(view: StudyView, labels: dict[int, str]) -> list[dict[str, Any]]:
    """Completed trials by the layer of a further term (alignment, ...), for each whose layer was searched.

    Returns:
        ``[{term, num_layers, points: [{trial, label, layer, score, stderr}], plain}]``; ``plain`` is the score of the
        best plain TFT, None without one.
    """
    plain = next((trial.dev[view.metric].value for trial in view.ranked if trial.plain), None)
    found: dict[str, list[dict[str, Any]]] = {}
    for trial in view.ranked:
        score = trial.dev[view.metric]
        for name, options in trial.terms.items():
            if name not in ("conversion", "thinking") and "layer" in options:
                point = {"trial": trial.number, "label": labels[trial.number], "layer": options["layer"]}
                found.setdefault(name, []).append(point | {"score": score.value, "stderr": score.stderr})
    return [
        {"term": name, "num_layers": view.num_layers, "points": points, "plain": plain}
        for name, points in found.items()
        if len({point["layer"] for point in points}) > 1 and view.num_layers
    ]
