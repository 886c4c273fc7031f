"""The image: its versions are the tested ones, what is copied is all it needs, its hook stops drivers cleanly."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.clusters.rules import STOP_SECONDS, pinned

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "clusters" / "image"
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
COPIES = [line.split()[1:] for line in DOCKERFILE.splitlines() if line.startswith("COPY ")]
SOURCES = [word for words in COPIES for word in words[:-1] if not word.startswith("--")]
HOOK = FOLDER / "stop-drivers.sh"

DRIVER = """
import signal, sys, time
def end(*_):
    time.sleep(0.5)
    sys.exit(3)
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
while True:
    time.sleep(1)
"""


def test_it_is_rays_own_image_of_the_tested_version() -> None:
    assert re.findall(r"^FROM (\S+)$", DOCKERFILE, re.MULTILINE) == ["rayproject/ray:${RAY_VERSION}-py311-cpu"]
    assert re.findall(r"^ARG RAY_VERSION=(\S+)$", DOCKERFILE, re.MULTILINE) == [pinned("ray")]
    assert "--constraint /opt/dft-search/constraints.txt" in DOCKERFILE


def test_it_does_not_run_as_root_and_holds_no_secret() -> None:
    users = re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE)
    assert users[-1] == "1000:100"  # a name would fail Kubernetes' runAsNonRoot
    assert not re.search(r"(?i)token|password|secret", DOCKERFILE)


def test_what_is_copied_exists_and_nothing_else_enters_the_build() -> None:
    assert all((ROOT / source).exists() for source in SOURCES)
    ignore = [line for line in (FOLDER / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] != "#"]
    assert ignore[0] == "*" and {line[1:] for line in ignore if line.startswith("!")} == set(SOURCES)


def test_the_package_can_be_built_from_what_is_copied(tmp_path: Path) -> None:
    for source in SOURCES:
        place = tmp_path / "context" / source
        place.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / source, place)
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path / "dist")]
    done = subprocess.run(build, cwd=tmp_path / "context", capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "dist").glob("dft_search-*.whl"))) == 1


def _driver(folder: Path, home: Path, *words: str) -> subprocess.Popen:
    """A process whose command line is that of a driver."""
    script = folder / "dft-search"
    script.write_text(DRIVER)
    environment = {**os.environ, "DFT_SEARCH_HOME": str(home)}
    command = [sys.executable, str(script), *words]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def _stop(home: Path, **variables: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "DFT_SEARCH_HOME": str(home), **variables}
    return subprocess.run([str(HOOK)], env=environment, capture_output=True, text=True, timeout=60)


def test_the_hook_waits_for_the_drivers_of_its_home_and_leaves_all_others_alone(tmp_path: Path) -> None:
    home = tmp_path / "home"
    ours = [_driver(tmp_path, home, verb, "file") for verb in ("search", "resume", "train")]
    others = [_driver(tmp_path, tmp_path / "other", "search", "file"), _driver(tmp_path, home, "status", "name")]
    try:
        done = _stop(home)
        assert done.returncode == 0, done.stderr
        assert sorted(re.findall(r"process (\d+) is asked", done.stdout)) == sorted(str(each.pid) for each in ours)
        assert [each.wait(timeout=10) for each in ours] == [3, 3, 3]
        assert [each.poll() for each in others] == [None, None]
    finally:
        for each in (*ours, *others):
            each.kill()
            each.communicate()


def test_the_hook_says_who_does_not_end(tmp_path: Path) -> None:
    driver = _driver(tmp_path, tmp_path / "home", "search", "file")
    driver.send_signal(signal.SIGSTOP)  # deaf
    try:
        began = time.monotonic()
        done = _stop(tmp_path / "home", STOP_SECONDS="1")
        assert done.returncode == 1 and f"process {driver.pid} has not ended in time" in done.stderr
        assert time.monotonic() - began < 30
    finally:
        driver.kill()
        driver.communicate()


def test_the_hook_wants_to_know_the_home(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "DFT_SEARCH_HOME"}
    done = subprocess.run([str(HOOK)], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "DFT_SEARCH_HOME is not set" in done.stderr


def test_the_hook_lies_where_the_manifests_look_and_waits_as_long_as_they_count_on() -> None:
    assert "COPY --chmod=0755 clusters/image/stop-drivers.sh /usr/local/bin/stop-drivers" in DOCKERFILE
    assert f"${{STOP_SECONDS:-{STOP_SECONDS}}}" in HOOK.read_text()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_docker_builds_it() -> None:
    if shutil.which("docker") is None or subprocess.run(["docker", "info"], capture_output=True).returncode:
        pytest.skip("needs docker with a running engine")
    command = ["docker", "build", "--quiet", "--file", str(FOLDER / "Dockerfile"), str(ROOT)]
    image = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    run = ["docker", "run", "--rm", image, "dft-search", "--help"]
    assert "search" in subprocess.run(run, check=True, capture_output=True, text=True).stdout
