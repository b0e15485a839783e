"""Labels beyond one rank's memory, and in single precision."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from hpcspin.lattice import make_lattice, make_texture

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.mpi
def test_a_lattice_that_one_rank_cannot_hold_is_labelled_by_two(
    hpcspin: Cli, mpirun: Cli, config: Path, tmp_path: Path
) -> None:
    spins, one, two = (tmp_path / name for name in ("long.h5", "one.h5", "two.h5"))
    lattice = make_lattice("square", (24, 4))
    with h5py.File(spins, "w") as file:
        file["spins"] = np.stack([make_texture("wall", lattice, seed, position=9, tilt=0.3) for seed in range(2)])
    result = mpirun(2, str(Path(__file__).with_name("small_memory.py")), str(config), str(spins), str(two))
    assert result.returncode == 0, result.stderr
    arguments = ("electrons.solver=negf", "lattice.size=[24, 4]", "--spins", spins, "--output", one)
    assert hpcspin("label", config, *arguments).returncode == 0
    with h5py.File(one) as alone, h5py.File(two) as divided:
        for name in ("field", "density", "current"):
            np.testing.assert_allclose(divided[name][()], alone[name][()], atol=1e-12, err_msg=name)
        # Differences of sums are multiplied by what a level between their energies may add, and so is their rounding.
        np.testing.assert_allclose(divided["error"][()], alone["error"][()], atol=1e-10)


def test_single_precision_is_written_beside_the_labels(
    hpcspin: Cli, config: Path, spins_file: Path, tmp_path: Path
) -> None:
    output = tmp_path / "labels.h5"
    keys = ("electrons.solver=negf", "electrons.precision=complex64")
    refused = hpcspin("label", config, *keys, "--spins", spins_file, "--output", tmp_path / "refused.h5")
    assert refused.returncode == 1
    assert "the least that complex64 can certify" in refused.stderr
    keys = (*keys, "electrons.tolerance=1e-4")
    result = hpcspin("label", config, *keys, "--spins", spins_file, "--output", output)
    assert result.returncode == 0, result.stderr
    with h5py.File(output) as file:
        assert file.attrs["precision"] == "complex64"
        assert (file["error"][()] <= 1e-4).all()
