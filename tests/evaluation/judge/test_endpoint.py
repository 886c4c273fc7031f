"""A judge behind HTTP that fails, stalls and lies: retries, time-outs, a clear report, and nothing is lost."""

import contextlib
import json
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from dft_search.config import InfrastructureError, RequestError
from dft_search.evaluation.judge.comparison import Comparison, Lie, compare
from dft_search.evaluation.judge.endpoint import GIVE_UP_AFTER, EndpointJudge
from dft_search.evaluation.judge.http import NoAnswer, post
from dft_search.evaluation.judge.options import Endpoint
from dft_search.evaluation.judge.prompts import Prompt
from dft_search.evaluation.judge.question import read_reply
from dft_search.evaluation.judge.records import judge_all
from dft_search.evaluation.judge.report import win_rate
from tests.evaluation.judge.stub import Answer, Behaviour, Request, prefers, says, stub

KEY = "sk-secret-0123456789"


def comparisons(count: int, seed: int = 0) -> list[Comparison]:
    prompts = [Prompt(f"p{n}", f"Question {n}?", f"Question {n}?") for n in range(count)]
    return compare(prompts, ["ours, GOOD"] * count, ["theirs, BAD"] * count, seed)


def fair(request: Request) -> Answer:
    """Prefers our answer wherever it is shown."""
    return prefers(request, 1 if request.shown.index("GOOD") < request.shown.index("BAD") else 2)


def judge(url: str, **options: Any) -> EndpointJudge:
    return EndpointJudge(Endpoint(url=url, model="stub", **{"pause": 0.01, "timeout": 10, "attempts": 3, **options}))


def report(behaviour: Behaviour, file: Path, count: int = 4, **options: Any) -> tuple[dict[str, Any], dict[str, int]]:
    """The report on ``count`` comparisons, and how often each was asked."""
    with stub(behaviour) as server:
        one = judge(server.url, **options)
        results = judge_all(one, comparisons(count), file)
        assert [comparison.id for comparison, _ in results] == [f"p{n}" for n in range(count)]
        return win_rate(one.name, results), server.attempts()


def test_a_fair_judge_is_believed_whatever_the_order(tmp_path):
    found, asked = report(fair, tmp_path / "j.jsonl", 8)
    assert found["win_rate"] == 100 and found["discrete_win_rate"] == 100 and found["stderr"] == 0
    assert (found["wins"], found["draws"], found["losses"], found["valid"], found["swapped"]) == (8, 0, 0, 8, 4)
    assert found["position"] == {"first": 4, "decisive": 8, "share": 0.5, "p_value": 1.0}
    assert found["warnings"] == [] and found["rejected"] == {} and found["asked_again"] == 0
    assert set(asked.values()) == {1}


@pytest.mark.parametrize(
    "trouble",
    [
        Answer("oh", 500),
        Answer("busy", 503),
        Answer("slow down", 429, {"Retry-After": "0"}),
        says("the second one, I think"),
        Answer("<html>welcome</html>"),
        Answer('{"choices": []}'),
        says('{"id": "000000000000", "preference": 2}'),
    ],
    ids=["500", "503", "429", "no JSON", "html", "no choices", "wrong id"],
)
def test_what_comes_to_nothing_is_asked_again_and_told(trouble, tmp_path):
    found, asked = report(lambda r: trouble if r.attempt == 1 else fair(r), tmp_path / "j.jsonl")
    assert found["win_rate"] == 100 and found["valid"] == 4 and found["asked_again"] == 4
    assert set(asked.values()) == {2} and sum(found["rejected"].values()) == 4


@pytest.mark.parametrize(
    ("preference", "reason"),
    [
        (3, "out of range"),
        (-1, "out of range"),
        (1e999, "out of range"),
        ("2", "no preference"),
        (True, "no preference"),
    ],
)
def test_a_preference_that_is_none_counts_as_a_lie(preference, reason, tmp_path):
    def lies(request: Request) -> Answer:
        return prefers(request, preference) if "Question 1?" in request.shown else fair(request)

    found, asked = report(lies, tmp_path / "j.jsonl")
    assert found["valid"] == 3 and found["invalid"] == {reason: 1} and found["rejected"] == {reason: 3}
    assert sorted(asked.values()) == [1, 1, 1, 3]
    assert found["warnings"] == [f"1 of 4 comparisons have no valid judgement (1 {reason})"]


def test_a_judge_that_only_lies_leaves_no_win_rate(tmp_path):
    found, _ = report(lambda r: says("1"), tmp_path / "j.jsonl")
    assert found["win_rate"] is None and found["stderr"] is None and found["valid"] == 0
    assert found["invalid"] == {"not JSON": 4}


def test_a_judge_that_looks_at_the_place_alone_is_found_out(tmp_path):
    found, _ = report(lambda r: prefers(r, 1), tmp_path / "j.jsonl", 10)
    assert found["win_rate"] == 50 and found["position"]["share"] == 1
    assert found["warnings"] == ["the judge always prefers the answer shown first (10 of 10): it does not judge"]


@pytest.mark.parametrize("stalls", [Answer(silent=30), says("x" * 300, trickle=0.1)], ids=["silent", "trickles"])
def test_a_server_that_stalls_costs_its_time_out(stalls, tmp_path):
    began = time.monotonic()
    found, asked = report(
        lambda r: stalls if "Question 1?" in r.shown else fair(r), tmp_path / "j.jsonl", timeout=0.5, attempts=2
    )
    assert time.monotonic() - began < 10
    assert found["valid"] == 3 and found["failed"] == {"time-out": 1} and found["rejected"] == {"time-out": 2}
    assert max(asked.values()) == 2


def test_retry_after_is_kept_to(tmp_path):
    times: list[float] = []

    def limited(request: Request) -> Answer:
        times.append(time.monotonic())
        return Answer(status=429, headers={"Retry-After": "1"}) if request.attempt == 1 else fair(request)

    found, _ = report(limited, tmp_path / "j.jsonl", 1)
    assert found["valid"] == 1 and found["rejected"] == {"HTTP 429": 1}
    assert 1.0 <= times[1] - times[0] < 5.0  # and not the 0.01 s of the pause


def test_retry_after_may_be_a_date():
    from dft_search.evaluation.judge import http
    from dft_search.evaluation.judge.endpoint import _retry_after

    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    assert 15 < (_retry_after(http.Answer(429, {"retry-after": soon}, b"")) or 0) <= 20
    assert _retry_after(http.Answer(429, {"Retry-After": "86400"}, b"")) == 60
    assert _retry_after(http.Answer(429, {"Retry-After": "soon"}, b"")) is None


def test_a_refusal_ends_it_and_what_was_judged_is_not_paid_for_twice(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    file, count = tmp_path / "j.jsonl", 12
    with stub(lambda r: fair(r) if len(server.requests) <= 5 else Answer(f"bad key {KEY}", 401)) as server:
        with pytest.raises(InfrastructureError, match="HTTP 401 bad key") as error:
            judge_all(judge(server.url, parallel=1), comparisons(count), file)
        assert server.requests[0].headers["Authorization"] == f"Bearer {KEY}"
    assert KEY not in str(error.value) and KEY not in file.read_text()
    paid = {json.loads(line)["key"] for line in file.read_text().splitlines()}
    assert len(paid) == 5
    file.write_text(file.read_text() + '{"id": "p11", "key": "0')  # as a crash leaves it
    with stub(fair) as server:
        one = judge(server.url)
        found = win_rate(one.name, judge_all(one, comparisons(count), file))
    assert found["valid"] == count and len(server.requests) == count - 5
    assert paid.isdisjoint(server.attempts())
    assert len({json.loads(line)["key"] for line in file.read_text().splitlines()}) == count


def test_another_answer_is_another_comparison(tmp_path):
    file = tmp_path / "j.jsonl"
    report(fair, file)
    _, asked = report(fair, file)
    assert asked == {}
    with stub(fair) as server:
        judge_all(judge(server.url), comparisons(4, seed=1), file)  # shown in another order
        assert 0 < len(server.requests) <= 4


def test_a_dead_server_is_given_up(tmp_path):
    file = tmp_path / "j.jsonl"
    with pytest.raises(InfrastructureError, match=f"no answer to {GIVE_UP_AFTER} comparisons in a row .*no connection"):
        judge_all(judge("http://127.0.0.1:9/v1", attempts=2), comparisons(100), file)
    assert len(file.read_text().splitlines()) < 30
    found, asked = report(fair, file, 100)
    assert found["valid"] == 100 and len(asked) == 100


def test_requests_are_parallel_and_bounded(tmp_path):
    def slow(request: Request) -> Answer:
        return Answer(fair(request).content, silent=0.1)

    with stub(slow) as server:
        judge_all(judge(server.url, parallel=3), comparisons(12), tmp_path / "j.jsonl")
        assert server.most_at_once == 3


def test_the_key_follows_no_redirect_and_must_be_set_if_named(tmp_path, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    with stub(fair) as other, stub(lambda r: Answer(status=302, headers={"Location": other.url})) as server:
        with pytest.raises(InfrastructureError, match="302"):
            judge_all(judge(server.url, key_variable="JUDGE_KEY"), comparisons(1), tmp_path / "j.jsonl")
        assert other.requests == []
    monkeypatch.delenv("JUDGE_KEY")
    with pytest.raises(RequestError, match="JUDGE_KEY is not set"):
        judge("http://127.0.0.1:9/v1", key_variable="JUDGE_KEY")


@pytest.mark.parametrize("key", ["sk-one\nsk-SECRET", "“sk-SECRET”"])
def test_a_key_that_no_header_can_have_is_refused_unseen(key, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", key)
    with pytest.raises(RequestError) as refused:
        judge("http://127.0.0.1:9/v1", key_variable="JUDGE_KEY")
    assert "JUDGE_KEY holds characters" in str(refused.value) and "SECRET" not in str(refused.value)


def test_a_header_that_trickles_costs_its_time_out():
    """No byte of it is late, so no limit of a socket ends it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        over = threading.Event()

        def trickle() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\n")
                while not over.wait(0.05):
                    connection.sendall(b"X-More: and more\r\n")

        thread = threading.Thread(target=trickle)
        thread.start()
        began = time.monotonic()
        try:
            with pytest.raises(NoAnswer, match="time-out"):
                post(f"http://127.0.0.1:{server.getsockname()[1]}/", {}, {}, 1.0)
            assert time.monotonic() - began < 5  # of its one second; without a limit it would never end
        finally:
            over.set()
            thread.join()


def test_a_reply_of_many_brackets_is_read_in_time():
    """The reply is a megabyte at most; looking for an object in it must not take minutes."""
    began = time.monotonic()
    with pytest.raises(Lie):
        read_reply("{" * 400_000, "a")
    assert time.monotonic() - began < 10
