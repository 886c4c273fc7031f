"""A judge behind OpenAI's interface: several requests at a time, each retried, nothing believed unchecked."""

import json
import os
import random
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, as_completed
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from dft_search.config import InfrastructureError, Problem, RequestError
from dft_search.evaluation.judge.comparison import Comparison, Lie, Verdict, judged
from dft_search.evaluation.judge.http import Answer, NoAnswer, post
from dft_search.evaluation.judge.options import Endpoint
from dft_search.evaluation.judge.question import chat, read_reply

DEFAULT_KEY = "OPENAI_API_KEY"
LONGEST_PAUSE = 60.0  # seconds, whatever a server asks for
GIVE_UP_AFTER = 10  # comparisons in a row without any answer
REFUSALS = (301, 302, 303, 307, 308, 401, 403, 404, 405)  # the same for every comparison
AGAIN = (408, 409, 425, 429)  # and every 5xx


class EndpointJudge:
    """Asks a server. The key comes from the environment, and leaves in the request's header alone.

    Raises:
        RequestError: the variable that the file names is not set.
    """

    def __init__(self, options: Endpoint):
        self.options = options
        variable = options.key_variable or DEFAULT_KEY
        self._key = os.environ.get(variable, "").strip()
        if not (self._key.isascii() and self._key.isprintable()):  # http.client would show it in its error
            message = f"environment variable {variable} holds characters that no header can have"
            raise RequestError(Problem(message, key="judge.endpoint.key_variable"))
        if options.key_variable is not None and not self._key:
            message = f"environment variable {variable} is not set"
            raise RequestError(Problem(message, key="judge.endpoint.key_variable"))
        self._stop = threading.Event()

    @property
    def name(self) -> str:
        """The judge's own."""
        return self.options.model

    def judge(self, comparisons: Sequence[Comparison]) -> Iterator[tuple[Comparison, Verdict]]:
        """Judge them, each as soon as its answer is there.

        Raises:
            InfrastructureError: the server refuses us, or answers nothing any more.
        """
        self._stop.clear()
        error: InfrastructureError | None = None
        silent = 0
        pool = ThreadPoolExecutor(self.options.parallel, thread_name_prefix="judge")
        try:
            asked = {pool.submit(self._ask, comparison): comparison for comparison in comparisons}
            for done in as_completed(asked):
                try:
                    verdict = done.result()
                except CancelledError:
                    continue
                except InfrastructureError as refusal:
                    error = error or refusal
                    self._end(asked)
                    continue
                if verdict is None:
                    continue
                yield asked[done], verdict
                silent = silent + 1 if verdict.kind == "failed" else 0
                if silent == GIVE_UP_AFTER and error is None:
                    error = InfrastructureError(
                        f"the judge at {self.options.url} gave no answer to {silent} comparisons in a row "
                        f"(the last: {verdict.reason}); the same command goes on with those that are left"
                    )
                    self._end(asked)
        finally:
            self._stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
        if error is not None:
            raise error

    def _end(self, asked: Mapping[Future[Verdict | None], Comparison]) -> None:
        """Ask nothing more; what is on its way may arrive."""
        self._stop.set()
        for future in asked:
            future.cancel()

    def _ask(self, comparison: Comparison) -> Verdict | None:
        """One comparison with its attempts; None when everything was stopped before there was an answer."""
        troubles: Counter[str] = Counter()
        chance = random.Random(comparison.key)
        for attempt in range(1, self.options.attempts + 1):
            if self._stop.is_set():
                return None
            wait: float | None = None
            try:
                answer = self._post(comparison)
                if answer.status == 200:
                    return judged(comparison, _preference(answer, comparison), attempt, dict(troubles))
                kind, reason, wait = "failed", f"HTTP {answer.status}", _retry_after(answer)
                if answer.status in REFUSALS:
                    raise InfrastructureError(f"the judge at {self.options.url} refuses: {self._message(answer)}")
                final = answer.status < 500 and answer.status not in AGAIN
            except NoAnswer as nothing:
                kind, reason, final = "failed", str(nothing), False
            except Lie as lie:
                kind, reason, final = "invalid", str(lie), False
            troubles[reason] += 1
            if final or attempt == self.options.attempts:
                break
            doubled = min(LONGEST_PAUSE, self.options.pause * 2 ** (attempt - 1)) * chance.uniform(0.5, 1.0)
            self._stop.wait(doubled if wait is None else wait)
        return Verdict(kind, reason=reason, attempts=attempt, troubles=dict(troubles))  # type: ignore[arg-type]

    def _post(self, comparison: Comparison) -> Answer:
        body = {
            "model": self.options.model,
            "messages": chat(comparison),
            "temperature": 0,
            "max_tokens": self.options.max_tokens,
        }
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        return post(f"{self.options.url.rstrip('/')}/chat/completions", body, headers, self.options.timeout)

    def _message(self, answer: Answer) -> str:
        """What the server says, shortened, without the key."""
        text = " ".join(answer.content.decode("utf-8", "replace").split())
        return f"HTTP {answer.status} {(text.replace(self._key, '***') if self._key else text)[:200]}"


def _preference(answer: Answer, comparison: Comparison) -> float:
    """The judge's words in an answer of the server, read. Raises Lie."""
    try:
        said = json.loads(answer.content)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise Lie("not JSON") from None
    return read_reply(said, comparison.key)


def _retry_after(answer: Answer) -> float | None:
    """Seconds that the server asks us to wait: a number or a date (RFC 9110, 10.2.3)."""
    text = next((value for name, value in answer.headers.items() if name.lower() == "retry-after"), "").strip()
    if not text:
        return None
    try:
        seconds = float(text) if text.isdigit() else (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):
        return None
    return min(max(seconds, 0.0), LONGEST_PAUSE)
