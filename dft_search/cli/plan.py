"""``plan``: validates a study and says what it would take. Changes nothing."""

import sys
from typing import Annotated, Any

import typer
from rich.console import Console

from dft_search.cli.errors import say
from dft_search.cli.options import AsJson, Overrides, StudyFile, study_file
from dft_search.cli.output import console, number, only_documents, print_json, table
from dft_search.config import Problem

SHOWN = 3  # combinations that do not fit


def run(
    file: StudyFile,
    offline: Annotated[bool, typer.Option("--offline", help="Ask no cluster: validate, and plan for this machine.")] = (
        False
    ),
    as_json: AsJson = False,
    overrides: Overrides = None,
) -> int:
    """Validate a study and say what it would take.

    Shows slots, steps, GPU-hours and first suggestions. Changes nothing. Exit code 2 when the study is not valid, 1
    when it is valid but does not fit.

    Example: dft-search plan quickstart --offline
    """
    path = study_file(file)
    from dft_search.search.planning import plan

    with only_documents(as_json):
        result = plan(path, offline=offline, overrides=overrides or [])
    if as_json:
        print_json(result)
    else:
        _show(result, console())
    if not result["valid"]:
        return 2
    return 0 if result["fits"] else 1


def _show(result: dict[str, Any], out: Console) -> None:
    from dft_search.report.wording import short_key

    for problem in [Problem(**fields) for fields in result["problems"]]:
        if result["fits"]:  # nothing that stops the study: what this machine lacks, with --offline
            print(f"note: {problem}", file=sys.stderr)
        else:
            say(str(problem))
    if not result["valid"]:
        return
    for warning in result["warnings"]:
        print(f"note: {warning}", file=sys.stderr)
    out.print("The study is valid, " + ("and fits." if result["fits"] else "but does not fit."))
    for key in ("slots", "steps", "gpu_hours"):
        out.print(f"  {key.replace('_', ' ')}: {_cell(result[key]) or '-'}")
    out.print(f"  runs: {', '.join(f'{count} {phase}' for phase, count in result['runs'].items() if count)}")
    _show_power(result["smallest_effect"], out)
    _show_memory(result["memory"], out)
    points = result["first_points"]
    keys = list(dict.fromkeys(key for point in points for key in point))
    rows = ([short_key(key), *(_cell(point.get(key)) for point in points)] for key in keys)
    out.print(table("First suggestions", ["", *map(str, range(1, len(points) + 1))], rows))


def _show_power(power: dict[str, Any], out: Console) -> None:
    grouped = f" in {power['clusters']} clusters" if power["clusters"] != power["items"] else ""
    out.print(
        f"  smallest effect: {power['value']:.3g} {power['unit']}, found by 8 of 10 such studies with {power['seeds']} "
        f"seeds and {power['items']} test items{grouped} ({power['assumption']})",
        soft_wrap=True,
    )
    if not power["enough_seeds"]:
        out.print("  too few seeds: with fewer than 6 no gap reaches p < 0.05 (study.confirm.seeds)", soft_wrap=True)


def _show_memory(memory: dict[str, Any], out: Console) -> None:
    from dft_search.report.wording import short_key

    gpu = memory["gpu_gb"]
    title = "Memory of a worker" + (f", of {gpu:g} GB" if gpu is not None else "")
    shown = {"typical": memory["typical"], "worst": memory["worst"]}
    for number_, point in enumerate(memory["does_not_fit"][:SHOWN], 1):
        shown[f"does not fit {number_}"] = point
    keys = list(dict.fromkeys(key for point in shown.values() for key in point["params"]))
    rows = [["GB", *(_cell(point["gb"]) for point in shown.values())]]
    rows += [["rows a micro-batch", *(_cell(point["micro_batch_rows"]) for point in shown.values())]]
    rows += [[short_key(key), *(_cell(point["params"].get(key)) for point in shown.values())] for key in keys]
    out.print(table(title, ["", *shown], rows))


def _cell(value: object) -> str | None:
    return number(value, 3) if isinstance(value, float) else None if value is None else str(value)
