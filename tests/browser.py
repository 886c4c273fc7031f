"""A real headless Chromium, driven over the DevTools protocol through two pipes: no package beside it is needed."""

import base64
import contextlib
import itertools
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome", "chrome-headless-shell")
ANSWER_SECONDS = 120.0  # of one command; a busy machine is slow to draw
# Chromium reads commands from descriptor 3 and writes to 4, wherever ours are.
_ON_3_AND_4 = (
    "import fcntl, os, sys; a, b = (fcntl.fcntl(int(n), fcntl.F_DUPFD, 10) for n in sys.argv[1:3]); "
    "os.dup2(a, 3); os.dup2(b, 4); os.execv(sys.argv[3], sys.argv[3:])"
)
_KEYS = {"Enter": (13, "\r"), "Tab": (9, ""), "Escape": (27, ""), "Space": (32, " ")}


class Browser:
    """The process and its connection. Pages are opened with ``page``."""

    def __init__(self, program: str, profile: Path):
        options = ["--headless", "--remote-debugging-pipe", f"--user-data-dir={profile}", "--no-first-run"]
        options += ["--hide-scrollbars", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking"]
        options += ["--no-sandbox"] if os.geteuid() == 0 else []  # it refuses to run as root with its sandbox
        theirs, self._out = os.pipe()
        self._in, ours = os.pipe()
        command = [sys.executable, "-c", _ON_3_AND_4, str(theirs), str(ours), program, *options, "about:blank"]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(
            command, pass_fds=(theirs, ours), stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
        )
        os.close(theirs)
        os.close(ours)
        self._numbers = itertools.count(1)
        self._answers: dict[int, queue.Queue[dict[str, Any]]] = {}
        self._pages: dict[str, Page] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """One command of the protocol and its result. AssertionError when Chromium refuses it."""
        number, answer = next(self._numbers), queue.Queue[dict[str, Any]]()
        self._answers[number] = answer
        told = {"id": number, "method": method, "params": params, **({"sessionId": session} if session else {})}
        os.write(self._out, json.dumps(told).encode() + b"\0")
        found = answer.get(timeout=ANSWER_SECONDS)
        assert "error" not in found, f"{method}: {found['error']}"
        return found.get("result", {})

    @contextmanager
    def page(
        self, width: int = 1280, height: int = 900, *, dark: bool = False, mobile: bool = False
    ) -> Iterator["Page"]:
        """An empty page, closed behind the block.

        Args:
            width, height: of the viewport, CSS pixels.
            dark: what ``prefers-color-scheme`` says.
            mobile: as a phone shows it, with touch and twice the pixels.
        """
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session)
        try:
            for domain in ("Page", "Runtime", "Network", "Log"):
                page.call(f"{domain}.enable")
            metrics = {"width": width, "height": height, "deviceScaleFactor": 2 if mobile else 1, "mobile": mobile}
            page.call("Emulation.setDeviceMetricsOverride", **metrics)
            page.call("Emulation.setTouchEmulationEnabled", enabled=mobile)
            scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            page.call("Emulation.setEmulatedMedia", features=[scheme])
            yield page
        finally:
            self.call("Target.closeTarget", targetId=target)
            del self._pages[session]

    def close(self) -> None:
        """End the process and all its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()
        os.close(self._out)
        os.close(self._in)

    def _read(self) -> None:
        """Thread: hands answers to who waits for them, and events to their page."""
        rest = b""
        while data := os.read(self._in, 1 << 16):
            *whole, rest = (rest + data).split(b"\0")
            for message in map(json.loads, whole):
                if "id" in message:
                    self._answers.pop(message["id"]).put(message)
                elif (page := self._pages.get(message.get("sessionId", ""))) is not None:
                    page.events.append(message)


class Page:
    """One page.

    Attributes:
        events: all that the protocol has told about it, oldest first: {method, params}.
    """

    def __init__(self, browser: Browser, session: str):
        self.browser, self.session = browser, session
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the protocol for this page."""
        return self.browser.call(method, self.session, **params)

    def open(self, address: str | Path) -> None:
        """Go to a URL or a local file and wait until it is loaded."""
        seen = len(self.events)
        url = address.absolute().as_uri() if isinstance(address, Path) else address
        told = self.call("Page.navigate", url=url)
        assert "errorText" not in told, f"{url}: {told['errorText']}"
        if "loaderId" not in told:
            return  # another part of the same document
        deadline = time.monotonic() + ANSWER_SECONDS
        while not any(event["method"] == "Page.loadEventFired" for event in self.events[seen:]):
            assert time.monotonic() < deadline, f"{url} did not load"
            time.sleep(0.05)

    def evaluate(self, script: str) -> Any:
        """The JSON value of a JavaScript expression; a promise is waited for. AssertionError when it throws."""
        told = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def wait_for(self, condition: str, seconds: float = 60.0) -> Any:
        """Wait until a JavaScript expression is truthy; its value."""
        deadline = time.monotonic() + seconds
        while not (value := self.evaluate(condition)):
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {condition}\n{self.text()[:2000]}"
            time.sleep(0.1)
        return value

    def text(self) -> str:
        """What can be read on the page."""
        return self.evaluate("document.body ? document.body.innerText : ''")

    def click(self, element: str) -> None:
        """Click in the middle of an element, given by a JavaScript expression, as a mouse does, once it holds still."""
        middle = (
            f"(() => {{ const found = {element}; if (!found) return null; "
            "found.scrollIntoView({behavior: 'instant', block: 'center'}); "
            "const box = found.getBoundingClientRect(); "
            "return box.width ? [box.x + box.width / 2, box.y + box.height / 2] : null; })()"
        )
        place = None
        while place != (place := self.wait_for(middle)):
            time.sleep(0.2)
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            button = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
            self.call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], **button)

    def write(self, text: str) -> None:
        """Type into the element that has the focus."""
        self.call("Input.insertText", text=text)

    def press(self, key: str) -> None:
        """Press one of Enter, Tab, Escape, Space."""
        code, text = _KEYS[key]
        about = {"key": " " if key == "Space" else key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def screenshot(self, file: Path, *, whole: bool = False) -> Path:
        """Write what is shown, or with ``whole`` all of the page, as PNG."""
        told = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **self._clip(whole))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(told["data"]))
        return file

    def requests(self) -> list[str]:
        """URLs that the page has asked for, inline data left out."""
        asked = [event["params"]["request"]["url"] for event in self._events("Network.requestWillBeSent")]
        return [url for url in asked if not url.startswith(("data:", "blob:", "about:"))]

    def errors(self) -> list[str]:
        """What went wrong on the page: console errors, exceptions, what could not be loaded."""
        found = [
            event["params"]["exceptionDetails"].get("exception", {}).get("description", "")
            for event in self._events("Runtime.exceptionThrown")
        ]
        for event in self._events("Runtime.consoleAPICalled"):
            if event["params"]["type"] in ("error", "assert"):
                found.append(" ".join(str(one.get("value", one.get("description"))) for one in event["params"]["args"]))
        entries = [event["params"]["entry"] for event in self._events("Log.entryAdded")]
        return found + [f"{one['text']} {one.get('url', '')}".strip() for one in entries if one["level"] == "error"]

    def _events(self, method: str) -> list[dict[str, Any]]:
        return [event for event in list(self.events) if event["method"] == method]

    def _clip(self, whole: bool) -> dict[str, Any]:
        if not whole:
            return {}
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}


@contextmanager
def running_browser() -> Iterator[Browser]:
    """A browser with an empty profile; the test is skipped where there is none."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("needs Chromium (Debian: apt-get install chromium)")
    with tempfile.TemporaryDirectory(prefix="dftweb", ignore_cleanup_errors=True) as profile:
        browser = Browser(program, Path(profile))
        try:
            yield browser
        finally:
            browser.close()
