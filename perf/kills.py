"""SIGKILL of one random rank at a random moment, many times: the job ends, goes on, and no trace is left.

    python perf/kills.py [--kills 20] [--ranks 2] [--seed 1] [--output perf/results/kills.json]

Each time a simulation of classical spins with noise is started on several ranks, under mpiexec and torchrun in turn.
One of its processes is killed at a moment drawn uniformly from the life of an undisturbed run, the start of Python and
of MPI included. All processes must be gone within ten seconds. The same command then goes on where the newest
checkpoint stands, and every dataset of its trajectory must have the bytes of an undisturbed run's under mpiexec.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import h5py
from shared import RESULTS

from hpcspin.storage import partial_path, provenance

STEPS, STEP, CHECKPOINT_INTERVAL, RECORD_INTERVAL = 1600, 0.05, 40, 5
CONFIG = f"""
lattice: {{kind: square, size: [40, 32], periodic: [false, true]}}
initial: {{kind: random}}
dynamics: {{field: classical, classical: {{heisenberg: 1.0, anisotropy: 0.1}}, damping: 0.1, temperature: 0.05,
           step: {STEP}, duration: {STEPS * STEP}, seed: 1, record_interval: {RECORD_INTERVAL},
           checkpoint_interval: {CHECKPOINT_INTERVAL}}}
device: cpu
"""
LIMIT_SECONDS, PATIENCE_SECONDS = 10.0, 300.0


def launchers(ranks: int) -> dict[str, list[str]]:
    """How the ranks are started."""
    mpiexec = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if mpiexec is None:
        sys.exit("no mpiexec on this machine; pip install 'hpcspin[mpi]' brings one")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    return {"mpiexec": [mpiexec, "-n", str(ranks), sys.executable], "torchrun": torchrun}


def start(launcher: list[str], config: Path, directory: Path) -> subprocess.Popen[bytes]:
    """Begin a run, or go on with it."""
    command = [*launcher, "-m", "hpcspin", "simulate", str(config), "--output", str(directory)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def ranks_of(directory: Path) -> list[int]:
    """Processes that simulate into a directory, their launcher not among them."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        launches = "torch.distributed.run" in words or any(Path(word).name.startswith("mpiexec") for word in words)
        if str(directory) in words and "hpcspin" in words and Path(words[0]).name.startswith("python") and not launches:
            found.append(int(entry.name))
    return sorted(found)


def wait_until(condition: Callable[[], bool], seconds: float) -> float:
    """Seconds until a condition holds, at most those given."""
    begun = time.monotonic()
    while not condition() and time.monotonic() - begun < seconds:
        time.sleep(0.005)
    return time.monotonic() - begun


def contents(path: Path) -> dict[str, bytes]:
    """The bytes of every dataset of a file."""
    with h5py.File(path) as file:
        return {name: dataset[...].tobytes() for name, dataset in file.items()}


def checkpointed_step(directory: Path) -> int:
    """Step from which a restart goes on: 0 without a checkpoint."""
    for name in ("checkpoint.h5", "checkpoint.previous.h5"):
        if (directory / name).exists():
            with h5py.File(directory / name) as file:
                return int(json.loads(bytes(file["meta"][()]))["step"])
    return 0


def recorded_step(directory: Path) -> int:
    """Step of the newest frame that a run which did not finish has written."""
    path = partial_path(directory / "trajectory.h5")
    if not path.exists():
        return 0
    with h5py.File(path) as file:
        return int(max(file["step"][...], default=0))


def kill_once(launcher: list[str], config: Path, directory: Path, moment: float, random: Random) -> dict[str, Any]:
    """Start, kill one rank at the moment, and wait for the end of all; what was seen."""
    ranks = int(launcher[2] if "-n" in launcher else launcher[-1])
    job = start(launcher, config, directory)
    wait_until(lambda: len(ranks_of(directory)) == ranks, PATIENCE_SECONDS)
    time.sleep(moment)
    alive = ranks_of(directory)
    if job.poll() is not None or len(alive) < ranks:
        job.wait()
        return {"killed": False}
    # The order of process ids is the order of starting, which is that of the ranks under both launchers.
    victim = random.randrange(ranks)
    os.kill(alive[victim], signal.SIGKILL)
    seconds = wait_until(lambda: job.poll() is not None and not ranks_of(directory), PATIENCE_SECONDS)
    step = checkpointed_step(directory)
    return {
        "killed": True,
        "rank": victim,
        "moment_seconds": moment,
        "seconds_to_the_end": seconds,
        "exit_code": job.wait(),
        "checkpoint_step": step,
        # Frames are written every few steps, so that this is what was lost, less than one such interval excepted.
        "steps_lost": max(recorded_step(directory) - step, 0),
    }


def life(launcher: list[str], config: Path, directory: Path) -> float:
    """Seconds that the ranks of an undisturbed run live."""
    job = start(launcher, config, directory)
    wait_until(lambda: bool(ranks_of(directory)), PATIENCE_SECONDS)
    seconds = wait_until(lambda: job.poll() is not None, PATIENCE_SECONDS)
    if job.wait() != 0:
        sys.exit(f"the undisturbed run failed: {' '.join(launcher)} -m hpcspin simulate")
    return seconds


def measure(kills: int, ranks: int, seed: int, folder: Path) -> dict[str, Any]:
    """All kills, each followed by a restart and a comparison."""
    config = folder / "config.yaml"
    config.write_text(CONFIG)
    random, known = Random(seed), launchers(ranks)
    lives = {name: life(launcher, config, folder / f"undisturbed-{name}") for name, launcher in known.items()}
    expected = contents(folder / "undisturbed-mpiexec" / "trajectory.h5")
    found: list[dict[str, Any]] = []
    while len(found) < kills:
        name = list(known)[len(found) % len(known)]
        directory = folder / "run"
        seen = kill_once(known[name], config, directory, random.uniform(0, lives[name]), random)
        if seen.pop("killed"):
            again = start(known[name], config, directory).wait()
            same = again == 0 and contents(directory / "trajectory.h5") == expected
            found.append({"launcher": name, **seen, "restart_exit_code": again, "same_bytes": same})
            print(json.dumps(found[-1]), flush=True)
        shutil.rmtree(directory)
    return {
        "ranks": ranks,
        "seed": seed,
        "steps": STEPS,
        "checkpoint_interval": CHECKPOINT_INTERVAL,
        "undisturbed_seconds": lives,
        "kills": found,
        "summary": summary(found),
    }


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """What has to hold for all kills."""
    return {
        "kills": len(found),
        "before_the_first_checkpoint": sum(kill["checkpoint_step"] == 0 for kill in found),
        "longest_seconds_to_the_end": max(kill["seconds_to_the_end"] for kill in found),
        "most_steps_lost": max(kill["steps_lost"] for kill in found),
        "ended_in_time": sum(kill["seconds_to_the_end"] <= LIMIT_SECONDS and kill["exit_code"] != 0 for kill in found),
        "continued_to_the_same_bytes": sum(kill["same_bytes"] for kill in found),
    }


def main() -> None:
    """Enter from the command line; fails unless every job ended in time and continued to the same bytes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS / "kills.json")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        found = measure(arguments.kills, arguments.ranks, arguments.seed, Path(folder))
    arguments.output.write_text(json.dumps({"load_before": load, "provenance": provenance(), **found}, indent=2) + "\n")
    told = found["summary"]
    print(json.dumps(told, indent=2))
    sys.exit(not told["kills"] == told["ended_in_time"] == told["continued_to_the_same_bytes"])


if __name__ == "__main__":
    main()
