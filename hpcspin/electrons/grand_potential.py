"""Grand potential of electrons in equilibrium with reservoirs at one potential."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import loggamma

from hpcspin.electrons.hamiltonian import effective_hamiltonian, without_vacancies
from hpcspin.electrons.model import DrivenLattice
from hpcspin.errors import HpcspinError


def grand_potential(system: DrivenLattice, spins: NDArray[np.float64]) -> float:
    """Omega of one snapshot, up to a constant, with H_i = -dOmega/dS_i.

    rho is the matrix function (i/2pi) [psi(H_eff) - h.c.] of H_eff = H - i sum
    Gamma, so Omega is the trace of its primitive over the levels lambda,

        Omega = sum Re[2 T loggamma(1/2 + i (lambda - mu) / 2 pi T) + lambda / 2].

    For T and Gamma -> 0 this is sum min(lambda - mu, 0) + mu / 2.

    Parameters
    ----------
    system
        All reservoirs at one potential.
    spins
        Unit vectors, shape (Lx, Ly, 3).

    Raises
    ------
    HpcspinError
        If the potentials differ: a driven state has no grand potential.
    """
    spins = system.check_spins(np.asarray(spins)[None])[0]
    if system.bias != 0:
        raise HpcspinError(
            f"the potentials of the reservoirs differ by {system.bias:g}; a driven state has no grand potential"
        )
    matrix = without_vacancies(system, effective_hamiltonian(system, spins))
    levels = torch.linalg.eigvals(torch.from_numpy(matrix)).numpy()
    argument = 0.5 + 1j * (levels - system.potentials[0]) / (2 * np.pi * system.temperature)
    return float(np.sum(2 * system.temperature * loggamma(argument).real + levels.real / 2))
