"""What stands beside the primary comparison, as sentences: equal rows and equal FLOPs, English, tuning, the seal."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from dft_search.report.wording import Scale, arm_label, listed, plural


def evidence(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(what, sentence) for everything that a confirmation tells beside its comparisons. Empty without one."""
    return [*_equal(report), *_english(report["test"]), *_tuning(report), *_seal(report["test"])]


def _equal(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    scale = Scale(bool(report["test"].get("points")))
    champion = report["arms"].get((report["champion"] or {}).get("arm")) or {}
    for kind, lead in (report["test"].get("equal") or {}).items():
        said = f"champion minus {arm_label(lead['arm'])} {scale.signed(lead['difference'])}{scale.unit}"
        if lead["interval"]:
            said += f" ({scale.signed(lead['interval'][0])} to {scale.signed(lead['interval'][1])})"
        value = lead.get("p_holm", lead["p_value"])
        said += f", p = {value:.2g}{' after Holm' if 'p_holm' in lead else ''}"
        costs = [(arm.get("cost") or {}) for arm in (champion, report["arms"][lead["arm"]])]
        ratios = [
            f"{costs[0][key] / costs[1][key]:.2f} times the {word}"
            for key, word in (("rows", "rows"), ("flops", "FLOPs"), ("seconds", "time"))
            if costs[0].get(key) and costs[1].get(key)
        ]
        said += f"; the champion took {listed(ratios)}" if ratios else ""
        yield f"Equal {'FLOPs' if kind == 'flops' else 'rows'}", f"{said}."


def _english(test: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    english, scale = test.get("english"), Scale(points=True)
    if english is None:
        return
    where = "test" if english["part"] == "test" else "dev"
    for change in english["against"].values():
        end = "it holds" if change["holds"] else "not shown to hold"
        yield (
            "English",
            f"{scale.signed(change['change'])} points against {change['label']} on {where} "
            f"({listed(english['tasks'])}), above {scale.signed(change['bound'])} with 95 % confidence; "
            f"the margin is {scale.signed(-change['margin'])}: {end}.",
        )


def _tuning(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    tuning = report.get("tuning")
    if tuning and tuning["planned"] and tuning["search"] + tuning["own"]:
        yield (
            "Tuning",
            f"plain TFT had {plural(tuning['search'] + tuning['own'], 'trial')} ({tuning['search']} of the search, "
            f"{tuning['own']} of its own), the search {report['study']['planned']}.",
        )


def _seal(test: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    seal = test.get("seal")
    if seal is None:
        return
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seal["sealed"]))
    items = sum(one["count"] for one in seal["items"].values())
    look = f" Look number {len(seal['earlier']) + 1} at test." if seal["earlier"] else ""
    yield (
        "Sealed",
        f"{seal['hash']} is the hash over champion, baseline, {plural(len(seal['arms']), 'recipe')}, "
        f"{plural(len(seal['seeds']), 'seed')} and {plural(items, 'test item')}, written at {when}, before test was "
        f"read.{look}",
    )
