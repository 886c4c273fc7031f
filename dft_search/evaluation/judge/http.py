"""One POST of JSON with a limit on the whole of it: seconds, bytes, and no other host."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

LARGEST = 1 << 20  # bytes of an answer
PIECE = 1 << 14


@dataclass(frozen=True)
class Answer:
    """Status, header fields and content of an answer."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class NoAnswer(Exception):
    """There was none: ``time-out``, or ``no connection``."""


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the key is for the host that the file names."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_Stay())


def post(url: str, body: Mapping[str, Any], headers: Mapping[str, str], seconds: float) -> Answer:
    """Send ``body`` and read the answer, whatever its status.

    Raises:
        NoAnswer: none within ``seconds``, or none at all.
    """
    deadline = time.monotonic() + seconds
    fields = {"Content-Type": "application/json", "Accept": "application/json", **headers}
    request = urllib.request.Request(url, json.dumps(body).encode(), fields, method="POST")
    try:
        with _open(request, seconds) as response:
            content = b""
            # piece by piece: the limit of a socket is one of silence, and a server that trickles never is silent
            while piece := response.read1(PIECE):
                content += piece
                if time.monotonic() > deadline:
                    raise NoAnswer("time-out")
                if len(content) > LARGEST:
                    raise NoAnswer("an endless answer")
            return Answer(response.status, dict(response.headers.items()), content)
    except TimeoutError:
        raise NoAnswer("time-out") from None
    except (OSError, HTTPException) as error:
        timed_out = isinstance(getattr(error, "reason", None), TimeoutError)
        raise NoAnswer("time-out" if timed_out else "no connection") from None


def _open(request: urllib.request.Request, seconds: float) -> Any:
    """The response; one that says no is a response, too."""
    try:
        return _OPENER.open(request, timeout=seconds)
    except urllib.error.HTTPError as error:
        return error
