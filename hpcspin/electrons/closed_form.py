"""The steady state without an energy integral: one dense eigenproblem for each snapshot.

With H + Sigma^R = R diag(lambda) R^-1 and K_r = R^-1 2 Gamma_r R^-†,

    rho = sum_r R (K_r ∘ I_r) R†,
    I_r,mn = [psi_r(lambda_m) - psi_r(lambda_n)*] / [2 pi (lambda_m - lambda_n*)].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy
import torch
from numpy.typing import NDArray

from hpcspin.electrons.fermi import psi
from hpcspin.electrons.hamiltonian import effective_hamiltonian, occupied_orbitals, without_vacancies
from hpcspin.electrons.model import (
    DrivenLattice,
    SteadyState,
    SteadyStateSolver,
    merge_potentials,
    reservoir_currents,
    site_matrices,
    width_traces,
)
from hpcspin.electrons.system import SIGMA, ElectronSystem
from hpcspin.errors import HpcspinError

Matrix = NDArray[np.complex128]


class ClosedFormSolver(SteadyStateSolver):
    """Reference solver: exact, O((Lx Ly)³), for any lattice, reservoirs and boundaries."""

    name: ClassVar[str] = "closed_form"
    remedy: ClassVar[str] = (
        "two levels of the open lattice and their eigenvectors nearly coincide (an exceptional point), which "
        "amplifies rounding errors: set electrons.solver=negf or change a width a little"
    )

    def _solve(self, spins: NDArray[np.float64]) -> SteadyState:
        mine, count = np.arange(self.world.rank, len(spins), self.world.size), len(spins)
        components, errors = np.zeros((count, *self.system.lattice.size, 4)), np.zeros((count, 2))
        current = np.zeros((count, len(self.system.reservoirs)))
        for snapshot in mine:
            components[snapshot], current[snapshot], errors[snapshot] = self._snapshot(spins[snapshot])
        components, current, errors = (self.world.sum(part) for part in (components, current, errors))
        return SteadyState.from_components(
            self.system, components, errors[:, 0], current=current, current_error=errors[:, 1]
        )

    def _snapshot(
        self, spins: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[float, float]]:
        """Components, currents, and the largest errors of the field and of the currents."""
        spectrum = Spectrum.of(self.system, spins)
        inner, everything = spectrum.occupation(self.system)
        components = self._components(spectrum.sites(inner))
        # With f = 1 for every reservoir the same sum must give rho = 1.
        filled = self._components(spectrum.sites(everything))
        filled[..., 0] -= 2 * self.system.occupied
        wrong, current = 10 * np.abs(filled), self._currents(components, spectrum)
        widths = np.abs(self.system.widths).reshape(len(current), -1)
        # The two terms of a current have such errors, and all currents add up to 0.
        uncertain = float((4 * widths @ wrong.reshape(-1)).max() + abs(current.sum()))
        return components, current, (self.system.scale * float(wrong.max()), uncertain)

    def _components(self, blocks: Matrix) -> NDArray[np.float64]:
        """tr(M_ii) and tr(sigma M_ii) of Hermitian on-site blocks, shape (Lx, Ly, 4)."""
        return np.einsum("kab,iba->ik", SIGMA, blocks).real.reshape(*self.system.lattice.size, 4)

    def _currents(self, components: NDArray[np.float64], spectrum: Spectrum) -> NDArray[np.float64]:
        """`reservoir_currents`, where ∫ de/2pi f_r A is i (Q_r - Q_r†)."""
        filled = np.zeros(len(self.system.reservoirs))
        for group in merge_potentials(self.system):
            blocks = 1j * spectrum.reached(group.potential, self.system.temperature)
            spectral = self._components(blocks + blocks.conj().swapaxes(-1, -2))
            filled[group.members] = width_traces(self.system, spectral)[group.members]
        return reservoir_currents(self.system, filled, components)


def grand_potential(system: DrivenLattice, spins: NDArray[np.float64]) -> float:
    """Omega of one snapshot, up to a constant, with H_i = -dOmega/dS_i.

    rho is the matrix function (i/2pi) [psi(H_eff) - h.c.] of H_eff = H - i sum
    Gamma, so Omega is the trace of its primitive over the levels lambda,

        Omega = sum Re[2 T loggamma(1/2 + i (lambda - mu) / 2 pi T) + lambda / 2].

    For T and Gamma -> 0 this is sum min(lambda - mu, 0) + mu / 2.

    Parameters
    ----------
    system
        Driven lattice with all reservoirs that have a width at the same potential.
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
    potential = merge_potentials(system)[0].potential
    argument = 0.5 + 1j * (levels - potential) / (2 * np.pi * system.temperature)
    return float(np.sum(2 * system.temperature * scipy.special.loggamma(argument).real + levels.real / 2))


@dataclass(frozen=True)
class Spectrum:
    """H + Sigma^R = R diag(lambda) R^-1 of one snapshot, which determines its steady state."""

    levels: Matrix
    """lambda, shape (m,), one for each orbital that is not on a vacancy."""
    vectors: Matrix
    """R, shape (2 sites, m); 0 at vacancies."""
    inverse: Matrix
    """R^-1, shape (m, 2 sites); 0 at vacancies."""

    @staticmethod
    def of(system: DrivenLattice, spins: NDArray[np.float64]) -> Spectrum:
        """Spectrum of spins of shape (Lx, Ly, 3); raises HpcspinError if a level is coupled to no reservoir."""
        matrix = without_vacancies(system, effective_hamiltonian(system, spins))
        levels, vectors = torch.linalg.eig(torch.from_numpy(matrix))
        if float(levels.imag.max()) >= -np.finfo(float).eps * float(levels.abs().max()):  # Zero up to rounding.
            raise HpcspinError("a level is coupled to no reservoir; its occupation is undefined, add a bath")
        inverse = torch.linalg.inv(vectors).numpy().T
        return Spectrum(levels.numpy(), on_all_sites(system, vectors.numpy()), on_all_sites(system, inverse).T)

    def occupation(self, system: DrivenLattice) -> tuple[Matrix, Matrix]:
        """M of rho = R M R†, and M with f = 1 in every reservoir, where R M R† must be 1; each of shape (m, m)."""
        levels = self.levels
        total, everything = np.zeros((2, len(levels), len(levels)), dtype=np.complex128)
        for group in merge_potentials(system):
            overlap = self.congruence(group.widths)
            values = psi(levels, group.potential, system.temperature)
            total += overlap * (values[:, None] - values.conj()[None, :])
            everything -= 1j * overlap
        difference = levels[:, None] - levels.conj()[None, :]
        return total / (2 * np.pi * difference), everything / difference

    def sites(self, inner: Matrix) -> Matrix:
        """On-site blocks of R M R†, shape (sites, 2, 2)."""
        left = product(self.vectors, inner).reshape(-1, 2, len(inner))
        return np.einsum("iak,ibk->iab", left, self.vectors.conj().reshape(left.shape))

    def reached(self, potential: float, temperature: float) -> Matrix:
        """On-site blocks of Q = ∫ de/2pi f G^R = psi(H + Sigma^R) / 2 pi, up to a real number; shape (sites, 2, 2)."""
        values = psi(self.levels, potential, temperature) / (2 * np.pi)
        left = (self.vectors * values).reshape(-1, 2, len(values))
        return np.einsum("iak,kib->iab", left, self.inverse.reshape(len(values), -1, 2))

    def congruence(self, widths: NDArray[np.float64]) -> Matrix:
        """K = R^-1 2 Gamma R^-† from widths as coefficients of (1, sigma), shape (Lx, Ly, 4)."""
        blocks = 2 * site_matrices(widths).reshape(-1, 2, 2)
        touched, levels = np.flatnonzero(blocks.any(axis=(1, 2))), len(self.inverse)
        columns = self.inverse.reshape(levels, -1, 2)[:, touched]
        scaled = np.einsum("mia,iab->mib", columns, blocks[touched])
        return product(scaled.reshape(levels, -1), columns.reshape(levels, -1).conj().T)


def on_all_sites(system: ElectronSystem, rows: Matrix) -> Matrix:
    """Rows of all orbitals from those of the occupied ones; rows of vacancies are 0."""
    if system.vacancies is None:
        return rows
    found = np.zeros((2 * system.lattice.num_sites, rows.shape[1]), dtype=rows.dtype)
    found[occupied_orbitals(system)] = rows
    return found


def product(left: Matrix, right: Matrix) -> Matrix:
    """Matrix product on all cores by torch, with the same BLAS as the eigensolver."""
    return (torch.from_numpy(np.ascontiguousarray(left)) @ torch.from_numpy(np.ascontiguousarray(right))).numpy()
