"""The wheels for offline machines, with a stand-in for pip."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STAND_IN = """#!/usr/bin/env bash
if [ "$1" = -m ]; then
  printf '%s\\n' "$@" >asked
  while [ "$1" != --dest ]; do shift; done
  head -c "$MEGABYTES"M /dev/zero >"$2/fresh.whl"
else
  exec {python} "$@"
fi
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "launch").mkdir()
    (tmp_path / ".wheels").mkdir()
    (tmp_path / ".wheels" / "old.whl").touch()
    shutil.copy(ROOT / "launch" / "wheels.sh", tmp_path / "launch")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "python").write_text(STAND_IN.format(python=sys.executable))
    (tmp_path / "python").chmod(0o755)
    return tmp_path


def collect(project: Path, megabytes: int, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": "./python", "MEGABYTES": str(megabytes), **settings}
    command = ["bash", str(project / "launch" / "wheels.sh")]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)


def names_of(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w.-]", text)[0].lower() for text in requirements}


def test_every_dependency_is_asked_for_that_the_machine_lacks(project: Path) -> None:
    done = collect(project, 1, PRESENT="torch numpy ruff mypy types-pyyaml")
    assert done.returncode == 0, done.stderr
    with (ROOT / "pyproject.toml").open("rb") as file:
        content = tomllib.load(file)["project"]
    extras = content["optional-dependencies"]
    needed = names_of([*content["dependencies"], *extras["mpi"], *extras["test"]])
    asked = (project / "asked").read_text().splitlines()
    assert names_of(asked) >= needed - {"torch", "numpy", "ruff", "mypy", "types-pyyaml"} > {"pydantic", "mpich"}
    assert not names_of(asked) & {"torch", "numpy", "ruff"}
    assert "--only-binary=:all:" in asked
    assert [path.name for path in (project / ".wheels").iterdir()] == ["fresh.whl"]


def test_too_many_megabytes_leave_the_wheels_as_they_were(project: Path) -> None:
    done = collect(project, 41)
    assert done.returncode == 1
    assert "more than 40" in done.stderr
    assert [path.name for path in project.glob(".wheels*/*")] == ["old.whl"]
