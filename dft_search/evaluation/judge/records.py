"""The file of judgements: one line a comparison, appended as soon as it is judged: nothing is paid for twice."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dft_search.config.files import write_text
from dft_search.evaluation.judge.comparison import Comparison, Judge, Verdict

Record = dict[str, Any]


def judge_all(
    judge: Judge,
    comparisons: Sequence[Comparison],
    file: Path,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> list[tuple[Comparison, Verdict]]:
    """Judge what the file does not hold a valid judgement of, and keep each as it comes.

    Args:
        file: of judgements; whatever interrupted an earlier run, its complete lines count.
        told: is told how many comparisons are done, of how many.

    Returns:
        A verdict for every comparison, in order.

    Raises:
        InfrastructureError: from the judge, when the file holds all that was done.
    """
    kept = {key: verdict for key, verdict in _read(file, judge.name).items() if verdict.kind == "valid"}
    left = [comparison for comparison in comparisons if comparison.key not in kept]
    done = len(comparisons) - len(left)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as out:
        for comparison, verdict in judge.judge(left):
            about = {"id": comparison.id, "key": comparison.key, "judge": judge.name, "swapped": comparison.swapped}
            out.write(json.dumps({**about, **asdict(verdict)}, ensure_ascii=False) + "\n")
            out.flush()
            kept[comparison.key] = verdict
            done += 1
            told(done, len(comparisons))
    return [(comparison, kept[comparison.key]) for comparison in comparisons]


def _read(file: Path, judge: str) -> dict[str, Verdict]:
    """Verdicts of a judge by the comparison's key, the latest of each. Lines that a crash cut are taken out."""
    if not file.exists():
        return {}
    found: dict[str, Verdict] = {}
    text = file.read_text(encoding="utf-8", errors="replace")
    sound = []
    for line in text.split("\n"):
        try:
            record = json.loads(line)
            about = [record.pop(name) for name in ("id", "key", "judge", "swapped")]
            verdict = Verdict(**record)
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        sound.append(line + "\n")
        if about[2] == judge:
            found[about[1]] = verdict
    if "".join(sound) != text:
        write_text(file, "".join(sound))
    return found
