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
    # Two tasks of a program, of which the second takes longer to end; a signal counts more than an exit code.
    "srun": """
echo "${SRUN_CPUS_PER_TASK:-1}" >>cores
while [[ $1 == --* ]]; do
  [ "$1" = --kill-on-bad-exit=1 ] && killing=1
  shift
done
[ "$1" = torchrun ] && exec "$@"
"$@"
code=$?
sleep 0.3 &
[ "$code" -ne 0 ] && [ "${killing:-0}" -eq 1 ] && kill $!
wait $! || exit
exit "$code"
""",
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
        "SLURM_CPUS_PER_TASK": "32",
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
    assert (tmp_path / "cores").read_text() == "32\n"


@pytest.mark.parametrize(
    ("script", "arguments", "given", "requeued"),
    [
        (
            "sweep",
            ["c.yaml", "out", "--run", "simulate", "--vary", "a=1,2"],
            "sweep c.yaml --output out --task 3/16 --run simulate --vary a=1,2",
            "7_3",  # The element alone.
        ),
        ("simulate", ["c.yaml", "out", "a=1"], "simulate c.yaml --output out a=1", "7"),
        ("reproduce", ["c.yaml", "out", "a=1"], "reproduce c.yaml --output out a=1", "7"),
    ],
)
def test_a_job_that_stops_with_a_checkpoint_is_requeued_and_its_ranks_have_their_cores(
    tmp_path: Path, script: str, arguments: list[str], given: str, requeued: str
) -> None:
    assert submit(tmp_path, script, arguments).returncode == 75
    assert (tmp_path / "given").read_text() == f"{given}\n"
    assert (tmp_path / "calls").read_text() == f"requeue {requeued}\n"
    assert (tmp_path / "cores").read_text() == "6\n"


@pytest.mark.parametrize(
    ("element", "first", "last", "task"),
    [(0, 0, 15, "1/16"), (15, 0, 15, "16/16"), (16, 1, 16, "16/16"), (5, 0, 30, None)],
)
def test_the_elements_of_an_array_have_all_shares_wherever_their_count_begins(
    tmp_path: Path, element: int, first: int, last: int, task: str | None
) -> None:
    """From 0 the first one was refused, and its share never run; those of an array with gaps are unknown."""
    done = submit(tmp_path, "sweep", ["c.yaml", "out"], element, first, last)
    if task is None:
        assert done.returncode == 1
        assert "the array has gaps" in done.stderr
    else:
        assert (tmp_path / "given").read_text() == f"sweep c.yaml --output out --task {task}\n"


def submit(
    folder: Path, script: str, arguments: list[str], element: int = 3, first: int = 1, last: int = 16
) -> subprocess.CompletedProcess[str]:
    """Run a batch script as element of an array of 16, with a program that stops with a checkpoint."""
    commands = folder / ".venv" / "bin"
    commands.mkdir(parents=True)
    (commands / "activate").touch()
    for name, text in {**STAND_INS, "hpcspin": 'echo "$@" >given; exit 75'}.items():
        (commands / name).write_text(f"#!/usr/bin/env bash\n{text}")
        (commands / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        "SLURM_CPUS_PER_TASK": "6",
        "SLURM_JOB_ID": "7",
        "SLURM_ARRAY_JOB_ID": "7",
        "SLURM_ARRAY_TASK_ID": str(element),
        "SLURM_ARRAY_TASK_MIN": str(first),
        "SLURM_ARRAY_TASK_MAX": str(last),
        "SLURM_ARRAY_TASK_COUNT": "16",
    }
    command = ["bash", str(SCRIPT.with_name(f"{script}.sbatch")), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
