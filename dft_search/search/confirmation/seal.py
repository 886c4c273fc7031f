"""The sealed test: what will be compared is written down and hashed before anybody reads a test score."""

import hashlib
import json
import time
from dataclasses import asdict
from typing import Any

from dft_search.config.files import write_json
from dft_search.evaluation.parts import PartItems, part_items
from dft_search.evaluation.retention import ENGLISH_RETENTION, BaseScores, english_retention, english_tasks
from dft_search.evaluation.scores import Score
from dft_search.search.confirmation.arms import ArmPlan
from dft_search.search.session import StudySession, score_points
from dft_search.search.study_folder import TrialRecord


def write_items(session: StudySession) -> dict[str, dict[str, PartItems]]:
    """Ids and clusters of the items that confirmation scores, by part and task; kept in the study's folder."""
    scoring = session.definition.recipe.scoring
    assert scoring is not None, "a study has a scoring section"
    parts = {"select": part_items(scoring, "select")}
    if scoring.test:
        parts["test"] = part_items(scoring, "test")
    plain = {part: {task: asdict(items) for task, items in tasks.items()} for part, tasks in parts.items()}
    write_json(session.folder.items, plain)
    return parts


def seal(
    session: StudySession,
    plans: list[ArmPlan],
    *,
    seeds: list[int],
    champion: str,
    baseline: str | None,
    items: dict[str, PartItems],
) -> dict[str, Any]:
    """Write what test will be asked, with a hash over it, into the folder and the study's MLflow run.

    A seal that was opened before and differs from this one is kept under ``earlier``: test is read a second time.

    Args:
        session: the study.
        plans: all recipes that were run.
        seeds: of each of them.
        champion: chosen on select.
        baseline: what it is compared with first, chosen on select.
        items: of the test part, by task.
    """
    content = {
        "arms": {plan.name: plan.recipe.hash for plan in plans},
        "seeds": seeds,
        "metric": session.options.guide.metric,
        "champion": champion,
        "baseline": baseline,
        "items": {task: {"count": len(one.ids), "digest": one.digest} for task, one in items.items()},
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    before = read_seal(session)
    if before.get("hash") == digest:
        return before
    earlier = before.get("earlier", [])
    if before.get("opened") is not None:
        earlier = [*earlier, {key: before[key] for key in ("hash", "opened", "arms", "seeds")}]
    found = {"hash": digest, "sealed": time.time(), "opened": None, **content, "earlier": earlier}
    write_json(session.folder.seal, found)
    session.tracker.log(session.parent, [], {"test_seal": digest})
    return found


def read_seal(session: StudySession) -> dict[str, Any]:
    """The study's seal; empty when there is none."""
    file = session.folder.seal
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}


def open_test(session: StudySession, done: list[TrialRecord], base: TrialRecord | None) -> None:
    """Put the sealed test scores into the records and into MLflow, once the seal says that test is read.

    Args:
        session: the study.
        done: completed runs of confirmation.
        base: that of the untrained model, for English retention.
    """
    found = read_seal(session)
    if found.get("opened") is None:
        write_json(session.folder.seal, {**found, "opened": time.time()})
    before = _base_on_test(session, base)
    for record in done:
        home = session.folder.trial(record.trial)
        if record.test is not None or not (home / "test_scores.json").exists():
            continue
        scores = json.loads((home / "test_scores.json").read_text(encoding="utf-8"))
        if before is not None and record is not base:
            scores[ENGLISH_RETENTION] = _retention(session, scores, record, before)
        record.test = scores
        session.folder.write_trial(record)
        assert record.mlflow_run_id is not None
        session.tracker.log(record.mlflow_run_id, score_points("test", scores, record.steps))


def log_predictions(session: StudySession, record: TrialRecord, items: dict[str, dict[str, PartItems]]) -> None:
    """Per-item predictions of a confirmation run as MLflow artifacts, with the ids of the items."""
    files = {"select": "items.json", "test": "items_test.json"}
    for part, tasks in items.items():
        file = session.folder.trial(record.trial) / files[part]
        if not file.exists() or record.mlflow_run_id is None:
            continue
        values = json.loads(file.read_text(encoding="utf-8"))
        told = {
            task: {
                "ids": one.ids,
                "clusters": one.clusters,
                "values": {name: kept for name, kept in values.items() if name.partition(".")[0] == task},
            }
            for task, one in tasks.items()
        }
        session.tracker.log_text(record.mlflow_run_id, json.dumps(told, ensure_ascii=False), f"predictions_{part}.json")


def _base_on_test(session: StudySession, base: TrialRecord | None) -> BaseScores | None:
    """What the untrained model answered on test, where test asks something in English."""
    scoring = session.definition.recipe.scoring
    if base is None or scoring is None or not english_tasks(scoring, "test"):
        return None
    home = session.folder.trial(base.trial)
    if not (home / "test_scores.json").exists():
        return None
    scores = json.loads((home / "test_scores.json").read_text(encoding="utf-8"))
    items = json.loads((home / "items_test.json").read_text(encoding="utf-8"))
    return BaseScores({name: Score(**score) for name, score in scores.items()}, items)


def _retention(
    session: StudySession, scores: dict[str, Any], record: TrialRecord, base: BaseScores
) -> dict[str, float | int | None]:
    scoring = session.definition.recipe.scoring
    assert scoring is not None
    items = json.loads((session.folder.trial(record.trial) / "items_test.json").read_text(encoding="utf-8"))
    found = {name: Score(**score) for name, score in scores.items()}
    score = english_retention(english_tasks(scoring, "test"), found, items, base)
    return {"value": score.value, "stderr": score.stderr, "n": score.n}
