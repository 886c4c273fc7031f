"""``evaluate``: scores a base model, checkpoint, adapter or bundle."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from dft_search.cli.options import AsJson
from dft_search.cli.output import console, number, only_documents, print_json, table


def run(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Folder or hub name of a model, a checkpoint, an adapter, or a bundle."),
    ],
    tasks: Annotated[
        list[str] | None,
        typer.Option("--tasks", metavar="NAME,...", help="Suites, tasks and task files (*.yaml)."),
    ] = None,
    split: Annotated[str, typer.Option("--split", help="dev (steer and select), steer, select or test.")] = "dev",
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Items of each task and part, at most.")] = None,
    alpaca_wrap: Annotated[
        bool, typer.Option("--alpaca-wrap", help="Put the prompts of tasks into the Alpaca template.")
    ] = False,
    judge: Annotated[str | None, typer.Option("--judge", metavar="FILE", help="A judge file: adds a win rate.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for scores and sample logs.")] = None,
    base: Annotated[str | None, typer.Option("--base", help="The base of an adapter or checkpoint.")] = None,
    dtype: Annotated[str | None, typer.Option("--dtype", help="float32, bfloat16 or float64.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda or cuda:N.")] = None,
    max_length: Annotated[int | None, typer.Option("--max-length", min=1, help="Tokens of a text, at most.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Score anew what an earlier evaluation has kept.")] = False,
    tracking: Annotated[bool, typer.Option("--tracking/--no-tracking", help="Write a run to MLflow.")] = True,
    as_json: AsJson = False,
) -> int:
    """Score a model that is not being trained.

    Finished tasks are kept: an interrupted evaluation goes on with the same command, and a model that has not changed
    is not scored again. Every item's prompt, answer and values are logged. Runs on several ranks under torchrun. Exit
    code 1 when the judge gave no valid judgement.

    Example: dft-search evaluate winner --tasks demo --split test
    """
    from dft_search.search.scoring import Asked, evaluate

    asked = Asked(
        model, tasks or [], split, limit, alpaca_wrap, judge, base, dtype, device, max_length, out, fresh, tracking
    )
    with only_documents(as_json):
        told = evaluate(asked, _tell)
    code = 0 if told is None else _end(*told, as_json)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from dft_search.training.session import leave

        leave(code)
    return code


def _end(found: dict[str, Any], folder: Path, as_json: bool) -> int:
    if as_json:
        print_json(found)
    else:
        _show(found, console())
        console().print(f"Written to {folder}", soft_wrap=True)
    return 1 if found["judge"] is not None and not found["judge"]["valid"] else 0


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _show(found: dict[str, Any], out: Console) -> None:
    columns = ["task", "language", "part", "metric", "value", "±", "items", "version"]
    rows = [
        [row["task"], row["language"], row["part"], row["metric"], number(row["value"]), number(row["stderr"], 2)]
        + [row["n"], row["version"]]
        for row in found["scores"]
    ]
    if rows:
        out.print(table(f"{found['model']['name']} ({found['model']['kind']})", columns, rows))
    if found["judge"] is not None:
        _show_judge(found["judge"], out)


def _show_judge(told: dict[str, Any], out: Console) -> None:
    def say(text: str) -> None:
        out.print(text, markup=False, soft_wrap=True)

    say(f"Win rate on {told['name']} ({told['language']}) against {told['opponent']}, judged by {told['judge']}")
    error = f" ± {told['stderr']:.1f}" if told["stderr"] is not None else ""
    if told["win_rate"] is not None:
        say(f"  win rate {told['win_rate']:.1f} %{error}; discrete {told['discrete_win_rate']:.1f} %")
    say(
        f"  {told['wins']} won, {told['draws']} drawn, {told['losses']} lost; valid {told['valid']} of "
        f"{told['comparisons']}, {told['swapped']} of them shown in swapped order; "
        f"asked again {told['asked_again']} times"
    )
    if told["rejected"]:
        say("  came to nothing: " + ", ".join(f"{count} {reason}" for reason, count in told["rejected"].items()))
    if told["position"] is not None:
        place = told["position"]
        say(f"  the answer shown first was preferred in {place['first']} of {place['decisive']} decisions")
    for warning in told["warnings"]:
        say(f"  warning: {warning}")
