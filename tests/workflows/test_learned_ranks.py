"""A learned trajectory has the same bits on any number of ranks, and after any restart.

Run as a script with a directory, a name and overrides, it simulates every config there on the ranks of its launch.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from hpcspin.config import load_config
from hpcspin.errors import HpcspinError
from hpcspin.parallel.domain import choose_blocks
from hpcspin.parallel.world import World
from hpcspin.potential import Architecture, load_model, make_force_field, save_model
from hpcspin.storage import partial_path
from hpcspin.workflows.simulate import simulate_directory

Launch = Callable[..., subprocess.CompletedProcess[str]]

CONFIG = """
lattice: {{kind: {lattice}, size: {size}, periodic: {periodic}}}
electrons: {electrons}
initial: {{kind: random}}
dynamics: {{field: learned, model: {model}, damping: 0.2, temperature: 0.02, step: 0.2, duration: 2, seed: 3,
           record_interval: 2, checkpoint_interval: 1}}
device: cpu
"""
DRIVEN = """
  reservoirs:
    - {name: left, sites: left, width: 1, potential: -3.2}
    - {name: right, sites: right, width: 1, potential: 0}"""
CASES: dict[str, dict[str, Any]] = {
    "pair": {"kind": "pair", "precision": "float64"},
    "single": {"kind": "pair", "precision": "float32", "periodic": "[true, true]"},
    "overlap": {"kind": "pair", "precision": "float32", "descriptor": "densities", "size": "[24, 16]"},
    "site": {"kind": "site", "precision": "float32"},
    "direct": {"kind": "direct", "precision": "float32"},
    "layers": {
        "kind": "direct",
        "precision": "float32",
        "layers": [1, 2],
        "electrode_range": 3.0,
    },
    "potentials": {
        "kind": "pair",
        "precision": "float32",
        "layers": [1, 2],
        "electrode_range": 3.0,
        "size": "[24, 16]",
    },
    "filling": {
        "kind": "conservative",
        "precision": "float32",
        "layers": [1, 1],
        "time_reversal": "even",
        "drive": "chemical_potential",
        "grand_potential": [-4.5, -3.5, 0.9],
        "size": "[24, 16]",
        "periodic": "[true, true]",
        "electrons": "{filling: 0.9}",
    },
    "stretched": {
        "kind": "direct",
        "precision": "float32",
        "layers": [1, 1, 2, 5],
        "size": "[13, 16]",
    },
    "triangular": {"kind": "pair", "precision": "float32", "lattice": "triangular"},
    "bispectrum": {"kind": "pair", "precision": "float32", "descriptor": "bispectrum", "size": "[24, 16]"},
    "electrodes": {"kind": "pair", "precision": "float32", "descriptor": "densities", "electrode_range": 3.0},
    "densities": {"kind": "pair", "precision": "float32", "descriptor": "densities", "periodic": "[true, false]"},
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As the ranks do: on busy cores two threads wait for each other longer than they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def write_case(directory: Path, case: str) -> Path:
    """A force field with random weights, large enough to move the spins, and the config that runs it."""
    settings = {"lattice": "square", **CASES[case]}
    periodic, size = settings.pop("periodic", "[false, true]"), settings.pop("size", "[13, 10]")
    electrons = settings.pop("electrons", DRIVEN)
    torch.manual_seed(1)
    model = make_force_field(Architecture(radius=1.5, hidden=(16, 16), **settings))
    for network in model.networks:
        features = network.mean.shape
        network.normalise(0.3 * torch.randn(features), 0.1 + torch.rand(features))
    if model.grand_potential:
        from bent import bend  # Not to be found by the ranks, which only read the model.

        bend(model)
        model.networks[-1].layers[-1].weight.data.mul_(10)  # type: ignore[operator, union-attr]
    save_model(directory / f"{case}.safetensors", model, {})
    path = directory / f"{case}.yaml"
    model_path = directory / f"{case}.safetensors"
    given = {"size": size, "periodic": periodic, "electrons": electrons, "model": model_path}
    path.write_text(CONFIG.format(lattice=settings["lattice"], **given))
    return path


def test_layers_stretched_along_x_are_cut_along_y_where_they_see_less(tmp_path: Path) -> None:
    """Down to blocks as thin as the halo there, whose width along x is more than half of the lattice."""
    write_case(tmp_path, "stretched")
    model, _ = load_model(tmp_path / "stretched.safetensors")
    assert model.halo == (9, 4)
    for ranks in (2, 3, 4):
        assert choose_blocks((13, 16), ranks, model.halo) == (1, ranks)
        with pytest.raises(HpcspinError, match="thinner than the halo of 9 x 9"):
            choose_blocks((13, 16), ranks, (9, 9))


def contents(directory: Path) -> dict[str, Any]:
    with h5py.File(directory / "trajectory.h5") as file:
        return {name: dataset[...] for name, dataset in file.items()}


def assert_same_bits(directory: Path, other: Path) -> None:
    first, second = contents(directory), contents(other)
    assert set(first) == set(second)
    for name in first:
        assert np.array_equal(first[name], second[name]), f"{directory.name} and {other.name}: {name}"


def simulate_all(directory: Path, world: World, name: str, *overrides: str) -> None:
    for path in sorted(directory.glob("*.yaml")):
        assert simulate_directory(load_config(path, overrides), directory / f"{path.stem}-{name}", world) == 0


@pytest.mark.mpi
def test_bits_do_not_depend_on_the_number_of_ranks(mpirun: Launch, tmp_path: Path) -> None:
    """Halves of both axes, or quarters of one; the next test has halves and thirds of one."""
    for case in CASES:
        write_case(tmp_path, case)
    short = ("dynamics.duration=1", "dynamics.checkpoint_interval=2")
    simulate_all(tmp_path, World(), "1", *short)
    result = mpirun(4, __file__, str(tmp_path), "4", *short, timeout=120)
    assert result.returncode == 0, result.stderr
    for case in CASES:
        moved = contents(tmp_path / f"{case}-1")["spins"]
        assert np.abs(moved[-1] - moved[0]).max() > 0.1
        assert_same_bits(tmp_path / f"{case}-4", tmp_path / f"{case}-1")


@pytest.mark.mpi
def test_started_on_two_ranks_and_continued_on_three(mpirun: Launch, tmp_path: Path) -> None:
    cases = ("single", "stretched")
    for case in cases:
        write_case(tmp_path, case)
    for ranks, duration in ((2, "0.6"), (3, "1.2")):
        result = mpirun(ranks, __file__, str(tmp_path), "parts", f"dynamics.duration={duration}", timeout=120)
        assert result.returncode == 0, result.stderr
    simulate_all(tmp_path, World(), "whole", "dynamics.duration=1.2")
    for case in cases:
        assert_same_bits(tmp_path / f"{case}-parts", tmp_path / f"{case}-whole")


LAUNCHERS = {
    "mpi": [str(Path(sys.executable).parent / "mpiexec"), "-n", "2", sys.executable],
    "torchrun": [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"],
}


def ranks_of(directory: Path) -> list[int]:
    """Processes that simulate into a directory, their launcher not among them."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        launcher = "torch.distributed.run" in words or any(Path(word).name.startswith("mpiexec") for word in words)
        if str(directory) in words and "hpcspin" in words and "python" in Path(words[0]).name and not launcher:
            found.append(int(entry.name))
    return sorted(found)


def begin(launcher: str, arguments: list[str]) -> subprocess.Popen[bytes]:
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    command = [*LAUNCHERS[launcher], "-m", "hpcspin", "simulate", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def stamp(path: Path) -> float:
    return path.stat().st_mtime if path.exists() else 0.0


def until(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


@pytest.mark.mpi
@pytest.mark.parametrize(("launcher", "rank"), [("mpi", 0), ("torchrun", 1)])
def test_a_killed_rank_ends_the_job_and_leaves_no_trace(tmp_path: Path, launcher: str, rank: int) -> None:
    """SIGKILL of one rank in mid run: the others leave within ten seconds, a restart gives the undisturbed bits."""
    if not Path("/proc/self/cmdline").exists() or (launcher == "mpi" and not Path(LAUNCHERS["mpi"][0]).exists()):
        pytest.skip("needs /proc to find the ranks, and for MPI an mpiexec beside Python")
    config = write_case(tmp_path, "single")
    arguments = [str(config), "dynamics.duration=12", "dynamics.checkpoint_interval=3", "--output"]
    directory = tmp_path / "run"
    job = begin(launcher, [*arguments, str(directory)])
    assert until(lambda: stamp(directory / "checkpoint.h5") > 0, 60)
    first = stamp(directory / "checkpoint.h5")
    assert until(lambda: stamp(directory / "checkpoint.h5") > first, 20)
    # The order of process ids is the order of starting, which is that of the ranks under both launchers.
    os.kill(ranks_of(directory)[rank], signal.SIGKILL)
    assert job.wait(10) != 0
    assert until(lambda: not ranks_of(directory), 10)
    assert partial_path(directory / "trajectory.h5").exists()
    assert begin(launcher, [*arguments, str(directory)]).wait(90) == 0
    world = World()
    overrides = ["dynamics.duration=12", "dynamics.checkpoint_interval=3"]
    assert simulate_directory(load_config(config, overrides), tmp_path / "undisturbed", world) == 0
    assert_same_bits(directory, tmp_path / "undisturbed")


if __name__ == "__main__":
    torch.set_num_threads(1)
    ranks = World.detect()
    simulate_all(Path(sys.argv[1]), ranks, *sys.argv[2:])
    ranks.finish()
