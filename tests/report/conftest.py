"""Writes realistic study folders for the report's tests; run as a script with a folder's name it writes some to see."""

import json
import math
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dft_search.report import confirm_study

RUNGS = (0.25, 0.5, 1.0)
STEPS = 120
ROWS = 960


def objective(
    conversion: tuple[str, int] | None = None, thinking: tuple[str, int] | None = None, weight: float = 0.3
) -> dict[str, Any]:
    """The objective section of a recipe; a term is (supervision, layer)."""

    def term(kind: tuple[str, int] | None) -> dict[str, Any]:
        return {"supervision": "none"} if kind is None else {"supervision": kind[0], "layer": kind[1], "weight": weight}

    return {"method": "dft", "conversion": term(conversion), "thinking": term(thinking)}


@dataclass
class Writer:
    """A study's folder in the making. Scores come from a fixed skill of each recipe, a seed's luck, and coin flips."""

    folder: Path
    seed: int = 0
    num_layers: int = 6
    items: int = 180
    test_items: int = 500
    score: list[str] = field(default_factory=lambda: ["facts"])
    near_chance_task: bool = False
    english: bool = False

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        (self.folder / "trials").mkdir(parents=True)
        # The same questions for everyone: hard ones are hard for all recipes.
        self.hardness = {part: [self.random.gauss(0, 0.9) for _ in range(n)] for part, n in self._sizes().items()}

    def _sizes(self) -> dict[str, int]:
        return {"dev": self.items, "test": self.test_items}

    def study(self, state: str = "finished", planned: int = 24) -> None:
        """study.yaml and study.json."""
        yaml = (
            f"study:\n  name: {self.folder.name}\n  objective: {{maximize: score}}\n"
            f"recipe:\n  model: {{path: demo/base}}\n  data: {{target_language: xx}}\n"
            f"  scoring:\n    score: {{mean: [{', '.join(self.score)}]}}\n"
        )
        (self.folder / "study.yaml").write_text(yaml)
        self._json(
            self.folder / "study.json",
            {
                "name": self.folder.name,
                "created": 1_763_700_000.0,
                "state": state,
                "num_layers": self.num_layers,
                "language": "xx",
                "model": "demo/base",
                "budget": {"planned": planned},
                "mlflow": {"uri": "sqlite:////home/user/mlflow.db", "experiment_id": "1", "run_id": "a1b2c3"},
                "versions": {"dft_search": "0.1.0", "torch": "2.13.0", "ray": "2.60.0"},
                "seconds": {"start": 21.4, "search": 188.0, "confirm": 96.5},
                "slots": {"workers": 2, "gpus_per_worker": 1, "cpus_per_worker": 4},
                "data": {"rows": 120, "dropped": {"empty": 2}, "truncated": {}, "fingerprint": "9f3a41c02b77d1e0"},
            },
        )

    def trial(
        self,
        number: int,
        goal: dict[str, Any],
        skill: float,
        *,
        outcome: str = "completed",
        phase: str = "search",
        arm: str | None = None,
        rate: float = 1e-3,
        fraction: float = 1.0,
        seed: int | None = None,
        luck: float = 0.05,
        message: str | None = None,
        cost: float = 1.0,
    ) -> None:
        """One trial's folder. `skill` is in logits: what the recipe adds to the chance of a right answer."""
        home = self.folder / "trials" / f"t{number:04d}"
        home.mkdir()
        seed = seed if seed is not None else 1000 + number
        own = random.Random(f"{self.seed} {number}")
        lucky = skill + own.gauss(0, luck)
        reports, items = self._reports(goal, lucky, rate, fraction, outcome, own)
        about = {
            "trial": number,
            "outcome": outcome,
            "phase": phase,
            "arm": arm,
            "params": self._params(goal, rate),
            "seed": seed,
            "recipe_hash": f"{number:012x}",
            "dev": reports[-1]["scores"] if reports else {},
            "test": None,
            "fraction": fraction,
            "steps": round(fraction * STEPS),
            "rows": round(fraction * ROWS),
            "tokens": round(fraction * ROWS * 41),
            "flops": 2.1e12 * fraction * (0 if arm == "base" else cost),
            "seconds": 7.5 * fraction + 0.5,
            "mlflow_run_id": f"run{number}",
            "checkpoint_uri": None,
            "message": message,
            "started": 1_763_700_000.0 + number,
            "ended": 1_763_700_008.0 + number,
        }
        if phase == "confirm" and outcome == "completed":
            test = self._answers("test", lucky, own)
            about["test"] = self._scores(test)
            self._json(home / "items_test.json", test)
        self._json(home / "trial.json", about)
        (home / "recipe.yaml").write_text(json.dumps({"recipe": {"objective": goal}}))
        (home / "reports.jsonl").write_text("".join(json.dumps(report) + "\n" for report in reports))
        if reports:
            self._json(home / "items.json", items)

    def confirm(self, candidates: dict[str, int], **options: Any) -> dict[str, Any]:
        """confirmation.json from the confirmation runs written so far."""
        confirmation = confirm_study(self.folder, candidates=candidates, **options)
        self._json(self.folder / "confirmation.json", confirmation)
        return confirmation

    def journal(self) -> None:
        """optuna.journal that holds the search's trials."""
        import optuna
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = JournalStorage(JournalFileBackend(str(self.folder / "optuna.journal")))
        study = optuna.create_study(study_name=self.folder.name, storage=storage, direction="maximize")
        kinds = CategoricalDistribution(["logits", "feature", "none"])
        layers = IntDistribution(1, self.num_layers)
        for path in sorted((self.folder / "trials").glob("t0*/trial.json")):
            about = json.loads(path.read_text())
            numbers = FloatDistribution(1e-5, 1.0, log=True)
            spaces = {
                key: kinds if "supervision" in key else layers if "layer" in key else numbers for key in about["params"]
            }
            complete = about["outcome"] == "completed"
            study.add_trial(
                optuna.trial.create_trial(
                    params=about["params"],
                    distributions=spaces,
                    value=about["dev"]["score"]["value"] if complete else None,
                    state=optuna.trial.TrialState.COMPLETE if complete else optuna.trial.TrialState.PRUNED,
                )
            )

    def _params(self, goal: dict[str, Any], rate: float) -> dict[str, Any]:
        params: dict[str, Any] = {}
        for name in ("conversion", "thinking"):
            for key, value in goal[name].items():
                params[f"objective.{name}.{key}"] = value
        return params | {"training.optimizer.learning_rate": rate}

    def _reports(
        self, goal: dict[str, Any], skill: float, rate: float, fraction: float, outcome: str, own: random.Random
    ) -> tuple[list[dict[str, Any]], dict[str, list[float]]]:
        starts = {"generation": 3.1}
        starts |= {name: 5.2 for name in ("conversion", "thinking") if goal[name]["supervision"] != "none"}
        reports: list[dict[str, Any]] = []
        items: dict[str, list[float]] = {}
        step = 0
        for rung in [rung for rung in RUNGS if rung <= fraction]:
            history = []
            while step < rung * STEPS:
                step += 1
                losses = {
                    f"loss/{name}": start * (0.35 + 0.65 * math.exp(-step * rate * 28)) + own.gauss(0, 0.06)
                    for name, start in starts.items()
                }
                metrics = losses | {"loss/total": sum(losses.values()), "grad_norm": 1.0}
                history.append({"step": step, "metrics": metrics})
            items = self._answers("dev", skill - 0.8 * (1 - rung), own)
            scores = self._scores(items)
            rows = round(rung * ROWS)
            reports.append(
                {"step": step, "fraction": rung, "rows": rows, "tokens": 41 * rows, "seconds": 7.5 * rung}
                | {"history": history, "scores": scores}
            )
        if outcome == "diverged" and reports:
            reports[-1]["history"][-1]["metrics"]["loss/generation"] = float("nan")
        return reports, items

    def _answers(self, part: str, skill: float, own: random.Random) -> dict[str, list[float]]:
        chances = [1 / (1 + math.exp(hard - skill)) for hard in self.hardness[part]]
        answers = {"facts": [float(own.random() < chance) for chance in chances]}
        answers["facts.margin"] = [2 * (chance - 0.5) + own.gauss(0, 0.3) for chance in chances]
        if self.near_chance_task:
            answers["xcopa_xx"] = [float(own.random() < 0.5) for _ in range(50)]
        if self.english:
            answers["facts_en"] = [float(own.random() < 0.8 - 0.004 * skill) for _ in self.hardness[part]]
        return answers

    def _scores(self, items: dict[str, list[float]]) -> dict[str, Any]:
        scores = {}
        for name, values in items.items():
            mean = sum(values) / len(values)
            deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values))
            chance = {"facts": 0.05, "xcopa_xx": 0.5, "facts_en": 0.05}.get(name)
            scores[name] = {"value": mean, "stderr": deviation, "n": len(values), "chance": chance}
        parts = [scores[name] for name in self.score]
        total = {
            "value": sum(part["value"] for part in parts) / len(parts),
            "stderr": math.sqrt(sum(part["stderr"] ** 2 for part in parts)) / len(parts),
            "n": sum(part["n"] for part in parts),
            "chance": parts[0]["chance"] if len(parts) == 1 else None,
        }
        return {"score": total, **scores}

    def _json(self, path: Path, data: Any) -> None:
        path.write_text(json.dumps(data, indent=1))


TFT = objective()
TOP = objective(thinking=("logits", 6))


def full_study(folder: Path, *, seeds: int = 3, gain: float = 0.12, trials: int = 24, **options: Any) -> Writer:
    """A finished study with a confirmation; `gain` is the skill (logits) of DFT over TFT in this made-up world."""
    writer = Writer(folder, **options)
    writer.study(planned=trials)
    draw = random.Random(7 + writer.seed)
    goals: dict[int, dict[str, Any]] = {0: TFT, 1: TOP}
    skills = {0: 0.15, 1: 0.15 + gain}
    writer.trial(0, TFT, skills[0], phase="search")
    writer.trial(1, TOP, skills[1], phase="search")
    for number in range(2, trials):
        i = draw.randint(1, writer.num_layers // 2)
        j = draw.randint(i + 1, writer.num_layers)
        goals[number] = objective(
            (draw.choice(["logits", "feature"]), i) if draw.random() < 0.8 else None,
            (draw.choice(["logits", "feature"]), j) if draw.random() < 0.9 else None,
            weight=round(math.exp(draw.uniform(math.log(0.05), 0)), 3),
        )
        rate = round(1e-3 * math.exp(draw.uniform(-1.2, 1.0)), 6)
        away = abs(j - 0.6 * writer.num_layers) / writer.num_layers + abs(math.log(rate / 1e-3)) * 0.25
        skills[number] = 0.15 + gain - away
        fate = {5: ("diverged", 0.25, "loss is not finite at step 34"), 11: ("out_of_memory", 0.25, None)}
        outcome, fraction, message = fate.get(number, ("completed", 1.0, None))
        if outcome == "completed" and skills[number] < 0.0 and number > 6:
            outcome, fraction = "pruned", draw.choice([0.25, 0.5])
        writer.trial(
            number, goals[number], skills[number], outcome=outcome, fraction=fraction, rate=rate, message=message
        )
    done = [json.loads(path.read_text()) for path in sorted((folder / "trials").glob("*/trial.json"))]
    done = [about for about in done if about["outcome"] == "completed" and about["trial"] > 1]
    best = [a["trial"] for a in sorted(done, key=lambda about: -about["dev"]["score"]["value"])[:2]]
    number = 10_000
    arms = {"best1": goals[best[0]], "best2": goals[best[1]], "tft": TFT, "thinking_at_top": TOP}
    strength = {"best1": 0.15 + gain, "best2": 0.1 + gain, "tft": 0.15, "thinking_at_top": 0.15 + gain}
    for arm, goal in arms.items():
        for seed in range(seeds):
            writer.trial(number, goal, strength[arm], phase="confirm", arm=arm, seed=500 + seed)
            number += 1
    writer.confirm({"best1": best[0], "best2": best[1]})
    writer.journal()
    return writer


def paper_study(folder: Path, *, gain: float = 0.5, seeds: int = 8) -> Writer:
    """A finished study with every arm, English questions, clusters, and TFT that had fewer trials; test read twice."""
    writer = Writer(folder, english=True)
    writer.study(planned=12)
    deep = objective(("logits", 2), ("logits", 4))
    for number in range(12):
        writer.trial(number, TFT if number == 0 else deep, 0.1 + 0.03 * number, rate=1e-3 * (1 + number / 6))
    for number in range(3):
        writer.trial(20_001 + number, TFT, 0.1, phase="baseline", rate=1e-3 * (1 + number))
    skills = {"best1": gain, "tft": 0.0, "sft": -0.4, "tft_english": 0.05, "tft_equal_flops": 0.1, "paper": 0.2}
    skills |= {"thinking_at_top": 0.15, "shuffled_english": -0.05, "best2": gain - 0.05}
    costs = {"tft": 1.0, "sft": 0.9, "tft_english": 1.8, "thinking_at_top": 1.5}
    number = 10_001
    writer.trial(10_000, TFT, -0.6, phase="confirm", arm="base", luck=0.0)
    for arm, skill in skills.items():
        goal = TFT if arm.startswith(("tft", "sft")) else TOP if arm == "thinking_at_top" else deep
        for seed in range(seeds):
            cost = costs.get(arm, 1.42)
            writer.trial(number, goal, skill, phase="confirm", arm=arm, seed=500 + seed, luck=0.03, cost=cost)
            number += 1
    questions = {"ids": [f"q{n}" for n in range(500)], "clusters": [f"article {n // 5}" for n in range(500)]}
    tasks = {task: {**questions, "language": language} for task, language in (("facts", "xx"), ("facts_en", "en"))}
    writer._json(folder / "items.json", {"test": tasks})
    seal = {"hash": "5eal5eal5eal5eal", "sealed": 1_763_700_400.0, "opened": 1_763_700_401.0, "champion": "best1"}
    seal |= {"arms": dict.fromkeys(skills, "x"), "seeds": list(range(seeds)), "items": {"facts": {"count": 500}}}
    seal["earlier"] = [{"hash": "0", "opened": 1_763_600_000.0}]
    about = {
        "settings": {"best1": "trial 11, number 1 of the search", "tft": "trial 20001, the best of 4 of plain TFT"},
        "tuning": {"planned": 4, "search": 1, "own": 3},
        "missing": ["shuffled_english"],
        "seal": seal,
    }
    writer.confirm({"best1": 11, "best2": 10}, about=about)
    writer.journal()
    return writer


@pytest.fixture
def writer(tmp_path: Path) -> Callable[..., Writer]:
    """Makes an empty study folder to write trials into."""

    def make(name: str = "demo", **options: Any) -> Writer:
        return Writer(tmp_path / name, **options)

    return make


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one finished study with confirmation."""
    return full_study(tmp_path_factory.mktemp("studies") / "demo").folder


def _write_examples(out: Path) -> None:
    from dft_search.report import build_report

    full_study(out / "demo-no-difference")
    full_study(out / "demo-better", seeds=8, gain=0.5, trials=32, near_chance_task=True)
    paper_study(out / "paper")
    full_study(out / "deep-model", num_layers=32, score=["facts.margin"], near_chance_task=True, trials=40)
    running = Writer(out / "still-running")
    running.study(state="running")
    running.trial(0, TFT, 0.1)
    running.trial(1, TOP, 0.2, outcome="running", fraction=0.5)
    for folder in sorted(out.iterdir()):
        print(build_report(folder)["verdict"])


if __name__ == "__main__":
    _write_examples(Path(sys.argv[1]))
