"""The SLURM scripts with stand-ins for SLURM's commands and for the program."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "launch" / "slurm" / "train.sbatch"

STAND_INS = {
    "srun": 'shift; exec "$@"',
    "scontrol": 'if [ "$1" = show ]; then echo node1; else echo "$@" >>calls; fi',
    # As torchrun does, it tells 1 whatever exit code its ranks had.
    "torchrun": """
touch begun
for _ in $(seq 100); do
  [ -e out/STOP ] && { rm out/STOP; exit 1; }
  [ -e finish ] && exit "$(cat finish)"
  sleep 0.05
done
""",
}


@pytest.fixture
def job(tmp_path: Path) -> subprocess.Popen[bytes]:
    commands = tmp_path / ".venv" / "bin"
    commands.mkdir(parents=True)
    (commands / "activate").touch()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "STOP").touch()  # of a job that has ended otherwise
    for name, text in STAND_INS.items():
        (commands / name).write_text(f"#!/usr/bin/env bash\n{text}")
        (commands / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        "SLURM_JOB_ID": "7",
        "SLURM_NNODES": "1",
        "SLURM_JOB_NODELIST": "node1",
    }
    job = subprocess.Popen(["bash", str(SCRIPT), "config.yaml", "data", "out"], cwd=tmp_path, env=environment)
    while not (tmp_path / "begun").exists():
        time.sleep(0.01)
    return job


def test_a_training_before_its_time_limit_is_stopped_with_a_checkpoint_and_requeued(
    job: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    job.send_signal(signal.SIGUSR1)
    assert job.wait(20) == 1
    assert (tmp_path / "calls").read_text() == "requeue 7\n"


@pytest.mark.parametrize("code", [0, 1])
def test_a_training_that_ends_by_itself_is_not_requeued(
    job: subprocess.Popen[bytes], tmp_path: Path, code: int
) -> None:
    (tmp_path / "finish.new").write_text(str(code))
    (tmp_path / "finish.new").rename(tmp_path / "finish")
    assert job.wait(20) == code
    assert not (tmp_path / "calls").exists()


def test_an_element_of_an_array_runs_its_share_and_is_requeued_alone(tmp_path: Path) -> None:
    commands = tmp_path / ".venv" / "bin"
    commands.mkdir(parents=True)
    (commands / "activate").touch()
    for name, text in {**STAND_INS, "hpcspin": 'echo "$@" >given; exit 75'}.items():
        (commands / name).write_text(f"#!/usr/bin/env bash\n{text}")
        (commands / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        "SLURM_CPUS_PER_TASK": "1",
        "SLURM_ARRAY_JOB_ID": "7",
        "SLURM_ARRAY_TASK_ID": "3",
        "SLURM_ARRAY_TASK_COUNT": "16",
    }
    command = ["bash", str(SCRIPT.with_name("sweep.sbatch")), "c.yaml", "out", "--run", "simulate", "--vary", "a=1,2"]
    assert subprocess.run(command, cwd=tmp_path, env=environment, check=False).returncode == 75
    assert (tmp_path / "given").read_text() == "sweep c.yaml --output out --task 3/16 --run simulate --vary a=1,2\n"
    assert (tmp_path / "calls").read_text() == "requeue 7_3\n"
