"""The verb that says what a config needs before it runs."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import h5py
import pytest

from hpcspin.assembly.fields import build_field
from hpcspin.assembly.system import build_lattice
from hpcspin.config import load_config
from hpcspin.parallel.devices import pick_device
from hpcspin.parallel.world import World
from hpcspin.storage import read_checkpoint
from hpcspin.workflows.check import output_bytes

Cli = Callable[..., subprocess.CompletedProcess[str]]
CLASSICAL = ("dynamics.field=classical", "dynamics.classical.heisenberg=0.3")


@pytest.mark.parametrize(
    "field", [("dynamics.duration=1",), (*CLASSICAL, "dynamics.record_interval=3", "dynamics.observers=[bond_map]")]
)
def test_the_size_is_that_of_what_a_run_writes(
    hpcspin: Cli, config: Path, tmp_path: Path, field: tuple[str, ...]
) -> None:
    output = tmp_path / "run"
    done = hpcspin("simulate", config, *field, "--output", output)
    assert done.returncode == 0, done.stderr
    with h5py.File(output / "trajectory.h5") as file:
        written = sum(file[name].size * 8 for name in file if isinstance(file[name], h5py.Dataset))
    checkpoint = read_checkpoint(output / "checkpoint.h5")
    assert checkpoint is not None
    written += 2 * sum(checkpoint.arrays[vectors].nbytes for vectors in ("spins", "field"))
    read = load_config(config, field)
    lattice, world = build_lattice(read.lattice), World()
    assert read.dynamics is not None
    assert output_bytes(read.dynamics, build_field(read, lattice, world, pick_device(world)), lattice) == written


def test_check_measures_and_writes_nothing(hpcspin: Cli, config: Path, tmp_path: Path) -> None:
    result = hpcspin("check", config, *CLASSICAL, "--output", tmp_path / "run")
    assert result.returncode == 0, result.stderr
    lines = dict(line.split("  ", 1) for line in result.stdout.splitlines())
    assert lines["halo"].strip() == "1 x 1 sites"
    assert lines["ranks"].strip() == "1, blocks 1 x 1; at most 24 fit"
    assert lines["run"].strip().startswith("10 steps")
    assert float(lines["step"].split()[0]) > 0
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ((*CLASSICAL, "dynamics.observers=[spread]"), "spread needs dynamics.field: learned"),
        (("dynamics.observers=[energy]",), "energy needs a field with a known energy"),
        ((*CLASSICAL, "electrons=null", "dynamics.observers=[{name: ldos, energies: [0.0]}]"), "ldos needs electrons"),
    ],
)
def test_check_refuses_observers_that_the_field_refuses(
    hpcspin: Cli, config: Path, tmp_path: Path, overrides: tuple[str, ...], words: str
) -> None:
    """In the words of the run; the config was said to be valid."""
    ends = [hpcspin(verb, config, *overrides, "--output", tmp_path / "run") for verb in ("check", "simulate")]
    for done in ends:
        assert done.returncode == 1
        assert words in done.stderr.splitlines()[-1]
    assert ends[0].stderr.splitlines()[-1] == ends[1].stderr.splitlines()[-1]


def test_check_of_a_config_without_dynamics_measures_a_label(hpcspin: Cli, tmp_path: Path) -> None:
    path = tmp_path / "closed.yaml"
    path.write_text("lattice: {kind: square, size: [4, 4], periodic: [true, true]}\nelectrons: {potential: 0.0}\n")
    result = hpcspin("check", path)
    assert result.returncode == 0, result.stderr
    assert "for random spins" in result.stdout


def test_results_that_would_not_fit_the_disk_are_one_line(
    hpcspin: Cli, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    result = hpcspin("check", config, *CLASSICAL, "--output", tmp_path / "run")
    assert result.returncode == 1
    *_, line = result.stderr.splitlines()
    assert "choose another --output" in line


@pytest.mark.parametrize("verb", ["check", "simulate"])
def test_a_lattice_beyond_the_memory_is_refused_at_once(hpcspin: Cli, config: Path, tmp_path: Path, verb: str) -> None:
    result = hpcspin(verb, config, "lattice.size=[1000000,1000000]", "--output", tmp_path / "run")
    assert result.returncode == 1
    assert result.stderr.startswith("hpcspin: lattice.size: the spins of 1000000 x 1000000 sites take 2.24e+04 GiB")
    assert len(result.stderr.splitlines()) == 1
