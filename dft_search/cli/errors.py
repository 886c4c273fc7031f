"""How a verb ends: every expected error as one line on standard error, with the exit code that belongs to it."""

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from typer.core import TyperGroup

from dft_search.config import FailedElsewhere, InfrastructureError, Interrupted, RequestError

DONE, WRONG_REQUEST = 0, 2


class Verbs(TyperGroup):
    """The group of all verbs. A verb returns its exit code (None means done) or raises; this class does the rest."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> NoReturn:
        """Run a verb and exit with its code (``standalone_mode`` has no effect: the codes are a contract)."""
        try:
            code = super().main(args, "dft-search", complete_var, False, windows_expand_args, **extra)
        except RequestError as error:
            for problem in error.problems:
                say(str(problem))
            code = error.exit_code
        except (InfrastructureError, Interrupted) as error:
            say(str(error))
            code = error.exit_code
        except FailedElsewhere as error:
            code = error.exit_code
        except Exception as error:
            if not hasattr(error, "format_message"):  # only typer's usage errors have it: unknown verb, option, type
                raise
            command = getattr(getattr(error, "ctx", None), "command_path", "dft-search")
            say(f"{error.format_message()} (see '{command} --help')")
            code = WRONG_REQUEST
        _exit(DONE if code is None else code)

    def invoke(self, ctx: Any) -> Any:
        """Run the verb; Ctrl-C and SIGTERM end it alike, and both leave work that can be resumed."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Interrupted("interrupted") from None


def _exit(code: int) -> NoReturn:
    """End the process, as one of several ranks in the way that suits those."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from dft_search.training.session import leave

        leave(code)
    sys.exit(code)


def say(text: str) -> None:
    """One line on standard error; line breaks inside the text are folded."""
    print("error: " + " ".join(text.split()), file=sys.stderr)


def interrupt_on_sigterm() -> None:
    """Let SIGTERM end a verb the way Ctrl-C does."""

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
