"""From the end of a trial to the first step of the next: `python -m tests.benchmarks.turnaround [--json]`.

Three studies, one after the other, each by `dft-search search --no-confirm` on one slot of two workers: warm slots,
cold ones (a slot lives for one trial), warm ones again. They are the quickstart with short trials, a random sampler and
LoRA, whose rank is searched as well: a new rank means new modules in the same processes. From the moment at which the
workers send a trial's last report, until they have done the first optimizer step of the next trial. All have the same
seed, hence the same trials: their losses, scores, answers and trained weights must be the same, bit for bit.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from dft_search.config import load_document
from dft_search.config.document import to_yaml
from dft_search.config.shipped import shipped_study
from dft_search.search.phases import versions
from dft_search.search.study_folder import TrialRecord
from dft_search.training.checkpoints import newest_complete
from tests.benchmarks import program
from tests.benchmarks.driver import Finished, run_study

RANK = "training.trainable.lora.rank"
WARM_LIMITS = {"median": 1.0, "p95": 3.0}  # seconds
COLD_TO_WARM = 10.0
MOST = 20  # trials of a study


def study_file(folder: Path, steps: int) -> Path:
    """The quickstart with short trials that change everything a search changes, the rank of adapters included."""
    data = load_document(shipped_study("quickstart")).data
    data["study"] |= {"sampler": "random", "scheduler": "none", "rungs": [], "first_points": []}
    data["study"]["confirm"] = {"top": MOST}  # the last checkpoints of so many trials are kept, to be compared
    data["recipe"]["training"] |= {"length": {"steps": steps}, "trainable": {"lora": {"rank": 4}}}
    data["space"][RANK] = {"choice": [2, 4, 8]}
    path = folder / "study.yaml"
    path.write_text(to_yaml(data), encoding="utf-8")
    return path


def gaps(trials: Sequence[TrialRecord]) -> list[dict[str, float]]:
    """For each trial but the first, seconds since the last report of the one before it.

    ``driver``: until the workers took the trial; ``workers``: from there to its first step; ``total``: both.
    """
    found = []
    for before, trial in zip(trials, trials[1:], strict=False):
        assert before.times is not None and trial.times is not None
        reported, taken, stepped = before.times["reported"], trial.times["taken"], trial.times["first_step"]
        found.append({"total": stepped - reported, "driver": taken - reported, "workers": stepped - taken})
    return found


def percentile(values: Sequence[float], percent: float) -> float:
    """Linear between the ordered values."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def summary(found: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Median and 95th percentile of each part, in seconds."""
    out: dict[str, Any] = {"gaps": len(found)}
    for part in ("total", "driver", "workers"):
        values = [gap[part] for gap in found]
        out[part] = {"median": statistics.median(values), "p95": percentile(values, 95), "most": max(values)}
    return out


def differences(one: Finished, other: Finished) -> list[str]:
    """In what the trials that both studies ran differ."""
    found = []
    pairs = zip(_by_number(one), _by_number(other), strict=False)
    for a, b in pairs:
        if (a.params, a.seed, a.recipe_hash) != (b.params, b.seed, b.recipe_hash):
            found.append(f"{a.name}: not the same trial")
        elif (a.outcome, _metrics(one, a)) != (b.outcome, _metrics(other, b)):
            found.append(f"{a.name}: metrics")
        elif not _same(_weights(one, a), _weights(other, b)):
            found.append(f"{a.name}: weights")
    return found


def _by_number(done: Finished) -> list[TrialRecord]:
    return sorted(done.trials(), key=lambda record: record.trial)


def _metrics(done: Finished, record: TrialRecord) -> list[Any]:
    """Losses, gradient norms and rates of every step, scores and answers of every report; no times."""
    items = json.loads((done.folder.trial(record.trial) / "items.json").read_text(encoding="utf-8"))
    kept: list[Any] = [items]
    for report in done.folder.read_reports(record.trial):
        steps = [
            {name: value for name, value in step["metrics"].items() if not name.startswith("perf/")}
            for step in report["history"]
        ]
        kept += [report["scores"], report["rows"], report["tokens"], steps]
    return kept


def _weights(done: Finished, record: TrialRecord) -> dict[str, torch.Tensor]:
    checkpoint = newest_complete(done.folder.trial(record.trial) / "checkpoints")
    if checkpoint is None:
        raise SystemExit(f"{record.name} left no checkpoint")
    with tempfile.NamedTemporaryFile() as file:
        dcp_to_torch_save(checkpoint, file.name)
        state: dict[str, dict[str, torch.Tensor]] = torch.load(file.name, weights_only=True)
    return state["model"]


def _same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def measure(folder: Path, warm: int, cold: int, steps: int) -> dict[str, Any]:
    """The three studies, and what they say."""
    say, file = program.teller("turnaround"), str(study_file(folder, steps))
    done: dict[str, Finished] = {}
    for name, mode, trials in (("warm", "warm", warm), ("cold", "cold", cold), ("warm-again", "warm", warm)):
        say(f"{trials} trials, {name}")
        overrides = {"study.slots.mode": mode, "study.budget": {"trials": trials, "wall_clock": None}}
        log = folder / f"{name}.log"
        done[name] = run_study(file, name, folder, overrides, log)
    trials = done["warm"].trials()
    found = {
        "warm": summary(gaps(trials) + gaps(done["warm-again"].trials())),
        "cold": summary(gaps(done["cold"].trials())),
        "new_modules": sum(a.params[RANK] != b.params[RANK] for a, b in zip(trials, trials[1:], strict=False)),
        "trials_compared": cold,
        "differences": differences(done["warm"], done["cold"]) + differences(done["warm"], done["warm-again"]),
        "left_running": sum(len(study.running) for study in done.values()),
    }
    found["cold_to_warm"] = found["cold"]["total"]["median"] / found["warm"]["total"]["median"]
    return found


def missed(found: dict[str, Any]) -> list[str]:
    """The limits that were not kept."""
    out = [f"warm {name}" for name, limit in WARM_LIMITS.items() if found["warm"]["total"][name] > limit]
    if found["cold_to_warm"] < COLD_TO_WARM:
        out.append("cold / warm")
    return out + found["differences"]


def lines(found: dict[str, Any]) -> list[str]:
    """The report, to be read."""
    head = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    out = [f"turnaround on {found['cores']} cores; {head}", ""]
    out += ["| slots | gaps | median s | p95 s | most s | driver s | workers s |", "|---|---|---|---|---|---|---|"]
    for mode in ("warm", "cold"):
        row, total = found[mode], found[mode]["total"]
        parts = " | ".join(f"{row[part]['median']:.2f}" for part in ("driver", "workers"))
        times = " | ".join(f"{total[key]:.2f}" for key in ("median", "p95", "most"))
        out.append(f"| {mode} | {row['gaps']} | {times} | {parts} |")
    same = "; ".join(found["differences"]) or "identical, bit for bit"
    return [
        *out,
        "",
        f"cold / warm {found['cold_to_warm']:.1f}; new modules in {found['new_modules']} gaps of each warm study",
        f"metrics and weights of {found['trials_compared']} trials, warm and cold: {same}",
        "missed: " + (", ".join(missed(found)) or "nothing"),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.turnaround", description=__doc__.splitlines()[0])
    parser.add_argument("--warm", type=int, default=MOST, help=f"trials of each warm study, at most {MOST}")
    parser.add_argument("--cold", type=int, default=12, help="trials of the cold study, at most as many")
    parser.add_argument("--steps", type=int, default=8, help="of a trial")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(arguments)
    if not 1 < given.cold <= given.warm <= MOST:
        parser.error(f"needs 1 < cold <= warm <= {MOST}")
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), given.warm, given.cold, given.steps)
    found = {"benchmark": "turnaround", "cores": os.cpu_count(), "versions": versions(), **found}
    print(json.dumps(found, indent=1) if given.json else "\n".join(lines(found)))
    return 1 if missed(found) else 0


if __name__ == "__main__":
    sys.exit(main())
