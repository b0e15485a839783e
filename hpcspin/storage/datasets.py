"""The datasets of label files, trajectories and analyses: unit, meaning, and meaning of a NaN."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import h5py


class Described(NamedTuple):
    """Unit, meaning, and meaning of a NaN ("" if it has none) of a dataset."""

    units: str
    meaning: str
    nan: str = ""


_NO_LABEL = "no exact label at this frame (dynamics.field: corrected)"
_NO_CHECK = "no check at this frame (dynamics.check_interval)"
_OFFSETS = "of square bonds (1, 0), (0, 1), of triangular ones also (1, -1); then those of further hoppings"

DATASETS = {
    "spins": Described("1", "unit vectors S_i"),
    "field": Described("t", "field H_i: in labels of the electrons alone, in trajectories with classical terms"),
    "density": Described("1", "electrons on each site, from 0 to 2", _NO_LABEL),
    "current": Described("t/hbar", "particles out of each reservoir into the lattice; the sum is 0", _NO_LABEL),
    "current_error": Described("t/hbar", "estimate of the largest error of current", _NO_LABEL),
    "energy": Described(
        "t",
        "of the whole lattice: of closed electrons the grand potential (fixed potential) or the free energy (fixed "
        "filling) from which the field derives, of learned fields E; with those other terms that have an energy",
        _NO_LABEL,
    ),
    "energy_error": Described(
        "t", "estimated error of energy from the random vectors and the truncation of kpm", _NO_LABEL
    ),
    "electrons": Described("1", "number of electrons on the lattice", _NO_LABEL),
    "chemical_potential": Described("t", "of closed electrons; hardly determined in a wide gap", _NO_LABEL),
    "error": Described("t", "estimate of the largest error of a component of the exact field", _NO_LABEL),
    "time": Described("hbar/t", "time of the frame"),
    "step": Described("1", "steps done at the frame"),
    "torque": Described("t", "largest torque |S_i x H_i| on a spin"),
    "distance": Described("rad", "of an image from the first one along a path: root of the sum of squared angles"),
    "force": Described("t", "largest residual force on a spin of an image; 0 of the ends"),
    "wall_position": Described("lattice constant", "column at which the bonds change sign, mean over the rows"),
    "magnetization": Described("1", "mean spin"),
    "mean_bond": Described("1", "mean of S_i·S_j over nearest neighbours"),
    "spin_temperature": Described("t", "temperature (times k_B) that spins in equilibrium with their field would have"),
    "bond_map": Described(
        "1", "mean of S_i·S_j over bonds from a site towards +x and +y", "no such bond: an open edge"
    ),
    "chirality": Described(
        "1", "mean S_a·(S_b x S_c) of the triangles of each cell", "no triangle of spins: an open edge or vacancies"
    ),
    "mean_chirality": Described("1", "mean scalar chirality of the triangles"),
    "chirality_correlation": Described("1", "of the chirality at distances 0, 1, 2, ...", "no chirality anywhere"),
    "chirality_length": Described(
        "lattice constant", "distance at which that correlation is 1/2", "it never falls so far: one domain"
    ),
    "chirality_walls": Described("lattice constant", "length of the walls between signs of the chirality"),
    "bond_fractions": Described("1", "shares of bonds above 1/2 and below -1/2"),
    "puddles": Described("1", "number of ferromagnetic clusters, sites of the mean one and of the largest"),
    "topological_charge": Described("1", "skyrmion number"),
    "structure_factor": Described("1", "|sum_i S_i exp(-i q·r_i)|^2 / N at the wave vectors of the config"),
    "bond_current": Described("t/hbar", f"particles from each site to that at each offset in turn, {_OFFSETS}"),
    "bond_spin_current": Described("t", f"spin from each site to that at each offset in turn, {_OFFSETS}"),
    "injected": Described("t/hbar", "particles out of each reservoir into each site"),
    "injected_spin": Described("t", "spin out of each reservoir into each site"),
    "spin_orbit_torque": Described("t", "torque of Rashba coupling on the electrons of each site"),
    "flow_error": Described("t/hbar", "estimate of the largest error of these currents of particles and spin"),
    "charge_current": Described("t/hbar", "particles that pass each site, a vector in the plane"),
    "spin_current_x": Described("t", "spin that passes each site along x"),
    "spin_current_y": Described("t", "spin that passes each site along y"),
    "ldos": Described("1/t", "local density of states at the energies of the config"),
    "transmission": Described("1", "between reservoirs at the energies of the config; in labels into the first index"),
    "nonequilibrium_potential": Described("t", "potential G of a learned field"),
    "spread": Described("t", "standard deviation of a component of the field over the members of a committee"),
    "outside": Described("standard deviations", "how far the surroundings are beyond the training data; 0 inside"),
    "outside_share": Described("1", "share of the sites whose surroundings are beyond the training data"),
    "exact_field": Described("t", "exact field of the electrons alone, beside the learned one", _NO_CHECK),
    "field_error": Described("t", "length of the learned minus the exact field, perpendicular to the spin", _NO_CHECK),
    "deviation": Described(
        "t", "root mean square difference of a perpendicular component, learned from exact", f"{_NO_CHECK}, or label"
    ),
    "force_error": Described("t", "the same of the corrected field, just before its last label", "no label yet"),
}
"""Datasets by name, in the order of the documentation; all others are observers of plugins."""
OF_ELECTRONS = (
    "density", "current", "current_error", "energy", "energy_error", "electrons", "chemical_potential", "error",
)  # fmt: skip
"""What exact labels have beside the spins and the field."""
DATASETS |= {
    f"exact_{name}": Described(
        DATASETS[name].units, f"{name} of the exact label of the electrons alone, beside the learned field", _NO_CHECK
    )
    for name in OF_ELECTRONS
}

ANALYSED = {
    "structure_factor": {
        "frequency": Described("t/hbar", "angular frequencies omega >= 0"),
        "structure_factor": Described(
            "hbar/t", "S(q, omega) of the spins about their time average, of waves that move along q"
        ),
    },
    "dispersion": {
        "dispersion": Described(
            "t/hbar", "angular frequency of the strongest mode that moves along each wave vector", "nothing moves there"
        )
    },
    "correlation": {
        "time": Described("hbar/t", "time t between the two spins of a pair"),
        "correlation": Described(
            "1", "mean of S_i(t0)·S_j(t0 + t) against the time t and the offset of j from i", "no such pair"
        ),
    },
    "topological_charge": {
        "topological_charge": Described(
            "1",
            "signed share of the sphere that the spins of each cell cover",
            "no triangle of spins: an open edge or vacancies",
        )
    },
}
"""Datasets of ``hpcspin analyse`` by quantity and name, for which names of `DATASETS` mean something else."""


def shapes_beside(spins: tuple[int, ...]) -> dict[str, tuple[str | int, ...]]:
    """Shapes by name of datasets in a file with spins of shape (n, Lx, Ly, 3); a word is an axis of any length."""
    n, *sites, _ = spins
    numbers = ("current_error", "energy", "energy_error", "electrons", "chemical_potential", "error", "time", "step")
    return {"field": spins, "density": (n, *sites), "current": (n, "reservoirs"), **dict.fromkeys(numbers, (n,))}


def describe_datasets(
    file: h5py.File, attributes: Mapping[str, Any], known: Mapping[str, Described] = DATASETS
) -> None:
    """Write units and meanings as attributes of the datasets of an open file; of currents the reservoirs' names."""
    for name in sorted(file.keys() & known):  # A set has another order in each process, and files the same bytes.
        for key, text in known[name]._asdict().items():
            if text:
                file[name].attrs[key] = text
    for name in sorted(file.keys() & {"current", "exact_current", "injected", "injected_spin"}):
        with suppress(KeyError, TypeError):  # A config from a user's script may be incomplete.
            names = [reservoir["name"] for reservoir in attributes["config"]["electrons"]["reservoirs"]]
            file[name].attrs["reservoirs"] = names
