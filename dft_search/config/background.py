"""Work in the background: called again and again from a thread while a block runs."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeated(work: Callable[[], object], seconds: float) -> Iterator[None]:
    """Call ``work`` every ``seconds`` while the block runs, until it returns True. It has ended when the block is left.

    Whatever ``work`` raises ends the thread alone: it handles its own errors.
    """
    over = threading.Event()

    def run() -> None:
        while not over.wait(seconds):
            if work() is True:
                return

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
