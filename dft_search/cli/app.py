"""The ``dft-search`` command: all verbs, in the order of a user's way through them.

Every verb imports what it needs when it runs, so that help loads neither torch nor Ray.
"""

from typing import Annotated

import typer

import dft_search
from dft_search.cli import (
    data,
    doctor,
    evaluate,
    export,
    init,
    layers,
    plan,
    report,
    resume,
    schema,
    search,
    status,
    stop,
    submit,
    train,
    verify,
)
from dft_search.cli.errors import WRONG_REQUEST, Verbs, interrupt_on_sigterm

app = typer.Typer(
    name="dft-search",
    cls=Verbs,
    help="Finds where and how to supervise inside a language model: studies of deep supervision fine-tuning.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    invoke_without_command=True,
)


def _version(asked: bool) -> None:
    if asked:
        print(dft_search.__version__)
        raise typer.Exit


@app.callback()
def top(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Finds where and how to supervise inside a language model: studies of deep supervision fine-tuning.

    Exit codes: 0 done; 1 nothing completed, or the infrastructure failed; 2 the request was wrong; 3 interrupted, can
    be resumed.
    """
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())
        raise typer.Exit(WRONG_REQUEST)


VERBS = [init, plan, search, submit, status, stop, resume, report, export, verify]
VERBS += [train, evaluate, layers, doctor, schema]
for verb in VERBS:
    app.command(verb.__name__.rpartition(".")[2])(verb.run)
app.add_typer(data.app, name="data")


def main() -> None:
    """Entry point of the console script."""
    interrupt_on_sigterm()
    app()
