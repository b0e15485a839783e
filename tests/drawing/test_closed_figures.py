"""Numbers of a closed lattice's reproduction are those of the runs that they come from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hpcspin.drawing import closed, figures, lattice_figures
from hpcspin.drawing.comparison import ComparedRun
from hpcspin.lattice import Lattice, bond_columns, make_lattice, make_texture
from hpcspin.potential import PredictedFields

FIGURES = {"bond_maps", "chirality_maps", "structure_factor", "histograms", "energy"}


def quench(lattice: Lattice, name: str, seed: int, offset: float, wrong: float, energies: bool = True) -> closed.Quench:
    """From random spins to an order; the learned energies have an offset a site, and are wrong on learned frames."""
    start = make_texture("random", lattice, seed)
    spins = np.stack([start, start, make_texture(name, lattice, seed, tilt=0.0)])
    time, density, zero = np.array([0.0, 1.0, 2.0]), 1 + 0.1 * bond_columns(lattice, spins), np.zeros_like(spins)
    exact = ComparedRun(time, spins, zero, density, -np.arange(3.0) * lattice.num_sites)
    learned = ComparedRun(time, spins, zero)
    labelled = ComparedRun(time[::2], spins[::2], zero[::2], density[::2], exact.energy[::2])
    return closed.Quench(
        exact,
        learned,
        PredictedFields(zero, zero),
        labelled,
        exact.energy + offset * lattice.num_sites if energies else None,
        labelled.energy + (offset + wrong) * lattice.num_sites if energies else None,
    )


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("triangular", "order_120", {"structure_factor_K": 1, "structure_factor_M": 0, "chirality": 0}),
        ("triangular", "tetrahedral", {"structure_factor_K": 0, "structure_factor_M": 1, "chirality": 0.7698}),
        ("square", "antiferromagnet", {"structure_factor_pi_pi": 1, "antiferromagnetic_bonds": 1, "puddles": 0}),
        ("square", "stripes", {"structure_factor_stripes": 1, "ferromagnetic_bonds": 0.5, "largest_puddle": 6}),
    ],
)
def test_orders_are_told_by_their_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str, expected: dict[str, float]
) -> None:
    if name != "order_120":  # one drawing is enough
        for module in (figures, lattice_figures):
            monkeypatch.setattr(module, "save", lambda _, path: path.touch())
    lattice = make_lattice(kind, (6, 6), (True, True))
    runs = {f"test-00{seed}": quench(lattice, name, seed, offset=3.0, wrong=0.25) for seed in (0, 1)}
    numbers = closed.draw(lattice, runs, tmp_path)
    for field in ("electrons", "learned"):
        for key, value in expected.items():
            estimate = numbers["order"][field][key]
            assert estimate["mean"] == pytest.approx(value, abs=1e-4)
            assert estimate["error"] == pytest.approx(0, abs=1e-9)
    energy = numbers["energy"]
    assert energy["error_on_exact_runs"] == pytest.approx({"mean": 0, "error": 0}, abs=1e-9)
    assert energy["error_on_learned_runs"] == pytest.approx({"mean": 0.25, "error": 0}, abs=1e-9)
    assert (energy["offset"], energy["largest_error_on_learned_runs"]) == pytest.approx((3.0, 0.25))
    assert {path.stem for path in tmp_path.glob("*.png")} == FIGURES | {"energy_parity"}
    assert any(f"{next(iter(expected)).replace('_', ' ')}" == row for row, _ in closed.rows(numbers))


def test_a_force_field_without_energies_has_no_errors_of_them(tmp_path: Path) -> None:
    lattice = make_lattice("square", (6, 4), (False, True))
    numbers = closed.draw(lattice, {"test-000": quench(lattice, "stripes", 1, 0.0, 0.0, energies=False)}, tmp_path)
    assert "energy" not in numbers
    assert {path.stem for path in tmp_path.glob("*.png")} == FIGURES


def test_densities_follow_the_bonds_where_they_do() -> None:
    lattice = make_lattice("square", (8, 8), (True, True))
    spins = make_texture("puddles", lattice, 1, tilt=0.2)
    bonds = bond_columns(lattice, spins)
    assert closed.order(lattice, spins, 1 - 0.2 * bonds)["density_bond_correlation"] == pytest.approx(-1)
    assert closed.order(lattice, spins, np.ones((8, 8)))["density_bond_correlation"] == 0
    assert closed.order(lattice, spins, 1 - 0.2 * bonds)["smallest_density"] == pytest.approx(1 - 0.2 * bonds.max())
