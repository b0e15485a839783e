"""``launch/test.sh`` with stand-ins for Python and pip: what it installs, and what it hands to pytest."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# It has torch, has no torch-scatter until it is installed, and notes what it is asked for.
STAND_IN = """#!/usr/bin/env bash
case "$*" in
  *torch.__version__*) echo torch-9-py399 ;;
  *"wheel --no-build-isolation"*) echo build >>asked; mkdir -p "$(dirname "$KEPT")"; touch "$KEPT" ;;
  *"install --no-deps"*) echo install >>asked; touch installed ;;
  *"import torch_scatter"*) [ -e installed ] ;;
  *pytest*) echo "$@" >>asked ;;
esac
"""


@pytest.mark.parametrize(
    ("kept", "arguments", "asked"),
    [
        (False, [], ["build", "install"]),
        (True, [], ["install"]),
        (False, ["--no-build"], []),
        (True, ["--no-build"], ["install"]),
    ],
)
def test_torch_scatter_is_built_unless_that_is_declined_and_used_where_it_is_kept(
    tmp_path: Path, kept: bool, arguments: list[str], asked: list[str]
) -> None:
    shutil.copytree(ROOT / "launch", tmp_path / "launch")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(STAND_IN)
    python.chmod(0o755)
    wheel = tmp_path / "cache" / "hpcspin" / "wheels" / "torch-9-py399" / "torch_scatter.whl"
    if kept:
        wheel.parent.mkdir(parents=True)
        wheel.touch()
    environment = {**os.environ, "PYTHON": str(python), "XDG_CACHE_HOME": str(tmp_path / "cache"), "KEPT": str(wheel)}
    command = ["bash", str(tmp_path / "launch" / "test.sh"), *arguments, "tests/here.py"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    *installed, tests = (tmp_path / "asked").read_text().splitlines()
    assert installed == asked
    assert tests.endswith("tests/here.py")
    assert "--no-build" not in tests
