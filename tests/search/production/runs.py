"""Runs of ``train`` in processes of their own, and what they left: their steps in MLflow, their weights."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mlflow import MlflowClient
from safetensors.torch import load_file

from dft_search.config.document import to_yaml
from tests.search.small import study, write_world

WAIT = 300.0


def write_recipe(folder: Path, steps: int, **changes: Any) -> Path:
    """A file with a recipe of the tiny world, and no study."""
    write_world(folder)
    recipe = study(folder)["recipe"]
    recipe["training"] |= {"length": {"steps": steps}, "micro_batch_rows": 2}
    data = {"name": "tiny-run", "seed": 3, "slots": {"workers": 2, "gpus_per_worker": 0, "cpus_per_worker": 1}}
    path = folder / "run.yaml"
    path.write_text(to_yaml({**data, **changes, "recipe": recipe}))
    return path


@dataclass
class Training:
    """One ``train`` in a home of its own, on the cluster of ``address`` or on a Ray of its own."""

    file: Path
    home: Path
    address: str | None = None
    options: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.home / "models" / "tiny-run"

    @property
    def log(self) -> Path:
        return self.home / "train.log"

    def said(self) -> str:
        return self.log.read_text()

    @contextlib.contextmanager
    def running(self) -> Iterator[subprocess.Popen]:
        """A driver that starts the run or goes on with it."""
        self.home.mkdir(exist_ok=True)
        ray = {"RAY_ADDRESS": self.address} if self.address else {}
        environment = {**os.environ, **ray, "RAY_AUTH_MODE": "disabled", "DFT_SEARCH_HOME": str(self.home)}
        arguments = [sys.executable, "-m", "dft_search", "train", str(self.file)]
        arguments += [text for option in self.options for text in ("--set", option)]
        with (
            open(self.log, "a") as out,
            subprocess.Popen(arguments, env=environment, stdout=out, stderr=out, start_new_session=True) as process,
        ):
            try:
                yield process
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)

    def wait_for(self, process: subprocess.Popen, moment: Callable[[], bool]) -> None:
        """Wait until ``moment`` is true; the driver must live to see it."""
        deadline = time.monotonic() + WAIT
        while not moment():
            assert process.poll() is None and time.monotonic() < deadline, self.said()
            time.sleep(0.05)

    def finish(self) -> None:
        """Run to the end, which must be a good one."""
        with self.running() as process:
            assert process.wait(timeout=WAIT) == 0, self.said()

    def saved(self) -> int:
        """Step of the newest checkpoint, 0 when there is none."""
        names = [path.name for path in (self.folder / "checkpoints").glob("step-*")]
        return max((int(name[5:]) for name in names), default=0)

    def weights(self) -> dict[str, torch.Tensor]:
        return load_file(self.folder / "model" / "model.safetensors")

    def mlflow(self) -> tuple[Any, dict[str, list[tuple[int, float]]]]:
        """The only run of the record, and its metrics by step, doubled ones too."""
        client = MlflowClient(f"sqlite:///{self.home / 'mlflow.db'}")
        experiment = client.get_experiment_by_name("tiny-run-production")
        [run] = client.search_runs([experiment.experiment_id])
        keys = run.data.metrics
        return run, {
            key: sorted((p.step, p.value) for p in client.get_metric_history(run.info.run_id, key)) for key in keys
        }
