"""Flows of charge and spin in label files, trajectories and exports."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

import hpcspin as hs

ENERGIES = [-1.0, 0.5]
OBSERVERS = (
    "dynamics.observers=[charge_current, spin_current_x, spin_current_y, {name: ldos, energies: [-1.0, 0.5]}, "
    "{name: transmission, energies: [-1.0, 0.5], source: right, drain: left}]"
)


def contents(path):
    with h5py.File(path) as file:
        return {name: dataset[...] for name, dataset in file.items()}


@pytest.fixture
def labels(hpcspin, config, spins_file, tmp_path):
    path = tmp_path / "labels.h5"
    done = hpcspin("label", config, "--spins", spins_file, "--output", path, f"electrons.transport={ENERGIES}")
    assert done.returncode == 0, done.stderr
    return path


def test_labels_hold_the_flows_of_each_snapshot(labels, config, spins_file):
    found, expected = contents(labels), hs.load_system(config).transport(contents(spins_file)["spins"], ENERGIES)
    for name in vars(expected):
        assert np.array_equal(found[name], getattr(expected, name)), name
    assert found["flow_error"].shape == (5,)
    assert found["bond_spin_current"].shape == (5, 2, 6, 4, 3)
    assert found["injected"].sum(axis=(2, 3)) == pytest.approx(found["current"], abs=1e-10)


def test_flows_are_exported_for_each_bond_and_energy(hpcspin, labels, tmp_path):
    done = hpcspin("export", labels, "--format", "xdmf", "--output", tmp_path / "flows.xdmf")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "flows.xdmf").read_text()
    for name in ("bond_current_0", "bond_current_1", "bond_spin_current_1", "injected_2", "ldos_1", "field"):
        assert f'Name="{name}"' in text
    assert "transmission" not in text
    with h5py.File(tmp_path / "flows.frames.h5") as file:
        assert np.array_equal(file["frames/00000003/ldos_1"][:], contents(labels)["ldos"][3, 1].reshape(-1))


def test_the_report_of_a_label_file_is_a_picture_of_its_flows(hpcspin, labels, config, spins_file, tmp_path):
    assert hpcspin("report", labels).returncode == 0
    assert labels.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    plain = tmp_path / "plain.h5"
    assert hpcspin("label", config, "--spins", spins_file, "--output", plain).returncode == 0
    assert hpcspin("report", plain).returncode == 0
    assert not plain.with_suffix(".png").exists()


@pytest.mark.parametrize("field", ["classical", "electrons"])
def test_observers_see_the_flows_whatever_moves_the_spins(hpcspin, config, tmp_path, field):
    changes = (OBSERVERS.replace("[", "[flow_error, ", 1), f"dynamics.field={field}", "dynamics.duration=0.8")
    done = hpcspin("simulate", config, "--output", tmp_path / "run", *changes)
    assert done.returncode == 0, done.stderr
    found = contents(tmp_path / "run" / "trajectory.h5")
    expected = hs.load_system(config).transport(found["spins"], ENERGIES)
    assert np.array_equal(found["ldos"], expected.ldos)
    assert np.array_equal(found["transmission"], expected.transmission[:, :, 0, 1])
    # Half of what comes from the left and half of what leaves to the right; along the periodic y all sites have both.
    along = expected.bond_current
    before = np.pad(along[:, 0], ((0, 0), (1, 0), (0, 0)))[:, :-1]
    assert found["charge_current"][..., 0] == pytest.approx((along[:, 0] + before) / 2, abs=1e-14)
    assert found["charge_current"][..., 1] == pytest.approx((along[:, 1] + np.roll(along[:, 1], 1, 2)) / 2, abs=1e-14)
    spin = expected.bond_spin_current[:, 1]
    assert found["spin_current_y"] == pytest.approx((spin + np.roll(spin, 1, axis=2)) / 2, abs=1e-14)
    assert np.abs(found["spin_current_x"]).max() > 1e-3
    # Two halves of bonds with that error along each axis.
    assert found["flow_error"] == pytest.approx(expected.flow_error, rel=1e-12)


@pytest.mark.parametrize(
    ("observers", "message"),
    [
        ("{name: transmission, energies: [0.0], source: top, drain: left}", "'top' is no reservoir; choose from left,"),
        ("{name: ldos}", "energies: is missing"),
    ],
)
def test_an_observer_that_cannot_see_is_refused(hpcspin, config, tmp_path, observers, message):
    done = hpcspin("simulate", config, "--output", tmp_path / "run", f"dynamics.observers=[{observers}]")
    assert done.returncode != 0
    assert message in done.stderr


def test_a_closed_lattice_has_no_transmission():
    system = hs.ClosedLattice(hs.make_lattice("square", (4, 4), (True, True)), 1.0, 2.0, 0.1, filling=1.0)
    observer = {"name": "transmission", "energies": [0.0], "source": "left", "drain": "right"}
    with pytest.raises(hs.HpcspinError, match="a closed lattice has none; leave it out"):
        hs.simulate(system, spins=system.texture("random"), duration=0.4, observers=(observer,))


def test_flows_need_electrons(tmp_path):
    lattice = hs.make_lattice("square", (4, 4), (True, True))
    spins = np.tile([0, 0, 1.0], (4, 4, 1))
    from hpcspin.dynamics import Heisenberg

    with pytest.raises(hs.HpcspinError, match="charge_current needs electrons"):
        hs.simulate(lattice, Heisenberg(1.0), spins, duration=0.4, observers=("charge_current",))
