"""One POST of JSON with a limit on the whole of it: seconds, bytes, and no other host."""

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
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


class _Watched:
    """Remembers the connections of a request, so that a timer can end whoever waits for them."""

    def __init__(self) -> None:
        self.connections: list[HTTPConnection] = []

    def opener(self) -> urllib.request.OpenerDirector:
        """An opener whose connections are remembered."""

        def made(kind: type[HTTPConnection]) -> Any:
            def make(*args: Any, **options: Any) -> HTTPConnection:
                self.connections.append(kind(*args, **options))
                return self.connections[-1]

            return make

        class Plain(urllib.request.HTTPHandler):
            def http_open(self, request: Any) -> Any:
                return self.do_open(made(HTTPConnection), request)

        class Secure(urllib.request.HTTPSHandler):
            def https_open(self, request: Any) -> Any:
                return self.do_open(made(HTTPSConnection), request)

        return urllib.request.build_opener(_Stay(), Plain(), Secure())

    def end(self) -> None:
        """End the connections: who reads from them finds their end."""
        for connection in self.connections:
            if connection.sock is not None:
                with suppress(OSError):
                    socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)


def post(url: str, body: Mapping[str, Any], headers: Mapping[str, str], seconds: float) -> Answer:
    """Send ``body`` and read the answer, whatever its status.

    Raises:
        NoAnswer: none within ``seconds``, or none at all.
    """
    deadline = time.monotonic() + seconds
    fields = {"Content-Type": "application/json", "Accept": "application/json", **headers}
    request = urllib.request.Request(url, json.dumps(body).encode(), fields, method="POST")
    watched = _Watched()
    timer = threading.Timer(seconds, watched.end)  # a header that trickles never is silent, too
    timer.daemon = True
    timer.start()
    try:
        with _open(watched.opener(), request, seconds) as response:
            content = b""
            # piece by piece: the limit of a socket is one of silence, and a server that trickles never is silent
            while piece := response.read1(PIECE):
                content += piece
                if time.monotonic() > deadline:
                    raise NoAnswer("time-out")
                if len(content) > LARGEST:
                    raise NoAnswer("an endless answer")
            if time.monotonic() >= deadline:
                raise NoAnswer("time-out")
            return Answer(response.status, dict(response.headers.items()), content)
    except TimeoutError:
        raise NoAnswer("time-out") from None
    except (OSError, HTTPException) as error:
        timed_out = isinstance(getattr(error, "reason", None), TimeoutError) or time.monotonic() >= deadline
        raise NoAnswer("time-out" if timed_out else "no connection") from None
    finally:
        timer.cancel()


def _open(opener: urllib.request.OpenerDirector, request: urllib.request.Request, seconds: float) -> Any:
    """The response; one that says no is a response, too."""
    try:
        return opener.open(request, timeout=seconds)
    except urllib.error.HTTPError as error:
        return error
