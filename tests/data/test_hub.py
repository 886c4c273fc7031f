"""Hub data sets: what the hub answers becomes one line, and a hub out of reach is said at once."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dft_search.config import RequestError
from dft_search.data import hub
from dft_search.data.needs import PARALLEL
from dft_search.data.options import HubSet, TrainOptions
from dft_search.data.rows import read_rows

ANSWERS = {
    "gone": (404, "RepoNotFound"),
    "old": (404, "RevisionNotFound"),
    "gated": (403, "GatedRepo"),
    "down": (503, ""),
}


@pytest.fixture
def endpoint(monkeypatch):
    """Point the hub library at an address, whatever the environment says of a network."""

    def use(address: str) -> None:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)

    return use


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A hub that refuses every data set in the way that the name asks for."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, code = next(answer for name, answer in ANSWERS.items() if name in self.path)
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments):
            return None

    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    thread.join()
    served.server_close()


def problem(entry):
    with pytest.raises(RequestError) as caught:
        read_rows(TrainOptions(files=[entry]), needs=PARALLEL)
    (found,) = caught.value.problems
    assert found.key == "recipe.data.train.files[0]"
    return found


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("org/gone", "neither a local file or folder nor a data set of the hub"),
        ("org/old", "no revision 'v9'"),
        ("org/gated", "restricted"),
        ("org/down", "HTTP 503"),
    ],
)
def test_refusals_of_the_hub(name, text, server, endpoint):
    endpoint(server)
    found = problem(HubSet(hub=name, revision="v9"))
    assert text in found.message and found.file == name


def test_nobody_listens(endpoint):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    endpoint(address)
    start = time.monotonic()
    found = problem("org/name")
    assert "cannot be reached" in found.message and "HF_HUB_OFFLINE" in found.expected
    assert time.monotonic() - start < 5


def test_nobody_answers(endpoint, monkeypatch):
    monkeypatch.setattr(hub, "HUB_SECONDS", 0.3)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint(f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        assert "cannot be reached" in problem("org/name").message
        assert time.monotonic() - start < 5


def test_offline_without_a_copy_in_the_cache(tmp_path):
    code = (
        "from dft_search.data.options import TrainOptions\n"
        "from dft_search.data.needs import PARALLEL\n"
        "from dft_search.data.rows import read_rows\n"
        "read_rows(TrainOptions(files=['org/name']), needs=PARALLEL)\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONPATH": os.getcwd()}
    start = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert "org/name: recipe.data.train.files[0]: is not in the local cache, and HF_HUB_OFFLINE is set" in ended.stderr
    assert time.monotonic() - start < 30  # most of it is the start of the interpreter
