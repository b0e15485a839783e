"""The verbs `minimise` and `path`: rest, barriers and hysteresis from a config, resumed, on ranks, in reports."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import hpcspin as hs
from hpcspin.lattice import make_lattice, make_texture

SHIPPED = Path(__file__).parents[2] / "configs"
Cli = Callable[..., subprocess.CompletedProcess[str]]
MAGNET = """
lattice: {kind: square, size: [6, 4], periodic: [true, true]}
initial: {kind: ferromagnet, tilt: 0.3}
dynamics: {field: classical, classical: {heisenberg: 1.0, anisotropy: 0.2, zeeman: [0, 0, 0.1]}}
path: {images: 5}
"""


@pytest.fixture
def magnet(tmp_path: Path) -> Path:
    path = tmp_path / "magnet.yaml"
    path.write_text(MAGNET)
    np.save(tmp_path / "up.npy", np.broadcast_to((0.0, 0.0, 1.0), (6, 4, 3)))
    np.save(tmp_path / "down.npy", np.broadcast_to((0.0, 0.0, -1.0), (6, 4, 3)))
    return path


def arrays(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        return {name: file[name][()] for name in file}


def test_rest_resumes_with_the_same_bits_and_is_reported(hpcspin: Cli, magnet: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert hpcspin("minimise", magnet, "--output", whole).returncode == 0
    failed = hpcspin("minimise", magnet, "--output", parts, "minimise.evaluations=7")
    assert failed.returncode == 1
    assert "after 7 evaluations" in failed.stderr
    assert not (parts / "minimum.h5").exists()
    assert "not at rest yet" in report(hpcspin, parts)
    assert hpcspin("minimise", magnet, "--output", parts).returncode == 0
    assert not (parts / "minimum.h5.partial").exists()
    found, again = (arrays(directory / "minimum.h5") for directory in (whole, parts))
    for name in found:
        np.testing.assert_array_equal(found[name], again[name])
    numbers = json.loads((parts / "numbers.json").read_text())
    assert numbers == json.loads((whole / "numbers.json").read_text())
    assert numbers["energy"] == pytest.approx(-24 * (2 + 0.2 + 0.1), abs=1e-8)
    assert numbers["torque"] <= 1e-6
    assert "energy_per_site" in report(hpcspin, parts)
    other = hpcspin("minimise", magnet, "--output", parts, "dynamics.classical.anisotropy=0.3")
    assert "belongs to another config" in other.stderr


def report(hpcspin: Cli, directory: Path) -> str:
    assert hpcspin("report", directory).returncode == 0
    return (directory / "report.html").read_text()


def test_a_path_resumes_with_the_same_bits_and_is_drawn(hpcspin: Cli, magnet: Path, tmp_path: Path) -> None:
    ends = ("--from", tmp_path / "up.npy", "--to", tmp_path / "down.npy")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert hpcspin("path", magnet, *ends, "--output", whole).returncode == 0
    failed = hpcspin("path", magnet, *ends, "--output", parts, "path.evaluations=40")
    assert "after 41 evaluations" in failed.stderr
    assert hpcspin("path", magnet, *ends, "--output", parts).returncode == 0
    found, again = (arrays(directory / "path.h5") for directory in (whole, parts))
    assert found.keys() == {"spins", "field", "energy", "distance", "force"}
    for name in found:
        np.testing.assert_array_equal(found[name], again[name])
    assert json.loads((whole / "numbers.json").read_text())["barrier"] == pytest.approx(24 * 0.2 * 1.25**2, rel=1e-6)
    assert "distance along the path" in report(hpcspin, whole)
    for verb, name in (("plot", "a.svg"), ("draw", "b.png")):
        assert hpcspin(verb, whole, "--output", tmp_path / name).returncode == 0
    swapped = hpcspin("path", magnet, "--from", ends[3], "--to", ends[1], "--output", whole)
    assert "between other ends" in swapped.stderr
    timeless = hpcspin("analyse", whole, "--quantity", "correlation", "--output", tmp_path / "c.h5")
    assert timeless.returncode == 1
    assert "its spins have no time" in timeless.stderr


def test_the_results_of_other_verbs_stay_as_they_are(hpcspin: Cli, magnet: Path, tmp_path: Path) -> None:
    ends = ("--from", tmp_path / "up.npy", "--to", tmp_path / "down.npy")
    both = ("path.tolerance=0.1", "minimise.tolerance=1e-3")  # The same config for both verbs.
    verbs = {"minimise": (), "path": ends, "simulate": ()}
    short = ("dynamics.damping=0.1", "dynamics.step=0.1", "dynamics.duration=0.2")
    for verb, given in verbs.items():
        assert hpcspin(verb, magnet, *given, "--output", tmp_path / verb, *both, *short).returncode == 0
    for verb in ("minimise", "path"):
        for other in verbs.keys() - {verb}:
            before = {path.name: path.read_bytes() for path in (tmp_path / other).iterdir()}
            done = hpcspin(verb, magnet, *verbs[verb], "--output", tmp_path / other, *both, *short)
            assert done.returncode == 1
            assert "is the result of another verb" in done.stderr
            assert {path.name: path.read_bytes() for path in (tmp_path / other).iterdir()} == before
    with h5py.File(tmp_path / "minimise" / "minimum.h5", "w") as file:
        file["spins"] = 1.0
    spoilt = hpcspin("minimise", magnet, "--output", tmp_path / "minimise", *both, *short)
    assert "minimum.h5: does not hold such states" in spoilt.stderr


def test_a_learned_energy_has_no_barrier_against_a_rotation_of_all_spins(hpcspin: Cli, tmp_path: Path) -> None:
    lattice = make_lattice("triangular", (6, 6), (True, True))
    turn = Rotation.from_euler("z", 50, degrees=True).as_matrix()
    first = make_texture("order_120", lattice, 1, tilt=0.0)
    for name, spins in (("a", first), ("b", first @ turn.T)):
        np.save(tmp_path / f"{name}.npy", spins)
    config, output = SHIPPED / "triangular_120.yaml", tmp_path / "path"
    field = ("potential=null", "lattice.size=[6,6]", "dynamics.field=learned", "dynamics.model=triangular_120")
    words = ("path", config, "--from", tmp_path / "a.npy", "--output", output, *field)
    words = (*words, "path.images=5", "path.tolerance=3e-3")
    same = hpcspin(*words, "--to", tmp_path / "a.npy")
    assert "both ends of the path are the same spins" in same.stderr
    assert not output.exists()
    assert hpcspin(*words, "--to", tmp_path / "b.npy").returncode == 0
    found = arrays(output / "path.h5")
    rise = found["energy"] - found["energy"][0]
    assert abs(rise[-1]) < 1e-5
    assert np.abs(rise).max() < 1e-3  # Random vectors lift the first band by 0.06; a residual force of 3e-3 is left.
    model, system = hs.load_model("triangular_120"), hs.load_system(config, "lattice.size=[6,6]")
    energies = model.energy(found["spins"], system)
    np.testing.assert_allclose(energies - energies[0], rise, atol=1e-4)


@pytest.mark.mpi
def test_ranks_share_the_images(
    magnet: Path, tmp_path: Path, mpirun: Callable[..., subprocess.CompletedProcess]
) -> None:
    ends = ("--from", tmp_path / "up.npy", "--to", tmp_path / "down.npy")
    for ranks in (1, 2):
        words = ("-m", "hpcspin", "path", magnet, *ends, "--output", tmp_path / f"{ranks}")
        done = mpirun(ranks, *map(str, words))
        assert done.returncode == 0, done.stderr
    one, two = (arrays(tmp_path / f"{ranks}" / "path.h5") for ranks in (1, 2))
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])


def test_a_chain_of_rests_is_a_hysteresis_loop(hpcspin: Cli, tmp_path: Path) -> None:
    """A macrospin along the axis switches beyond h = 2 K = 1, down and up."""
    config, loop = tmp_path / "macrospin.yaml", tmp_path / "loop"
    config.write_text(
        "lattice: {kind: square, size: [1, 1], periodic: [false, false]}\ninitial: {kind: ferromagnet}\n"
        "dynamics: {field: classical, classical: {anisotropy: 0.5, zeeman: [0, 0, 0]}}\n"
    )
    key = "dynamics.classical.zeeman.2"
    fields = "1.1,0.9,-0.9,-1.1,-0.9,0.9,1.1"
    done = hpcspin("sweep", config, "--run", "minimise", "--vary", f"{key}={fields}", "--chain", key, "--output", loop)
    assert done.returncode == 0, done.stderr
    with (loop / "sweep.csv").open(newline="") as file:
        found = [float(row["magnetization.z"]) for row in csv.DictReader(file)]
    np.testing.assert_allclose(found, [1, 1, 1, -1, -1, -1, 1], atol=1e-6)
    assert (loop / "curves.png").exists()


def test_what_has_no_energy_is_refused_in_one_line(hpcspin: Cli, config: Path, magnet: Path, tmp_path: Path) -> None:
    drive = "dynamics.classical.drives=[{kind: sinusoid, frequency: 1, field: [0, 0, 1]}]"
    for given, override, words in (
        (config, "dynamics.seed=1", "derives from no energy"),
        (magnet, "dynamics.classical.slonczewski=[0, 0, 1]", "derives from no energy"),
        (magnet, drive, "depends on time"),
    ):
        done = hpcspin("minimise", given, "--output", tmp_path / "none", override)
        assert done.returncode == 1
        assert words in done.stderr
    assert not (tmp_path / "none").exists()
