"""Equilibrium from all levels of the closed lattice: exact, one dense Hermitian eigenproblem for each snapshot.

With H_sd = V diag(e) V† and f the Fermi function, rho = V f(e - mu) V†, H_i = J_i tr(sigma rho_ii) and

    Omega = -T sum_n log(1 + exp(-(e_n - mu) / T)),     F = Omega + mu N.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import scipy
from numpy.typing import NDArray

from hpcspin.electrons.backend import Array, Backend, make_backend
from hpcspin.electrons.closed import ClosedLattice, EquilibriumSolver, EquilibriumState
from hpcspin.electrons.fermi import chemical_potential_between, fermi
from hpcspin.electrons.hamiltonian import sd_hamiltonian, without_vacancies
from hpcspin.electrons.onsite import gram_sites
from hpcspin.errors import HpcspinError

_EMPTY = 800.0
"""(e - mu) / T above which the Fermi function is 0 in double precision."""
_COPIES = 8
"""Number of matrices of the lattice's size that an eigensolver holds at a time."""
_MOST_AT_ONCE = 64


class DiagonalizationSolver(EquilibriumSolver):
    """Exact equilibrium, O((Lx Ly)³), for any lattice, edges and hopping.

    The ranks share the snapshots. A GPU diagonalises several at a time, as its memory allows; a CPU one at a time.
    """

    name: ClassVar[str] = "diagonalization"
    remedy: ClassVar[str] = "raise electrons.tolerance, or electrons.temperature, by which rounding errors are divided,"

    def _prepare(self) -> None:
        system = self.system
        self.backend: Backend = make_backend("auto", self.device)
        needed = _COPIES * 16 * (2 * system.lattice.num_sites) ** 2
        free = self.backend.free_memory() // self.backend.ranks_on_device(self.world)
        if needed > free:
            raise HpcspinError(
                f"electrons.solver: diagonalization of {system.lattice.num_sites} sites needs about "
                f"{needed / 2**30:.3g} GiB and {free / 2**30:.1f} are free; choose kpm, which is linear in the sites"
            )
        # One call for many matrices pays off where a launch takes longer than a small matrix.
        self._at_once = min(_MOST_AT_ONCE, free // needed) if self.backend.on_gpu else 1

    def _solve(self, spins: NDArray[np.float64]) -> EquilibriumState:
        n, size = len(spins), self.system.lattice.size
        mine = np.arange(self.world.rank, n, self.world.size)
        components, numbers = np.zeros((n, *size, 4)), np.zeros((n, 4))
        for first in range(0, len(mine), self._at_once):
            some = mine[first : first + self._at_once]
            components[some], numbers[some] = self._snapshots(spins[some])
        components, numbers = self.world.sum(components), self.world.sum(numbers)
        return EquilibriumState.of(self.system, components, numbers)

    def _snapshots(self, spins: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """On-site components (k, Lx, Ly, 4), and the numbers of `EquilibriumState.of` of each snapshot, (k, 4)."""
        whole, xp = sd_hamiltonian(self.system, spins), self.backend.xp
        matrices = self.backend.asarray(without_vacancies(self.system, whole))
        levels, vectors = xp.linalg.eigh(matrices)
        defects = self.backend.to_numpy(residuals(xp, matrices, levels, vectors))
        on_host = self.backend.to_numpy(levels)
        temperature, electrons = self.system.temperature, self.system.fixed_electrons
        numbers, weights = np.empty((len(spins), 4)), np.empty_like(on_host)
        for number, one in enumerate(on_host):
            potential = potential_of(self.system, one)
            weights[number] = fermi(one, potential, temperature)
            energy = float(-temperature * np.logaddexp(0.0, (potential - one) / temperature).sum())
            if electrons is not None:
                energy += potential * electrons
            # A perturbation of H by the residual changes rho by about residual / T.
            numbers[number] = energy, 0.0, potential, self.system.scale * defects[number] * (1 + 1 / temperature)
        filled = vectors * xp.sqrt(self.backend.asarray(weights))[:, None, :]
        components = np.zeros((len(spins), *self.system.lattice.size, 4))
        components[:, self.system.occupied] = self.backend.to_numpy(gram_sites(xp, filled)).reshape(len(spins), -1, 4)
        return components, numbers


def residuals(xp: Any, matrices: Array, levels: Array, vectors: Array) -> Array:
    """Largest residual |H v - e v| among the levels e and eigenvectors v of each matrix, shape (k,)."""
    residual = matrices @ vectors - vectors * levels[:, None, :]
    return xp.max(xp.sqrt(xp.sum(xp.real(residual * xp.conj(residual)), axis=1)), axis=1)


def chemical_potential(levels: NDArray[np.float64], electrons: float, temperature: float) -> float:
    """Chemical potential at which levels, shape (n,) in ascending order, hold a given number of electrons, 0 to n.

    The root finding compares the electrons above the levels that the ground state fills with the holes in these levels:
    in a gap both numbers are exponentially small, and their difference still determines mu.
    """
    full = int(electrons)

    def excess(potential: float) -> float:
        above = scipy.special.expit((potential - levels[full:]) / temperature).sum()
        below = scipy.special.expit((levels[:full] - potential) / temperature).sum()
        return float(above - below - (electrons - full))

    margin = _EMPTY * temperature
    low, high = float(levels[0]) - margin, float(levels[-1]) + margin
    return chemical_potential_between(low, high, excess)


def potential_of(system: ClosedLattice, levels: NDArray[np.float64]) -> float:
    """Chemical potential of a lattice with these levels: as given, or by `chemical_potential` for its filling."""
    if system.fixed_electrons is not None:
        return chemical_potential(levels, system.fixed_electrons, system.temperature)
    assert system.potential is not None
    return system.potential


def field_and_divergence(
    system: ClosedLattice, spins: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Exact field of one snapshot, shape (Lx, Ly, 3), and its divergence under rotations of each site's own spin.

    Level n has the weights u_in and d_in along and against spin i, and K_mn = (f_m - f_n) / (e_m - e_n). The trace of
    dH_i/dS_i across S_i, shape (Lx, Ly), is -4 J_i² sum_mn u_im K_mn d_in. At a fixed number of electrons mu follows
    the spins, which adds -|dH_i/dmu across S_i|² / (dN/dmu). One dense eigenproblem, O((Lx Ly)³).
    """
    spins, there, temperature = system.check_spins(spins[None])[0], system.occupied, system.temperature
    levels, vectors = np.linalg.eigh(without_vacancies(system, sd_hamiltonian(system, spins)))
    occupation = fermi(levels, potential_of(system, levels), temperature)
    slope = occupation * (1 - occupation) / temperature
    up, down = np.moveaxis(vectors.reshape(-1, 2, len(levels)), 1, 0)
    mixed, weight, along_z = (
        2 * up.conj() * down,
        np.abs(up) ** 2 + np.abs(down) ** 2,
        np.abs(up) ** 2 - np.abs(down) ** 2,
    )
    polarized = np.stack([mixed.real, mixed.imag, along_z], axis=-1)
    own = np.einsum("inx,ix->in", polarized, spins[there])
    apart = levels[:, None] - levels
    near = np.abs(apart) < 1e-4 * temperature
    divided = (occupation[:, None] - occupation) / np.where(near, 1, apart)
    divided[near] = -((slope[:, None] + slope) / 2)[near]
    exchange = np.broadcast_to(system.exchange, system.lattice.size)[there]
    spread = -(exchange**2) * np.einsum("im,im->i", (weight + own) @ divided, weight - own)
    if system.fixed_electrons is not None and slope.any():  # Deep in a gap mu moves no field.
        moved = np.cross(exchange[:, None] * np.einsum("inx,n->ix", polarized, slope), spins[there])
        spread -= (moved**2).sum(axis=-1) / slope.sum()
    field, divergence = np.zeros((*system.lattice.size, 3)), np.zeros(system.lattice.size)
    field[there] = exchange[:, None] * np.einsum("inx,n->ix", polarized, occupation)
    divergence[there] = spread
    return field, divergence
