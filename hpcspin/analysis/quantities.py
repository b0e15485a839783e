"""What `hpcspin analyse` can compute from a trajectory, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from hpcspin.analysis.spectra import dispersion, dynamical_structure_factor, spin_correlation
from hpcspin.lattice import Lattice, topological_charges
from hpcspin.registry import Registry

Array = NDArray[np.float64]
QUANTITIES: Registry[Callable[[Lattice, Array, float], Mapping[str, Array]]] = Registry("--quantity", given=3)
"""Functions of a lattice, spins (n, Lx, Ly, 3), read when indexed, and the time between two of them, to arrays by the
name of a dataset."""


@QUANTITIES.adding("structure_factor")
def structure_factor(lattice: Lattice, spins: Array, interval: float) -> Mapping[str, Array]:
    """S(q, omega), ``structure_factor`` (frequencies, Lx, Ly), and ``frequency``."""
    frequency, spectrum = dynamical_structure_factor(spins, interval)
    return {"frequency": frequency, "structure_factor": spectrum}


@QUANTITIES.adding("dispersion")
def magnon_dispersion(lattice: Lattice, spins: Array, interval: float) -> Mapping[str, Array]:
    """Frequency of the strongest mode at each wave vector, ``dispersion`` (Lx, Ly)."""
    return {"dispersion": dispersion(spins, interval)}


@QUANTITIES.adding("correlation")
def correlation(lattice: Lattice, spins: Array, interval: float) -> Mapping[str, Array]:
    """Spin correlation in space and time, ``correlation`` (times, Lx, Ly), and ``time``."""
    values = spin_correlation(lattice, spins)
    return {"time": np.asarray(interval * np.arange(len(values)), dtype=np.float64), "correlation": values}


@QUANTITIES.adding("topological_charge")
def topological_charge(lattice: Lattice, spins: Array, interval: float) -> Mapping[str, Array]:
    """Topological charge of each cell, ``topological_charge`` (n, Lx, Ly); NaN beyond open edges."""
    return {"topological_charge": np.stack([topological_charges(lattice, frame) for frame in spins])}
