"""Figures and numbers of a closed lattice's reproduction: what orders after a quench, and how the energy falls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpcspin.analysis.series import Estimate
from hpcspin.drawing import figures
from hpcspin.drawing.comparison import Array, Compared, ComparedRun, shown_times
from hpcspin.drawing.lattice_figures import BOND, BONDS, CHIRALITY, at_times, site_maps, zone_maps
from hpcspin.lattice import (
    Lattice,
    bond_columns,
    bond_fractions,
    bond_map,
    nearest_bonds,
    puddle_sizes,
    scalar_chirality,
    structure_factor,
    structure_factors,
)

FIELDS = {"exact": "electrons", "learned": "learned"}
"""Names of both dynamics in figures, and in the numbers."""
ORDERS = {
    "square": {"structure_factor_pi_pi": [(1 / 2, 1 / 2)], "structure_factor_stripes": [(1 / 2, 0), (0, 1 / 2)]},
    "triangular": {
        "structure_factor_K": [(1 / 3, 2 / 3), (2 / 3, 1 / 3)],
        "structure_factor_M": [(1 / 2, 0), (0, 1 / 2), (1 / 2, 1 / 2)],
    },
}
"""For each kind of lattice, the wave vectors of its orders, whose structure factors are summed and divided by N."""

_UNIFORM = 1e-12
"""Product of the standard deviations of densities and bonds below which they differ by rounding errors only."""


@dataclass(frozen=True)
class Quench(Compared):
    """A test run under both fields, with exact labels of some frames of the learned one.

    The energies are those that the force field predicts for the exact and the labelled frames, shape (n,), or None.
    """

    labelled: ComparedRun
    exact_energies: Array | None
    labelled_energies: Array | None


def draw(lattice: Lattice, runs: Mapping[str, Quench], directory: Path) -> dict[str, Any]:
    """Draw the figures of the test runs, given by name, into a directory, and measure what they show."""
    first, quenches = next(iter(runs.values())), list(runs.values())
    time = shown_times(first)
    both = {name: run.at(time).spins for name, run in zip(FIELDS, (first.exact, first.learned), strict=True)}
    for measure, label, reach, name in (
        (bond_map, BONDS, 1.0, "bond_maps"),
        (scalar_chirality, CHIRALITY, 0.77, "chirality_maps"),
    ):
        maps = {name: np.stack([measure(lattice, one) for one in spins]) for name, spins in both.items()}
        site_maps(lattice, at_times(time), maps, label, directory / f"{name}.png", (-reach, reach))
    last = {f"{name}, t = {time[-1]:g} ħ/t": structure_factors(lattice, spins[-1]) for name, spins in both.items()}
    zone_maps(lattice, last, directory / "structure_factor.png")
    figures.histograms(_histograms(lattice, quenches), directory / "histograms.png")
    # Exact energies of the spins of both dynamics.
    curves = [
        {f"{name} field": (one.time, one.known("energy") / lattice.num_sites) for name, one in pair}
        for pair in (zip(FIELDS, (run.exact, run.labelled), strict=True) for run in quenches)
    ]
    figures.against_time(curves, "exact energy per site (t)", directory / "energy.png")
    numbers: dict[str, Any] = {"order": _order_numbers(lattice, runs)}
    if all(run.exact_energies is not None for run in quenches):
        exact, learned = np.concatenate(_energies(lattice, quenches, "exact"), axis=1)
        figures.energy_parity(exact, learned, directory / "energy_parity.png")
        numbers["energy"] = _energy_numbers(lattice, quenches)
    return numbers


def rows(numbers: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Rows of the table of a report."""
    order = numbers["order"]
    found = [
        (name.replace("_", " "), ", ".join(f"{Estimate(**order[key][name])} {words}" for words, key in FIELDS.items()))
        for name in order["electrons"]
    ]
    if "energy" in numbers:
        energy = numbers["energy"]
        found += [
            ("rms error of the learned energy a site, exact runs", f"{Estimate(**energy['error_on_exact_runs'])} t"),
            ("and on learned runs", f"{Estimate(**energy['error_on_learned_runs'])} t"),
        ]
    return found


def order(lattice: Lattice, spins: Array, density: Array) -> dict[str, float]:
    """Order parameters of spins, shape (Lx, Ly, 3), and of the number of electrons on each site, shape (Lx, Ly).

    These are structure factors over N, see `ORDERS`; ``chirality``, the magnitude of the mean scalar chirality; shares
    of ``ferromagnetic_bonds`` and ``antiferromagnetic_bonds``; number of ``puddles`` and sites of the
    ``largest_puddle``; ``smallest_density``; and ``density_bond_correlation``, that of a site's density with the mean
    of its bonds, 0 where one of them is uniform.
    """
    found = {
        name: float(structure_factor(lattice, spins, waves).sum() / lattice.num_sites)
        for name, waves in ORDERS.get(lattice.kind, {}).items()
    }
    found["chirality"] = float(abs(np.nanmean(scalar_chirality(lattice, spins))))
    found["ferromagnetic_bonds"], found["antiferromagnetic_bonds"] = bond_fractions(lattice, spins).tolist()
    sizes = puddle_sizes(lattice, spins)
    found["puddles"], found["largest_puddle"] = float(len(sizes)), float(sizes[0]) if len(sizes) else 0.0
    bonds, deviation = bond_columns(lattice, spins), density - density.mean()
    scatter = float(density.std() * bonds.std())
    found["smallest_density"] = float(density.min())
    found["density_bond_correlation"] = float((deviation * bonds).mean()) / scatter if scatter > _UNIFORM else 0.0
    return found


def _order_numbers(lattice: Lattice, runs: Mapping[str, Quench]) -> dict[str, Any]:
    single = {
        name: {
            key: order(lattice, end.spins[-1], end.known("density")[-1])
            for key, end in zip(FIELDS.values(), (run.exact, run.labelled), strict=True)
        }
        for name, run in runs.items()
    }
    means = {
        key: {
            name: asdict(Estimate.of([one[key][name] for one in single.values()]))
            for name in next(iter(single.values()))[key]
        }
        for key in FIELDS.values()
    }
    return {"runs": single, **means}


def _energies(lattice: Lattice, runs: list[Quench], of: str) -> list[Array]:
    """Exact and predicted energies per site of the ``exact`` or ``labelled`` frames of each run, shape (2, n)."""
    pairs = ((getattr(run, of).known("energy"), getattr(run, f"{of}_energies")) for run in runs)
    return [np.stack(pair) / lattice.num_sites for pair in pairs]


def _energy_numbers(lattice: Lattice, runs: list[Quench]) -> dict[str, Any]:
    """Root mean square errors of the predicted energies per site, means over the runs, and the largest on learned runs.

    A field determines its energy up to a constant: ``offset``, the mean error on the exact runs, is subtracted from
    all.
    """
    exact, labelled = ([pair[1] - pair[0] for pair in _energies(lattice, runs, of)] for of in ("exact", "labelled"))
    offset = float(np.concatenate(exact).mean())

    def error(errors: list[Array]) -> dict[str, float | None]:
        return asdict(Estimate.of([float(np.sqrt(((one - offset) ** 2).mean())) for one in errors]))

    return {
        "offset": offset,
        "error_on_exact_runs": error(exact),
        "error_on_learned_runs": error(labelled),
        "largest_error_on_learned_runs": float(np.abs(np.concatenate(labelled) - offset).max()),
    }


def _histograms(lattice: Lattice, runs: list[Quench]) -> dict[str, dict[str, Array]]:
    """Bonds and densities at the end of all runs."""
    found: dict[str, dict[str, Array]] = {BOND: {}, "electrons per site": {}}
    for name, of in (("exact", "exact"), ("learned", "labelled")):
        ends = [getattr(run, of) for run in runs]
        bonds = np.concatenate([nearest_bonds(lattice, end.spins[-1]).ravel() for end in ends])
        found[BOND][name] = bonds[~np.isnan(bonds)]
        found["electrons per site"][name] = np.concatenate([end.known("density")[-1].ravel() for end in ends])
    return found
