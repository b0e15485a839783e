"""The steady state without an energy integral: one dense eigenproblem a snapshot.

With H + Sigma^R = R diag(lambda) R^-1 and K_r = R^-1 2 Gamma_r R^-†,

    rho = sum_r R (K_r ∘ I_r) R†,
    I_r,mn = [psi_r(lambda_m) - psi_r(lambda_n)*] / [2 pi (lambda_m - lambda_n*)].
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from hpcspin.electrons.fermi import psi
from hpcspin.electrons.hamiltonian import effective_hamiltonian
from hpcspin.electrons.model import merge_potentials, site_matrices
from hpcspin.electrons.steady_state import SteadyState, SteadyStateSolver, reservoir_currents, width_traces
from hpcspin.electrons.system import SIGMA
from hpcspin.errors import HpcspinError

Matrix = NDArray[np.complex128]


class ClosedFormSolver(SteadyStateSolver):
    """Reference solver: exact, O((Lx Ly)³), any lattice, any reservoirs, any boundaries."""

    name: ClassVar[str] = "closed_form"

    def _solve(self, spins: NDArray[np.float64]) -> SteadyState:
        mine = np.arange(self.world.rank, len(spins), self.world.size)
        reservoirs, sites = len(self.system.reservoirs), (len(spins), *self.system.lattice.size)
        components, current, error = np.zeros((*sites, 4)), np.zeros((len(spins), reservoirs)), np.zeros(len(spins))
        for snapshot in mine:
            components[snapshot], current[snapshot], error[snapshot] = self._snapshot(spins[snapshot])
        total = [self.world.sum(part) for part in (components, current, error)]
        return SteadyState.from_components(self.system, *total)

    def _snapshot(self, spins: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        found = torch.linalg.eig(torch.from_numpy(effective_hamiltonian(self.system, spins)))
        levels, vectors, inverse = found[0].numpy(), found[1].numpy(), torch.linalg.inv(found[1]).numpy()
        difference = levels[:, None] - levels.conj()[None, :]
        if np.min(np.abs(difference.diagonal())) == 0:
            raise HpcspinError("a level is coupled to no reservoir; its occupation is undefined, add a bath")
        groups = merge_potentials(self.system.reservoirs)
        overlaps = [_congruence(inverse, 2 * site_matrices(group.widths)) for group in groups]
        weighted = np.zeros_like(difference)
        for group, overlap in zip(groups, overlaps, strict=True):
            values = psi(levels, group.potential, self.system.temperature)
            weighted += overlap * (values[:, None] - values.conj()[None, :])
        weighted /= 2 * np.pi * difference
        components = self._sites(vectors, weighted)
        # With f = 1 for every reservoir the same sum must give rho = 1.
        filled = self._sites(vectors, -1j * sum(overlaps) / difference)
        filled[..., 0] -= 2
        error = 10 * self.scale * float(np.abs(filled).max())
        return components, self._currents(components, levels, vectors, inverse), error

    def _sites(self, vectors: Matrix, inner: Matrix) -> NDArray[np.float64]:
        """Components of the on-site blocks of R M R†, shape (Lx, Ly, 4)."""
        left = _product(vectors, inner).reshape(-1, 2, len(inner))
        blocks = np.einsum("iak,ibk->iab", left, vectors.conj().reshape(left.shape))
        components = np.einsum("kab,iba->ik", SIGMA, blocks).real
        return components.reshape(*self.system.lattice.size, 4)

    def _currents(
        self, components: NDArray[np.float64], levels: Matrix, vectors: Matrix, inverse: Matrix
    ) -> NDArray[np.float64]:
        """`reservoir_currents`, where ∫ de/2pi f_r A is minus the anti-Hermitian part of psi_r(H + Sigma) / pi."""
        filled = np.zeros(len(self.system.reservoirs))
        for group in merge_potentials(self.system.reservoirs):
            values = psi(levels, group.potential, self.system.temperature)
            function = (vectors * values).reshape(-1, 2, len(levels))
            blocks = np.einsum("iak,kib->iab", function, inverse.reshape(len(levels), -1, 2))
            coefficients = np.einsum("kab,iba->ik", SIGMA, blocks)
            # i (X - X†) / 2 pi of a block that is not Hermitian: twice the imaginary part of each coefficient.
            spectral = -coefficients.imag.reshape(components.shape) / np.pi
            filled[group.members] = width_traces(self.system, spectral)[group.members]
        return reservoir_currents(self.system, filled, components)


def _congruence(inverse: Matrix, widths: NDArray[np.complex128]) -> Matrix:
    """R^-1 Gamma R^-† for a width matrix of 2x2 blocks, shape (Lx, Ly, 2, 2)."""
    blocks = widths.reshape(-1, 2, 2)
    touched = np.flatnonzero(blocks.any(axis=(1, 2)))
    columns = inverse.reshape(len(inverse), -1, 2)[:, touched]
    scaled = np.einsum("mia,iab->mib", columns, blocks[touched])
    return _product(scaled.reshape(len(inverse), -1), columns.reshape(len(inverse), -1).conj().T)


def _product(left: Matrix, right: Matrix) -> Matrix:
    """Matrix product on all cores by torch, whose BLAS is the same as that of the eigensolver."""
    return (torch.from_numpy(np.ascontiguousarray(left)) @ torch.from_numpy(np.ascontiguousarray(right))).numpy()
