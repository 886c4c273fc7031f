"""SIGINT and SIGTERM as a wish: they set a flag or call back, and the work ends at its next step with a checkpoint."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def stop_signals(callback: Callable[[], None]) -> Iterator[None]:
    """Call back, in a thread of its own, on each stop signal. To be entered after Ray, which sets handlers itself.

    Outside the main thread, where Python takes no handlers, this changes nothing.
    """

    def on_signal(number: int, frame: object) -> None:
        threading.Thread(target=callback, daemon=True).start()

    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, on_signal) for number in STOP_SIGNALS} if main else {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
