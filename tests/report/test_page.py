"""The page in a real browser: both widths and schemes, keyboard, the followed trial, what it saves, no network."""

import csv
import io
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dft_search.report import build_report
from tests.browser import Browser, running_browser
from tests.report.conftest import Writer, full_study

VIEWS = [(width, dark) for width in (1280, 390) for dark in (False, True)]
SETTLE = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with every kind of figure, layers enough to be wide, built into its report."""
    folder = full_study(tmp_path_factory.mktemp("studies") / "deep", num_layers=32, near_chance_task=True).folder
    build_report(folder)
    return folder


@pytest.mark.parametrize(("width", "dark"), VIEWS)
def test_it_fits_and_asks_for_nothing(browser: Browser, study: Path, width: int, dark: bool) -> None:
    with browser.page(width, dark=dark, mobile=width < 600) as page:
        page.open(study / "report.html")
        assert page.errors() == []
        assert page.requests() == [(study / "report.html").as_uri()]
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"the page scrolls sideways: {wide} pixels at {width}"
        outside = page.evaluate(
            "[...document.querySelectorAll('body *')].filter(one => one.getBoundingClientRect().right > innerWidth + 1"
            " && !one.closest('.scroll, .drawing, .skip')).map(one => one.outerHTML.slice(0, 80))"
        )
        assert outside == []
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == ("rgb(20, 23, 28)" if dark else "rgb(255, 255, 255)")
        shot = page.screenshot(study / f"{width}-{dark}.png", whole=True).read_bytes()
        assert struct.unpack(">I", shot[16:20])[0] == width * (2 if width < 600 else 1)


def test_drawn_text_does_not_overlap(browser: Browser, study: Path) -> None:
    """Labels of one figure keep clear of each other; what is drawn stays within its frame."""
    with browser.page(1280) as page:
        page.open(study / "report.html")
        found = page.evaluate(
            """[...document.querySelectorAll('figure svg')].flatMap(svg => {
              const frame = svg.getBoundingClientRect(), name = svg.closest('figure').dataset.name;
              const drawn = [...svg.querySelectorAll('text')];
              const texts = drawn.map(one => [one.textContent, one.getBoundingClientRect()]);
              const bad = texts.filter(([, box]) => box.left < frame.left - 1 || box.right > frame.right + 1
                || box.top < frame.top - 1 || box.bottom > frame.bottom + 1).map(([text]) => `${name}: ${text} is cut`);
              texts.forEach(([one, a], index) => texts.slice(index + 1).forEach(([other, b]) => {
                const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
                const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
                if (across > 1 && down > 5) bad.push(`${name}: ${one} is on ${other}`);
              }));
              return bad;
            })"""
        )
        assert found == []


def test_headings_and_landmarks_are_in_order(browser: Browser, study: Path) -> None:
    with browser.page() as page:
        page.open(study / "report.html")
        levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(one => +one.tagName[1])")
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
        roles = page.evaluate("['header', 'main', 'nav', 'footer'].map(name => document.querySelectorAll(name).length)")
        assert roles == [1, 1, 1, 1]
        bare = page.evaluate("[...document.querySelectorAll('table')].filter(one => !one.caption || !one.tHead).length")
        assert bare == 0
        unnamed = page.evaluate(
            "[...document.querySelectorAll('thead th')].filter(one => one.scope !== 'col').length"
            " + [...document.querySelectorAll('tbody th')].filter(one => !one.scope.startsWith('row')).length"
        )
        assert unnamed == 0
        tree = page.call("Accessibility.getFullAXTree")["nodes"]
        names = {(node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree if not node["ignored"]}
        drawings = [name for role, name in names if role in ("image", "img")]
        assert len(drawings) >= 8 and all(len(name) > 15 for name in drawings)
        assert not [
            role for role, name in names if role in ("button", "link", "combobox", "region", "figure") and not name
        ]


def test_the_leaderboard_is_sorted_with_the_keyboard(browser: Browser, study: Path) -> None:
    with browser.page() as page:
        page.open(study / "report.html")
        page.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        for _ in range(60):
            page.press("Tab")
            if page.evaluate("document.activeElement.textContent") == "trial":
                break
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", "the focus is seen"
        column = "[...document.querySelectorAll('.board tbody tr')].map(row => +row.cells[1].dataset.value)"
        page.press("Enter")
        assert page.evaluate(column) == list(range(24))
        assert page.evaluate("document.activeElement.closest('th').getAttribute('aria-sort')") == "ascending"
        page.press("Space")
        assert page.evaluate(column) == list(range(23, -1, -1))


def test_a_trial_is_followed_by_key_and_by_pointer(browser: Browser, study: Path) -> None:
    board = json.loads((study / "report.json").read_text())["leaderboard"]
    with browser.page() as page:
        page.open(study / "report.html")
        page.evaluate("document.querySelector('.picker select').focus()")
        for kind in ("keyDown", "keyUp"):
            arrow = {"key": "ArrowDown", "code": "ArrowDown", "windowsVirtualKeyCode": 40}
            page.call("Input.dispatchKeyEvent", type=kind, **arrow)
        picked = "[...document.querySelectorAll('.way.picked')].map(one => +one.dataset.trial)"
        said = "document.querySelector('.followed').textContent"
        assert page.wait_for(picked) == [board[0]["trial"]]
        text = page.evaluate(said)
        assert text.startswith(f"Trial {board[0]['trial']}: completed, dev ") and ", number 1." in text
        for key in board[0]["params"]:
            assert key.removeprefix("objective.").removeprefix("training.") in text
        page.evaluate("document.querySelector('[data-name=parallel] svg').scrollIntoView({behavior: 'instant'})")
        page.evaluate(SETTLE)  # a click goes where the last drawn frame has the line
        *place, other = page.evaluate(
            """(() => {  // a place on a line that is clear of all others
              const lines = [...document.querySelectorAll('.way')];
              for (const line of lines.filter(one => !one.classList.contains('picked'))) {
                for (let at = 0.05; at < 1; at += 0.01) {
                  const point = line.getPointAtLength(line.getTotalLength() * at);
                  if (lines.every(one => one === line || distance(one.points, point) > 3)) {
                    const {x, y} = point.matrixTransform(line.getScreenCTM());
                    return [x, y, +line.dataset.trial];
                  }
                }
              }
            })()"""
        )
        for kind in ("mousePressed", "mouseReleased"):
            about = {"x": place[0], "y": place[1], "button": "left", "clickCount": 1}
            page.call("Input.dispatchMouseEvent", type=kind, **about)
        assert page.evaluate(picked) == [other]
        assert page.evaluate("document.querySelector('.picker select').value") == str(other)
        assert page.evaluate(said).startswith(f"Trial {other}: ")
        assert page.errors() == []


def test_without_a_script_all_is_there_to_read(browser: Browser, study: Path) -> None:
    with browser.page() as page:
        page.call("Emulation.setScriptExecutionDisabled", value=True)
        page.open(study / "report.html")
        page.call("Emulation.setScriptExecutionDisabled", value=False)
        assert page.evaluate("[...document.querySelectorAll('.saves, .picker')].every(one => one.hidden)")
        assert page.evaluate("document.querySelectorAll('.way').length") == 24


@pytest.mark.parametrize("dark", [False, True])
def test_everything_can_be_saved(browser: Browser, study: Path, tmp_path: Path, dark: bool) -> None:
    report = json.loads((study / "report.json").read_text())
    with browser.page(dark=dark) as page:
        page.open(study / "report.html")
        browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        names = page.evaluate("[...document.querySelectorAll('figure')].map(one => one.dataset.name)")
        assert {"arms", "lead", "layers", "surface", "parallel", "importance", "timeline", "cost"} <= set(names)

        def saved(block: str, kind: str, name: str) -> bytes:
            page.evaluate(f"document.querySelector('[data-name={block}] [data-save={kind}]').focus()")
            page.press("Enter")
            file = tmp_path / f"deep-{name}"
            for _ in range(200):
                if file.is_file():
                    break
                page.evaluate("new Promise(done => setTimeout(done, 50))")
            return file.read_bytes()

        drawing = ElementTree.fromstring(saved("layers", "svg", "layers.svg"))
        assert "var(" not in ElementTree.tostring(drawing, "unicode")
        ground = drawing.find("{http://www.w3.org/2000/svg}rect").get("fill")
        assert ground == ("#14171c" if dark else "#ffffff")
        picture = saved("parallel", "png", "parallel.png")
        assert picture.startswith(b"\x89PNG") and struct.unpack(">I", picture[16:20])[0] == 3 * 400
        rows = list(csv.reader(io.StringIO(saved("leaderboard", "csv", "leaderboard.csv").decode())))
        assert len(rows) == 25 and rows[1][4] == str(report["leaderboard"][0]["dev"]["score"])
        assert json.loads(saved("supervision", "json", "supervision.json")) == report["supervision"]
        whole = json.loads(saved("report", "all", "report.json"))
        assert whole == {key: value for key, value in report.items() if key != "files"}
        assert page.errors() == []
        assert [url for url in page.requests() if not url.startswith("file:")] == []


def test_a_study_that_runs_shows_what_it_has(browser: Browser, tmp_path: Path) -> None:
    writer = Writer(tmp_path / "running")
    writer.study(state="running")
    build_report(writer.folder)
    with browser.page(390) as page:
        page.open(writer.folder / "report.html")
        assert page.errors() == [] and "still running" in page.text() and "No trial has started yet" in page.text()
