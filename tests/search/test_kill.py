"""Kill matrix: whatever is killed, and when, the study ends as if nothing had been. Real processes on one Ray head."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from dft_search.search.study_folder import StudyFolder
from tests.launch.test_submit import running_head
from tests.postgres import running_postgres
from tests.s3 import ENVIRONMENT, running_s3
from tests.search.disturbed import (
    Study,
    between_trials,
    first_steps,
    in_confirmation,
    is_as_if_undisturbed,
    processes,
    second_rung,
    third_trial,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def head() -> Iterator[object]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():  # workers upload with these
            patch.setenv(name, value)
        with running_head("disabled") as head:
            yield head


@pytest.fixture(scope="module")
def address(head) -> str:
    return head.gcs


@pytest.fixture
def study(undisturbed: Study, address: str, tmp_path: Path) -> Study:
    """The same study in a home of its own, not begun."""
    return Study(undisturbed.file, tmp_path / "home", address)


def nothing_is_running(folder: StudyFolder, database: str | None = None) -> bool:
    journal = optuna.storages.journal.JournalFileBackend(str(folder.journal))
    storage = database or optuna.storages.JournalStorage(journal)
    studies = [optuna.load_study(study_name=name, storage=storage) for name in optuna.get_all_study_names(storage)]
    return not {trial.state.name for study in studies for trial in study.trials} & {"RUNNING", "WAITING"}


def test_kill_9_of_the_driver_at_three_moments(study, undisturbed):
    for moment in (first_steps, between_trials, in_confirmation):
        with study.driven() as driver:
            driver.wait_for(moment)
            assert driver.kill() == -signal.SIGKILL
        before = {n: record for n, record in study.records().items() if record.outcome == "completed"}
        assert study.folder.lock.holder() is None
    study.finish()
    after = study.records()
    assert len(before) >= 2 and all(after[n] == record for n, record in before.items())
    is_as_if_undisturbed(study, undisturbed)
    assert nothing_is_running(study.folder)


def test_sigterm_and_ctrl_c_stop_at_the_next_step(study, undisturbed):
    with study.driven() as driver:
        driver.wait_for(first_steps)
        assert driver.kill(signal.SIGTERM) == 3
    assert study.records()[0].outcome == "interrupted"
    with study.driven() as driver:
        driver.wait_for(second_rung)
        os.killpg(driver.process.pid, signal.SIGINT)
        driver.wait_for(lambda _: "Stopping: " in driver.said())  # two at once would be one to the system
        assert driver.kill(signal.SIGINT) == 3
        assert driver.said().count("Stopping: ") == 1 and "Still stopping, for " in driver.said()
    assert "Traceback" not in driver.said()
    with study.driven() as driver:
        driver.wait_for(in_confirmation)
        assert driver.kill(signal.SIGINT) == 3
    study.finish()
    is_as_if_undisturbed(study, undisturbed)
    assert nothing_is_running(study.folder)


def test_processes_of_a_slot_are_killed_and_the_driver_goes_on(study, undisturbed):
    kills = [
        (first_steps, "ray::RayTrainWorker"),
        (second_rung, "ray::Slot"),
        (third_trial, "ray::TrainController"),
        (in_confirmation, "ray::Slot"),
    ]
    with study.driven() as driver:
        for moment, title in kills:
            driver.wait_for(moment)
            found = processes(title)
            assert found, title
            found[0].kill()
        assert driver.process.wait(timeout=400) == 0, driver.said()
    is_as_if_undisturbed(study, undisturbed)
    assert nothing_is_running(study.folder)


def test_a_full_disk_ends_the_study_and_room_lets_it_go_on(study, undisturbed):
    place = study.home / "studies"
    place.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a small file system")
    try:
        for moment in (first_steps, in_confirmation):
            with study.driven() as driver:
                driver.wait_for(moment)
                fill(place / "ballast")
                assert driver.process.wait(timeout=240) == 1, driver.said()
            assert "Traceback" not in driver.said() and "o space left" in driver.said(), driver.said()
            (place / "ballast").unlink()
        study.finish()
        is_as_if_undisturbed(study, undisturbed)
        assert nothing_is_running(study.folder)
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_postgresql_is_killed_under_a_study(study, undisturbed):
    with running_postgres() as server:
        study.variables["STUDIES"] = server.url.replace("postgresql://", "postgresql+psycopg://")
        options = ("--set", "study.database=${STUDIES}")
        with study.driven(*options) as driver:
            for moment in (first_steps, between_trials, in_confirmation):
                driver.wait_for(moment)
                server.kill()
                time.sleep(4)
                server.start()
            assert driver.process.wait(timeout=400) == 0, driver.said()
        assert "Traceback" not in driver.said()
        is_as_if_undisturbed(study, undisturbed)
        assert nothing_is_running(study.folder, study.variables["STUDIES"])


def test_a_study_goes_on_from_its_url_and_from_a_folder_that_was_moved(study, undisturbed, tmp_path):
    """Three homes, as on three machines; each driver is killed, the record is the same server's."""
    homes = [tmp_path / name for name in ("home", "second", "third")]
    variables = {"MLFLOW_TRACKING_URI": f"sqlite:///{homes[2]}/mlflow.db", **ENVIRONMENT}
    homes[2].mkdir()
    first, second, third = (Study(study.file, home, study.address, variables) for home in homes)
    with running_s3() as server:
        url = server.url("bucket/runs")
        with first.driven("--set", f"study.storage={url}") as driver:
            driver.wait_for(second_rung)
            driver.kill()
        shutil.rmtree(homes[0])
        place, _, query = url.partition("?")
        with second.driven(resume=f"{place}/tiny?{query}") as driver:
            driver.wait_for(in_confirmation)
            driver.kill()
        (homes[2] / "studies").mkdir()
        shutil.move(second.folder.path, homes[2] / "studies" / "tiny")
        third.finish(resume=str(homes[2] / "studies" / "tiny"))
    is_as_if_undisturbed(third, undisturbed, copied=True)
    assert nothing_is_running(third.folder)


def fill(file: Path) -> None:
    """Write until nothing fits any more."""
    with open(file, "wb", buffering=0) as ballast:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    ballast.write(b"x" * size)
            except OSError:
                continue


def test_ray_job_stop(study, undisturbed, head):
    command = ["dft-search", "search", str(study.file), "--resume"]
    variables = json.dumps({"env_vars": {"DFT_SEARCH_HOME": str(study.home)}})
    for moment in (first_steps, in_confirmation):
        job = head.run(
            *("ray", "job", "submit", "--address", head.address, "--no-wait"),
            *("--runtime-env-json", variables, "--", *command),
        )
        assert job.returncode == 0, job.stderr
        name = next(word.strip("'") for word in job.stdout.split() if word.strip("'").startswith("raysubmit_"))
        wait_until(study, moment, head, name)
        stopped = head.run("ray", "job", "stop", "--address", head.address, name)
        assert stopped.returncode == 0, stopped.stderr
    study.finish()
    is_as_if_undisturbed(study, undisturbed)
    assert nothing_is_running(study.folder)


def wait_until(study: Study, moment, head, job: str) -> None:
    deadline = time.monotonic() + 240
    while not moment(study):
        assert time.monotonic() < deadline, head.run("ray", "job", "logs", "--address", head.address, job).stdout
        time.sleep(0.1)
