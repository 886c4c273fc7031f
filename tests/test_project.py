"""The project's own rules: imports run one way, shipped studies load, the wheel is whole, the environment is honest."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from dft_search.config.shipped import shipped_studies

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_imports_run_one_way() -> None:
    done = subprocess.run([BIN / "lint-imports", "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout


def test_constraints_pin_every_dependency_within_its_range() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line)
    pins = {_normal(name): version for name, version in pins.items()}
    extras = PROJECT["project"]["optional-dependencies"]
    for text in [*PROJECT["project"]["dependencies"], *(text for extra in extras.values() for text in extra)]:
        requirement = Requirement(text)
        name = _normal(requirement.name)
        assert name in pins, f"{name} is not pinned"
        assert requirement.specifier.contains(pins[name]), f"{text}, pinned {pins[name]}"


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.slow
def test_the_wheel_plans_the_quickstart_in_a_bare_environment(tmp_path: Path) -> None:
    """Built, installed without the checkout, and run elsewhere; its dependencies are lent by this environment."""
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"dft_search/search_spaces/{study}.yaml" for study in shipped_studies()} <= set(names)
    for needed in ("demo/base/model.safetensors", "demo/base/tokenizer.json", "evaluation/tasks/suites.yaml"):
        assert f"dft_search/{needed}" in names
    assert not [name for name in names if name.startswith(("tests/", "clusters/")) or "__pycache__" in name]

    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True, timeout=120)
    (packages,) = bare.glob("lib/python*/site-packages")
    pip = [sys.executable, "-m", "pip", "--python", str(bare / "bin" / "python")]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", str(wheel)], check=True, capture_output=True, timeout=300)
    lent = next(path for path in sys.path if path.endswith("site-packages"))
    (packages / "lent.pth").write_text(lent + "\n")
    plan = [bare / "bin" / "python", "-m", "dft_search", "plan", "--offline", "quickstart"]
    done = subprocess.run(plan, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    where = [bare / "bin" / "python", "-c", "import dft_search; print(dft_search.__file__)"]
    assert str(bare) in subprocess.run(where, cwd=tmp_path, capture_output=True, text=True).stdout
