"""A judge's server on loopback that fails, stalls and lies as a test says, and remembers what it was asked."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ID = re.compile(r'"id": "([0-9a-f]{12})"')


@dataclass
class Request:
    """One request: the key that the judge has to repeat, what it is shown, which attempt this is."""

    key: str
    shown: str
    attempt: int
    headers: dict[str, str]


@dataclass
class Answer:
    """What the server does: status, header fields, content; seconds that it is silent first; trickle a byte a time."""

    content: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    silent: float = 0.0
    trickle: float = 0.0


Behaviour = Callable[[Request], Answer]


def says(text: str, **more: Any) -> Answer:
    """An answer in OpenAI's form."""
    return Answer(json.dumps({"choices": [{"message": {"content": text}}]}), **more)


def prefers(request: Request, preference: Any) -> Answer:
    """A well-formed judgement."""
    return says(json.dumps({"id": request.key, "preference": preference}))


@dataclass
class Stub:
    """The server's side."""

    url: str
    requests: list[Request] = field(default_factory=list)
    most_at_once: int = 0

    def attempts(self) -> dict[str, int]:
        """Requests of each comparison."""
        return {request.key: sum(r.key == request.key for r in self.requests) for request in self.requests}


@contextmanager
def stub(behaviour: Behaviour) -> Iterator[Stub]:
    """Serve until the block ends."""
    lock, over = threading.Lock(), threading.Event()
    here = 0

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            nonlocal here
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            system, user = (message["content"] for message in body["messages"])
            key = ID.findall(system)[-1]
            with lock:
                here += 1
                served.most_at_once = max(served.most_at_once, here)
                attempt = sum(request.key == key for request in served.requests) + 1
                request = Request(key, user, attempt, dict(self.headers.items()))
                served.requests.append(request)
            try:
                answer = behaviour(request)
                over.wait(answer.silent)
            finally:
                with lock:
                    here -= 1  # before it answers: who has the answer may ask again at once
            try:
                self._answer(answer)
            except (BrokenPipeError, ConnectionResetError):
                return  # the client had enough

        def _answer(self, answer: Answer) -> None:
            content = answer.content.encode()
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if not answer.trickle:
                self.wfile.write(content)
                return
            for byte in content:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                if over.wait(answer.trickle):
                    return

        def log_message(self, *_: Any) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Stub(f"http://127.0.0.1:{server.server_address[1]}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    time.sleep(0)
    try:
        yield served
    finally:
        over.set()
        server.shutdown()
        server.server_close()
        thread.join()
