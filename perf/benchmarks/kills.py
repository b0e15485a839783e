"""SIGKILL of one random rank at a random moment, many times: the job ends, goes on, and no trace is left.

    python perf/benchmark.py kills [--kills 20] [--ranks 2] [--seed 1] [--full-disks 5] [--output FILE]

Each time a simulation of classical spins with noise is started on several ranks, under mpiexec and torchrun in turn.
One of its processes is killed at a moment drawn uniformly from the life of an undisturbed run, the start of Python and
of MPI included. All processes must be gone within ten seconds. The same command then goes on where the newest
checkpoint stands, and every dataset of its trajectory must have the bytes of an undisturbed run's under mpiexec.

With --full-disks it is one campaign of labels, on a disk of its own (root only: an ext2 image, which takes no room in
advance). In random order a rank is killed, or another file takes all the room that is left; the command must then end
with one line and no file under the real name. It goes on when there is room, and the label file must end with all the
bytes of an undisturbed one.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import h5py
import numpy as np
from shared import RESULTS, parser_of

from hpcspin.lattice import make_lattice, make_texture
from hpcspin.storage import partial_path, provenance, write_json

STEPS, STEP, CHECKPOINT_INTERVAL, RECORD_INTERVAL = 1600, 0.05, 40, 5
CONFIG = f"""
lattice: {{kind: square, size: [40, 32], periodic: [false, true]}}
initial: {{kind: random}}
dynamics: {{field: classical, classical: {{heisenberg: 1.0, anisotropy: 0.1}}, damping: 0.1, temperature: 0.05,
           step: {STEP}, duration: {STEPS * STEP}, seed: 1, record_interval: {RECORD_INTERVAL},
           checkpoint_interval: {CHECKPOINT_INTERVAL}}}
device: cpu
"""
LABELS = """
lattice: {kind: square, size: [12, 6], periodic: [false, true]}
electrons:
  exchange: 3.8
  temperature: 0.05
  tolerance: 1.0e-6
  solver: negf
  reservoirs:
    - {name: left,  sites: left,  width: 1.0,  potential: -3.2}
    - {name: right, sites: right, width: 1.0,  potential: 0.0}
    - {name: bath,  sites: all,   width: 0.02, potential: 0.0}
device: cpu
"""
START_SECONDS = 4.0
LABELS_AN_EVENT = 100
"""More than ranks of one core make in the seconds before they are disturbed: all events must find work to do."""
LIMIT_SECONDS, PATIENCE_SECONDS = 10.0, 300.0


def launchers(ranks: int) -> dict[str, list[str]]:
    """How the ranks are started."""
    mpiexec = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if mpiexec is None:
        sys.exit("no mpiexec on this machine; pip install 'hpcspin[mpi]' brings one")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    return {"mpiexec": [mpiexec, "-n", str(ranks), sys.executable], "torchrun": torchrun}


def start(
    launcher: list[str], config: Path, output: Path, spins: Path | None = None, log: Any = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Begin a simulation, or labels of spins, or go on with it."""
    verb = ["simulate", str(config)] if spins is None else ["label", str(config), "--spins", str(spins)]
    command = [*launcher, "-m", "hpcspin", *verb, "--output", str(output)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=log)


def ranks_of(directory: Path) -> list[int]:
    """Processes that simulate into a directory, their launcher not among them."""
    results = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        launches = "torch.distributed.run" in words or any(Path(word).name.startswith("mpiexec") for word in words)
        if str(directory) in words and "hpcspin" in words and Path(words[0]).name.startswith("python") and not launches:
            results.append(int(entry.name))
    return sorted(results)


def wait_until(condition: Callable[[], bool], seconds: float) -> float:
    """Seconds until a condition holds, at most those given."""
    start_time = time.monotonic()
    while not condition() and time.monotonic() - start_time < seconds:
        time.sleep(0.005)
    return time.monotonic() - start_time


def contents(path: Path) -> dict[str, bytes]:
    """The bytes of every dataset of a file."""
    with h5py.File(path) as file:
        return {name: dataset[...].tobytes() for name, dataset in file.items()}


def differences(first: Path, second: Path) -> list[str]:
    """Datasets and attributes in which two files differ."""
    results, other = contents(first), contents(second)
    with h5py.File(first) as one, h5py.File(second) as two:
        attributes = [
            f"{name}: {one.attrs[name]} {two.attrs[name]}" for name in one.attrs if one.attrs[name] != two.attrs[name]
        ]
    return [name for name in results if results[name] != other[name]] + attributes


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


def life(launcher: list[str], config: Path, output: Path, spins: Path | None = None) -> float:
    """Seconds that the ranks of an undisturbed run live."""
    job = start(launcher, config, output, spins)
    wait_until(lambda: bool(ranks_of(output)), PATIENCE_SECONDS)
    seconds = wait_until(lambda: job.poll() is not None, PATIENCE_SECONDS)
    if job.wait() != 0:
        sys.exit(f"the undisturbed run failed: {' '.join(launcher)} -m hpcspin")
    return seconds


@contextmanager
def disk_of_its_own(folder: Path, size: int) -> Iterator[Path]:
    """A file system of so many bytes that takes no room in advance."""
    image, place = folder / "disk.image", folder / "disk"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.ext2", "-q", "-m", "0", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def fill(path: Path) -> None:
    """Take all the room of a disk."""
    with path.open("wb", buffering=0) as file:
        for block in (65536, 1024):
            with suppress(OSError):
                while file.write(bytes(block)):
                    pass


def labelled(output: Path) -> int:
    """Labels that count."""
    path = partial_path(output)
    if not path.exists():
        return 0
    with h5py.File(path) as file:
        return int(np.isfinite(file["error"][...]).sum())


def disturb(
    event: str, launcher: list[str], config: Path, spins: Path, output: Path, moment: float, random: Random
) -> dict[str, Any]:
    """Go on with the labels, and kill a rank or fill the disk; what was seen.

    A moment of zero or more counts from the first new label, a negative one from START_SECONDS before it would come.
    """
    ranks, filler = int(launcher[2] if "-n" in launcher else launcher[-1]), output.with_name("filler")
    with tempfile.TemporaryFile() as log:
        job = start(launcher, config, output, spins, log)
        wait_until(lambda: len(ranks_of(output)) == ranks or job.poll() is not None, PATIENCE_SECONDS)
        before = labelled(output)
        if moment >= 0:
            wait_until(lambda: labelled(output) > before or job.poll() is not None, PATIENCE_SECONDS)
        time.sleep(moment % START_SECONDS)
        alive = ranks_of(output)
        if job.poll() is not None or len(alive) < ranks:
            sys.exit(f"the labels ended before the moment, with code {job.wait()}")
        if event == "kill":
            os.kill(random.choice(alive), signal.SIGKILL)
        else:
            fill(filler)
        seconds = wait_until(lambda: job.poll() is not None and not ranks_of(output), PATIENCE_SECONDS)
        filler.unlink(missing_ok=True)
        log.seek(0)
        lines = log.read().decode().splitlines()
    messages = [line for line in lines if line.startswith("hpcspin: ")]
    noise = any("Exception ignored" in line or "Segmentation" in line for line in lines)
    clean = event == "kill" or (len(messages) == 1 and "No space left on device" in messages[0] and not noise)
    return {
        "event": event,
        "moment_seconds": moment,
        "labels_before": before,
        "seconds_to_the_end": seconds,
        "exit_code": job.wait(),
        "labels": labelled(output),
        "told": [line.replace(str(output.parent), "disk") for line in messages],
        "in_order": clean and job.returncode != 0 and not output.exists(),
    }


def campaign(kills: int, full_disks: int, ranks: int, seed: int, folder: Path) -> dict[str, Any]:
    """One file of labels through all events."""
    config, spins = folder / "labels.yaml", folder / "spins.h5"
    config.write_text(LABELS)
    snapshots = LABELS_AN_EVENT * (kills + full_disks)
    lattice = make_lattice("square", (12, 6))
    with h5py.File(spins, "w") as file:
        file["spins"] = np.stack([make_texture("random", lattice, number) for number in range(snapshots)])
    random, commands = Random(seed), launchers(ranks)
    lives = {
        name: life(launcher, config, folder / f"undisturbed-{name}.h5", spins) for name, launcher in commands.items()
    }
    expected = (folder / "undisturbed-mpiexec.h5").read_bytes()
    events = ["kill"] * kills + ["full disk"] * full_disks
    random.shuffle(events)
    results = []
    with disk_of_its_own(folder, 4 * len(expected) + 2**20) as disk:
        output = disk / "labels.h5"
        for number, event in enumerate(events):
            name = list(commands)[number % len(commands)]
            moment = random.uniform(-START_SECONDS, START_SECONDS) / 2
            results.append({"launcher": name, **disturb(event, commands[name], config, spins, output, moment, random)})
            print(json.dumps(results[-1]), flush=True)
        again = start(commands["mpiexec"], config, output, spins).wait()
        same = again == 0 and output.read_bytes() == expected
        differing = [] if same or again else differences(output, folder / "undisturbed-mpiexec.h5")
        left = sorted(path.name for path in disk.iterdir() if path.name != "lost+found")
    return {
        "ranks": ranks,
        "seed": seed,
        "snapshots": snapshots,
        "undisturbed_seconds": lives,
        "events": results,
        "summary": {
            "kills": kills,
            "full_disks": full_disks,
            "in_order": sum(one["in_order"] for one in results),
            "same_bytes_as_undisturbed": same,
            "differing": differing,
            "files_left": left,
        },
    }


def measure(kills: int, ranks: int, seed: int, folder: Path) -> dict[str, Any]:
    """All kills, each followed by a restart and a comparison."""
    config = folder / "config.yaml"
    config.write_text(CONFIG)
    random, commands = Random(seed), launchers(ranks)
    lives = {name: life(launcher, config, folder / f"undisturbed-{name}") for name, launcher in commands.items()}
    expected = contents(folder / "undisturbed-mpiexec" / "trajectory.h5")
    results: list[dict[str, Any]] = []
    while len(results) < kills:
        name = list(commands)[len(results) % len(commands)]
        directory = folder / "run"
        seen = kill_once(commands[name], config, directory, random.uniform(0, lives[name]), random)
        if seen.pop("killed"):
            again = start(commands[name], config, directory).wait()
            same = again == 0 and contents(directory / "trajectory.h5") == expected
            results.append({"launcher": name, **seen, "restart_exit_code": again, "same_bytes": same})
            print(json.dumps(results[-1]), flush=True)
        shutil.rmtree(directory)
    return {
        "ranks": ranks,
        "seed": seed,
        "steps": STEPS,
        "checkpoint_interval": CHECKPOINT_INTERVAL,
        "undisturbed_seconds": lives,
        "kills": results,
        "summary": summary(results),
    }


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """What has to hold for all kills."""
    return {
        "kills": len(results),
        "before_the_first_checkpoint": sum(kill["checkpoint_step"] == 0 for kill in results),
        "longest_seconds_to_the_end": max(kill["seconds_to_the_end"] for kill in results),
        "most_steps_lost": max(kill["steps_lost"] for kill in results),
        "ended_in_time": sum(
            kill["seconds_to_the_end"] <= LIMIT_SECONDS and kill["exit_code"] != 0 for kill in results
        ),
        "continued_to_the_same_bytes": sum(kill["same_bytes"] for kill in results),
    }


def main() -> None:
    """Enter from the command line; fails unless every job ended in time and continued to the same bytes."""
    parser = parser_of(__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--full-disks", type=int, default=0)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    kills, full, ranks, seed = arguments.kills, arguments.full_disks, arguments.ranks, arguments.seed
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results = campaign(kills, full, ranks, seed, folder) if full else measure(kills, ranks, seed, folder)
    output = arguments.output or RESULTS / ("full_disks.json" if full else "kills.json")
    write_json(output, {"load_before": load, "provenance": provenance(), **results})
    totals = results["summary"]
    print(json.dumps(totals, indent=2))
    if full:
        sys.exit(not (totals["in_order"] == kills + full and totals["same_bytes_as_undisturbed"]))
    sys.exit(not totals["kills"] == totals["ended_in_time"] == totals["continued_to_the_same_bytes"])


if __name__ == "__main__":
    main()
