"""What files say of their datasets: units, meanings of NaN, the reservoirs behind the currents."""

import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from hpcspin import dynamics
from hpcspin.config import DynamicsSection
from hpcspin.electrons import ClosedLattice, DrivenLattice, Reservoir
from hpcspin.lattice import make_lattice
from hpcspin.storage import TrajectoryWriter, write_labels
from hpcspin.storage.datasets import DATASETS, describe_datasets

SIZE = (4, 3)
CONFIG = {"electrons": {"reservoirs": [{"name": "left"}, {"name": "bath"}]}}


def test_every_result_and_observer_is_described() -> None:
    lattice = make_lattice("square", SIZE)
    electrons = {"hopping": 1.0, "exchange": 1.0, "temperature": 0.1}
    bath = Reservoir("bath", lattice.mask("all"), width=0.1, potential=0.0)
    systems = (
        DrivenLattice(lattice, **electrons, reservoirs=[bath]),
        ClosedLattice(lattice, **electrons, filling=1.0, solver="kpm"),
    )
    ours = {name for name, entry in dynamics.OBSERVERS.items() if entry.measure.__module__.startswith("hpcspin.")}
    assert DynamicsSection().field == "electrons"  # Its module registers the observers of learned fields.
    assert len(ours) > 10
    results = {name for system in systems for name in system.result_shapes}
    assert ours | results | {f"exact_{name}" for name in results} <= DATASETS.keys()


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_datasets_say_what_they_are(tmp_path: Path, compression: str | None) -> None:
    shapes = {"current": (2,), "exact_current": (2,), "chirality": SIZE, "of_a_plugin": ()}
    trajectory = TrajectoryWriter(tmp_path / "run.h5", SIZE, {"config": CONFIG}, 1, shapes, compression=compression)
    spins = np.broadcast_to([0.0, 0.0, 1.0], (*SIZE, 3))
    trajectory.append(
        spins=spins,
        field=spins,
        step=0,
        time=0.0,
        current=[1, -1],
        exact_current=[1, -1],
        chirality=spins[..., 0],
        of_a_plugin=1,
    )
    trajectory.finish()
    with h5py.File(tmp_path / "run.h5") as file:
        for name in ("current", "exact_current"):
            assert file[name].attrs["units"] == "t/hbar"
            assert list(file[name].attrs["reservoirs"]) == ["left", "bath"]
        assert "edge" in file["chirality"].attrs["nan"]
        assert "nan" not in file["spins"].attrs
        assert not file["of_a_plugin"].attrs


def test_descriptions_have_the_order_of_the_names(tmp_path: Path) -> None:
    """Else a run in another process has other bytes."""
    names = ["bond_map", "chirality", "density", "energy", "error", "magnetization", "mean_bond", "wall_position"]
    with h5py.File(tmp_path / "file.h5", "w") as file:
        for name in names:
            file[name] = 0.0
        describe_datasets(file, {})
    content = (tmp_path / "file.h5").read_bytes()
    places = [content.index(DATASETS[name].meaning.encode()) for name in names]
    assert places == sorted(places)


def test_labels_without_a_config_have_no_reservoirs(tmp_path: Path) -> None:
    spins = np.broadcast_to([0.0, 0.0, 1.0], (1, *SIZE, 3))
    write_labels(tmp_path / "labels.h5", spins, spins, {}, current=np.zeros((1, 2)))
    with h5py.File(tmp_path / "labels.h5") as file:
        assert file["field"].attrs["units"] == "t"
        assert "reservoirs" not in file["current"].attrs


def test_flows_of_labels_say_their_reservoirs_and_the_offsets_of_their_bonds(tmp_path: Path) -> None:
    spins = np.broadcast_to([0.0, 0.0, 1.0], (1, *SIZE, 3))
    flows = {"injected": np.zeros((1, 2, *SIZE)), "bond_current": np.zeros((1, 3, *SIZE))}
    write_labels(tmp_path / "labels.h5", spins, spins, {"config": CONFIG}, **flows)
    with h5py.File(tmp_path / "labels.h5") as file:
        assert list(file["injected"].attrs["reservoirs"]) == ["left", "bath"]
        assert re.findall(r"\(.*?\)", file["bond_current"].attrs["meaning"]) == [
            str(offset) for offset in make_lattice("triangular", SIZE).bonds
        ]
    assert make_lattice("square", SIZE).bonds == make_lattice("triangular", SIZE).bonds[:2]
