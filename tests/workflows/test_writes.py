"""Every verb on a disk that is full, and every verb beside another run."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest

from hpcspin.config import load_config
from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice, make_texture
from hpcspin.parallel.world import World
from hpcspin.storage import OutputLock
from hpcspin.workflows.evaluate import evaluate_files
from hpcspin.workflows.export import export
from hpcspin.workflows.label import label_file
from hpcspin.workflows.learn import learn_directory
from hpcspin.workflows.report import report_directory
from hpcspin.workflows.reproduce import reproduce_directory
from hpcspin.workflows.simulate import simulate_directory
from hpcspin.workflows.sweep import Sweep, sweep_directory
from hpcspin.workflows.train import train_directory

Verbs = dict[str, Callable[[Path], object]]
Cli = Callable[..., subprocess.CompletedProcess[str]]
CLASSICAL = """
lattice: {kind: square, size: [24, 16], periodic: [false, true]}
initial: {kind: ferromagnet, tilt: 0.1}
dynamics: {field: classical, classical: {heisenberg: 1.0}, damping: 0.2, temperature: 0.05, step: 0.02, duration: 0.4,
           seed: 1, record_interval: 1, checkpoint_interval: 5}
device: cpu
"""
SHORT = ("training.epochs=2", "potential.hidden=[4]", "dynamics.duration=1.2")
LEARNING = """
learning:
  initial: [{kind: wall, position: 3, tilt: 0.2}]
  rounds: 1
  trajectories: 2
  labels: 2
  selection: time
"""


@contextmanager
def limit(size: int) -> Iterator[None]:
    """No file may become larger: writes then fail with EFBIG, as on a file system of small files."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def verbs(tiny: str, tmp_path_factory: pytest.TempPathFactory) -> Verbs:
    """What each verb does with a directory for its output."""
    root = tmp_path_factory.mktemp("inputs")
    config, spins = root / "tiny.yaml", root / "spins.h5"
    config.write_text(tiny + LEARNING)
    (root / "classical.yaml").write_text(CLASSICAL)
    loaded, classical = load_config(config, SHORT), load_config(root / "classical.yaml")
    lattice = make_lattice("square", (6, 4))
    with h5py.File(spins, "w") as file:
        file["spins"] = np.stack([make_texture("wall", lattice, seed, position=3, tilt=0.3) for seed in range(5)])
    data = [root / "data"]
    for name in ("a.h5", "b.h5"):
        label_file(loaded, spins, data[0] / name, World())
    train_directory(loaded, data, root / "model", World())
    model, labels = root / "model" / "model.safetensors", data[0] / "a.h5"
    judged = [*SHORT, "training.validation=[b.h5]"]
    return {
        "label": lambda out: label_file(loaded, spins, out / "out.h5", World()),
        "simulate": lambda out: simulate_directory(classical, out, World()),
        "train": lambda out: train_directory(loaded, data, out, World()),
        "sweep": lambda out: sweep_directory(Sweep(config, ["training.seed=1,2"], out, judged, data=data), World()),
        "learn": lambda out: learn_directory(loaded, out, World()),
        "reproduce": lambda out: reproduce_directory(loaded, out, World()),
        "evaluate": lambda out: evaluate_files(model, labels, out / "out.json", World()),
        "ovf": lambda out: export(labels, "ovf", out, World()),
        "xdmf": lambda out: export(labels, "xdmf", out / "out.xdmf", World()),
    }


LOCKED = {"label": "out.h5", "evaluate": "out.json", "xdmf": "out.xdmf"}
"""Verbs whose output is a file."""
_TIMES = ("metrics.jsonl", "rank_times.json", "stages.json", "numbers.json", "checkpoint.h5", "checkpoint.previous.h5")
"""Files that hold seconds."""


def contents(directory: Path) -> dict[str, bytes]:
    """Bytes of all files that are the same in every run."""
    files = [path for path in directory.rglob("*") if path.is_file() and path.name not in (*_TIMES, "jobs.jsonl")]
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def failure_of(work: Callable[[Path], object], output: Path) -> str:
    """The message of a command that fails; empty if it succeeds."""
    try:
        work(output)
    except HpcspinError as failure:
        return str(failure)
    return ""


@pytest.mark.parametrize("verb", ["label", "simulate", "train", "learn", "evaluate", "ovf", "xdmf"])
def test_a_verb_that_finds_no_room_goes_on_when_there_is_some(verb: str, verbs: Verbs, tmp_path: Path) -> None:
    out = tmp_path / "out"  # The same one for both runs: files tell where models lie.
    out.mkdir()
    verbs[verb](out)
    expected = contents(out)
    sizes = sorted({path.stat().st_size for path in out.rglob("*") if path.is_file()})
    shutil.rmtree(out)
    out.mkdir()
    failed = 0
    for size in [400, *sizes]:
        with limit(size - 1):
            message = failure_of(verbs[verb], out)
        failed += message != ""
        assert re.fullmatch(r"([^\n]*: File too large; [^\n]* the same command goes on)?", message)
        found = contents(out)
        whole = {name for name, content in found.items() if content == expected.get(name)}
        # The manifest of a round is extended in the next one.
        assert {name for name in found if not name.endswith(".partial")} - whole <= {"data/manifest.json"}
    assert failed >= 2
    verbs[verb](out)
    assert contents(out) == expected


def test_every_verb_that_writes_is_refused_beside_another_run(verbs: Verbs, tmp_path: Path) -> None:
    for verb, work in verbs.items():
        out = tmp_path / verb
        out.mkdir()
        lock = OutputLock(out / LOCKED[verb] if verb in LOCKED else out, lambda message: None)
        lock.acquire()
        before = sorted(out.iterdir())
        assert "another run writes there" in failure_of(work, out)
        assert sorted(out.iterdir()) == before
        lock.release()


def test_a_report_is_refused_beside_another_run(config: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(load_config(config).as_json())
    lock = OutputLock(tmp_path, lambda message: None)
    lock.acquire()
    with pytest.raises(HpcspinError, match="another run writes there"):
        report_directory(tmp_path, World())
    lock.release()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 100 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a file system of its own")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_ends_a_command_in_one_line(hpcspin: Cli, small_disk: Path, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(CLASSICAL)
    full = hpcspin("simulate", tmp_path / "c.yaml", "--output", small_disk / "run")
    assert full.returncode == 1, full.stderr
    assert re.fullmatch(r"hpcspin: \S+/run/trajectory.h5.partial: No space left on device; [^\n]*\n", full.stderr)
    assert not (small_disk / "run" / "trajectory.h5").exists()
    subprocess.run(["mount", "-o", "remount,size=10m", str(small_disk)], check=True)
    done = hpcspin("simulate", tmp_path / "c.yaml", "--output", small_disk / "run")
    assert done.returncode == 0, done.stderr
    simulate_directory(load_config(tmp_path / "c.yaml"), tmp_path / "undisturbed", World())
    assert (small_disk / "run/trajectory.h5").read_bytes() == (tmp_path / "undisturbed/trajectory.h5").read_bytes()


@pytest.mark.mpi
def test_a_full_disk_ends_all_ranks_in_one_line(
    mpirun: Callable[..., subprocess.CompletedProcess[str]], small_disk: Path, tmp_path: Path
) -> None:
    (tmp_path / "c.yaml").write_text(CLASSICAL)
    arguments = ("-m", "hpcspin", "simulate", str(tmp_path / "c.yaml"), "--output", str(small_disk / "run"))
    full = mpirun(2, *arguments, timeout=60)
    assert full.returncode != 0
    told = [line for line in full.stderr.splitlines() if line.startswith("hpcspin: ")]
    assert len(told) == 1
    assert "rank 0" in told[0]
    assert "No space left on device" in told[0]
    assert "Traceback" not in full.stderr


def start(config: Path, directory: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "hpcspin", "simulate", str(config), "--output", str(directory)]
    longer = ("dynamics.duration=400", "dynamics.record_interval=100")
    return subprocess.Popen([*command, *longer], stderr=subprocess.PIPE, text=True)


def stamp(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def test_of_two_commands_one_is_refused_and_75_and_a_kill_make_way_for_the_next(tmp_path: Path) -> None:
    config, run = tmp_path / "c.yaml", tmp_path / "run"
    config.write_text(CLASSICAL)
    for end, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 75)):
        before = stamp(run / "checkpoint.h5")
        first = start(config, run)
        while stamp(run / "checkpoint.h5") == before:
            assert first.poll() is None
            time.sleep(0.02)
        refused = failure_of(lambda directory: simulate_directory(load_config(config), directory, World()), run)
        assert re.fullmatch(rf"{run}: another run writes there, process {first.pid} on [^\n]*", refused)
        first.send_signal(end)
        first.communicate(timeout=300)
        assert first.returncode == code
        assert (run / ".lock").exists() == (end == signal.SIGKILL)
