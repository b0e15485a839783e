"""The Hamiltonian (Eq. 6 of arXiv:2112.12124), the self-energy and G^R, whole or in blocks of the columns of sites.

Orbitals are ordered by site, then by spin; a column has m = 2 Ly orbitals. The matrices of the whole lattice have the
dimension of energy. Layer blocks are in units of the hopping: they are (H_x + Sigma_x) / t = (H_x - i Gamma_x) / t, and
the coupling of neighbouring columns is H_{x,x+1} / t = -W. All follow from the hopping terms of the system.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hpcspin.electrons.backend import Array, Backend
from hpcspin.electrons.model import DrivenLattice, site_matrices
from hpcspin.electrons.system import SIGMA, ElectronSystem
from hpcspin.errors import HpcspinError


@dataclass(frozen=True)
class Coupling:
    """W = -H_{x,x+1} / t, applied without forming the matrix.

    W is a sum of shifts, each with a 2x2 matrix: a step d connects site y of a column to site y + d of the next column.
    A product with W takes one shifted addition for each step, and costs nothing where W is the identity.
    """

    backend: Backend
    steps: tuple[int, ...]
    """The steps d that stay on the lattice, shortest first."""
    matrices: NDArray[np.complex128]
    """The matrix of each step in spin space, shape (steps, 2, 2)."""
    periodic: bool
    """Whether the lattice is periodic along y."""

    @cached_property
    def is_identity(self) -> bool:
        """Whether W = 1."""
        return self.steps == (0,) and np.array_equal(self.matrices[0], np.eye(2))

    def mirrored(self) -> Coupling:
        """Coupling W† of the lattice with its columns in reverse order."""
        return replace(self, steps=tuple(-step for step in self.steps), matrices=self.matrices.conj().swapaxes(-1, -2))

    def _shifted(self, matrix: Array, sign: int, axis: int) -> Array:
        """W X or W† X (``axis`` -2, ``sign`` 1 or -1); X W† or X W (``axis`` -1)."""
        if self.is_identity:
            return matrix
        xp, total = self.backend.xp, None
        for step, spin in zip(self.steps, self.matrices, strict=True):
            moved = matrix
            if step:
                moved = xp.roll(matrix, -2 * sign * step, axis=axis)
                if not self.periodic:
                    edge = slice(-2 * sign * step, None) if sign * step > 0 else slice(0, -2 * sign * step)
                    moved[(..., edge, slice(None)) if axis == -2 else (..., edge)] = 0
            moved = self._turned(moved, spin if sign > 0 else spin.conj().T, axis)
            total = moved if total is None else total + moved
        return xp.zeros_like(matrix) if total is None else total

    def _turned(self, matrix: Array, spin: NDArray[np.complex128], axis: int) -> Array:
        """The 2x2 matrix times every pair of rows of X, or every pair of columns times its adjoint."""
        if np.array_equal(spin, np.eye(2)):
            return matrix
        if np.array_equal(spin, spin[0, 0].real * np.eye(2)):
            return matrix * float(spin[0, 0].real)
        xp = self.backend.xp
        factor = xp.astype(self.backend.asarray(spin if axis == -2 else spin.conj().T), matrix.dtype, copy=False)
        shape = matrix.shape
        if axis == -1:
            return xp.reshape(xp.reshape(matrix, (*shape[:-1], shape[-1] // 2, 2)) @ factor, shape)
        return xp.reshape(factor @ xp.reshape(matrix, (*shape[:-2], shape[-2] // 2, 2, shape[-1])), shape)

    def up(self, matrix: Array) -> Array:
        """W X."""
        return self._shifted(matrix, 1, -2)

    def down(self, matrix: Array) -> Array:
        """W† X."""
        return self._shifted(matrix, -1, -2)

    def wrap_up(self, matrix: Array) -> Array:
        """W X W†, the effect of column x + 1 on column x."""
        return self._shifted(self.up(matrix), 1, -1)

    def wrap_down(self, matrix: Array) -> Array:
        """W† X W, the effect of column x - 1 on column x."""
        return self._shifted(self.down(matrix), -1, -1)


def make_coupling(system: DrivenLattice, backend: Backend) -> Coupling:
    """Coupling of neighbouring columns; raises HpcspinError if x is periodic, or a bond joins columns farther apart."""
    lattice = system.lattice
    if lattice.periodic[0]:
        raise HpcspinError(
            "electrons.solver: negf recurses from one end of the lattice to the other and x is periodic; "
            "use closed_form or open x"
        )
    for term in system.hopping_terms:
        if 1 < abs(term.offset[0]) < lattice.size[0]:
            raise HpcspinError(
                f"electrons.solver: negf recurses over neighbouring columns and the bond {term.offset} of the lattice "
                f"{lattice.kind!r} reaches past the next one; use closed_form"
            )
    return _coupling_to_column(system, 1, backend)


def _coupling_to_column(system: DrivenLattice, columns: int, backend: Backend) -> Coupling:
    """W of the bonds to the column ``columns`` ahead; steps along a periodic y lie in [-Ly/2, Ly/2)."""
    lattice = system.lattice
    rows, closed = lattice.size[1], lattice.periodic[1]
    found = []
    if columns < lattice.size[0]:
        for term in system.hopping_terms:
            for sign, matrix in ((1, term.matrix), (-1, term.matrix.conj().T)):
                if sign * term.offset[0] == columns:
                    step = sign * term.offset[1]
                    step = (step + rows // 2) % rows - rows // 2 if closed else step
                    found.append((step, -matrix / system.nearest_hopping))
    kept = sorted((pair for pair in found if abs(pair[0]) < rows), key=lambda pair: (abs(pair[0]), pair[0]))
    matrices = np.array([matrix for _, matrix in kept]).reshape(-1, 2, 2)
    return Coupling(backend, tuple(step for step, _ in kept), matrices, closed)


def layer_blocks(
    system: DrivenLattice, spins: NDArray[np.float64], backend: Backend, own: slice = slice(None)
) -> Array:
    """Blocks (H_x - i Gamma_x) / t of the columns ``own``, complex, shape (n, columns, m, m); n snapshots of spins."""
    xp = backend.xp
    local = (site_energies(system, spins) + self_energy(system))[:, own]
    n, columns, rows = local.shape[:3]
    on_site = backend.asarray(local / system.nearest_hopping)
    eye = backend.asarray(np.eye(rows))
    blocks = xp.reshape(on_site, (n, columns, rows, 2, 1, 2)) * eye[:, None, :, None]
    blocks = xp.reshape(blocks, (n, columns, 2 * rows, 2 * rows))
    within = _coupling_to_column(system, 0, backend)
    return blocks - within.up(backend.asarray(np.eye(2 * rows, dtype=np.complex128)))


def is_chain(system: DrivenLattice) -> bool:
    """Whether a column has only bonds of nearest neighbours along y, with the same hopping for both spins."""
    steps = {abs(term.offset[1]) for term in system.hopping_terms if term.offset[0] == 0}
    plain = all(np.array_equal(term.matrix, term.matrix[0, 0].real * np.eye(2)) for term in system.hopping_terms)
    return plain and (steps == {1} or system.lattice.size[1] == 1)


def sd_hamiltonian(system: ElectronSystem, spins: NDArray[np.float64]) -> NDArray[np.complex128]:
    """H_sd, Eq. 6 of arXiv:2112.12124, shape (..., 2 Lx Ly, 2 Lx Ly).

        H_sd = -t sum_<ij> (c†_i c_j + h.c.) - J sum_i S_i · c†_i sigma c_i,

    with the further hopping, Rashba coupling and on-site energies that `ElectronSystem` may have.

    Parameters
    ----------
    system
        Lattice, open or periodic along any axis, and parameters.
    spins
        Unit vectors, shape (..., Lx, Ly, 3).
    """
    sites = system.lattice.num_sites
    hopping = np.zeros((sites, 2, sites, 2), dtype=np.complex128)
    for term in system.hopping_terms:
        target = system.lattice.shift(term.offset)[:, 0]
        origin = np.flatnonzero(target >= 0)
        # One offset leads from a site to one other site: no element is addressed twice.
        hopping[origin, :, target[origin]] += term.matrix
    whole = hopping.reshape(2 * sites, 2 * sites)
    whole = whole + whole.conj().T
    local = site_energies(system, spins).reshape(*spins.shape[:-3], sites, 2, 2)
    found = np.tile(whole, (*spins.shape[:-3], 1, 1)).reshape(*spins.shape[:-3], sites, 2, sites, 2)
    np.einsum("...iaib->...iab", found)[...] += local
    return found.reshape(*spins.shape[:-3], 2 * sites, 2 * sites)


def occupied_orbitals(system: ElectronSystem) -> NDArray[np.int64]:
    """Indices of the orbitals that are not on vacancies."""
    return np.flatnonzero(np.repeat(system.occupied.reshape(-1), 2))


def without_vacancies(system: ElectronSystem, matrix: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """The rows and columns of `occupied_orbitals` of a matrix of the lattice, shape (..., 2 Lx Ly, 2 Lx Ly)."""
    if system.vacancies is None:
        return matrix
    there = occupied_orbitals(system)
    return matrix[..., there[:, None], there]


def self_energy(system: DrivenLattice) -> NDArray[np.complex128]:
    """Retarded self-energy of the wide-band reservoirs on each site, shape (Lx, Ly, 2, 2).

    Sigma^R = -i sum_r Gamma_r with Gamma_r = g_r (1 + p_r·sigma), the same at all energies; it enters the paper's G^R
    below Eq. 6. The lesser self-energy follows from the fluctuation-dissipation theorem,
    Sigma^< = 2 i sum_r f_r Gamma_r.
    """
    return -1j * site_matrices(system.widths.sum(axis=0))


def effective_hamiltonian(system: DrivenLattice, spins: NDArray[np.float64]) -> NDArray[np.complex128]:
    """H_sd + Sigma^R of one snapshot, shape (2 Lx Ly, 2 Lx Ly); arguments as for `sd_hamiltonian`."""
    return sd_hamiltonian(system, spins) + block_diagonal(self_energy(system).reshape(-1, 2, 2))


def retarded_green(
    system: DrivenLattice, spins: NDArray[np.float64], energies: NDArray[np.complex128]
) -> NDArray[np.complex128]:
    """G^R(e) = [e - H_sd - Sigma^R]^-1 as whole matrices, the formula below Eq. 6 of arXiv:2112.12124.

    For inspection at single energies; the solvers never form these matrices.

    Parameters
    ----------
    system, spins
        As for `sd_hamiltonian`.
    energies
        Real, or complex above the real axis, shape (...).

    Returns
    -------
    ndarray
        In units of 1/energy, shape (..., 2 Lx Ly, 2 Lx Ly).

    Raises
    ------
    numpy.linalg.LinAlgError
        If an energy coincides with a level that is coupled to no reservoir.
    """
    effective = effective_hamiltonian(system, spins)
    shifted = np.asarray(energies)[..., None, None] * np.eye(len(effective)) - effective
    return np.linalg.inv(shifted).astype(np.complex128, copy=False)


def site_energies(system: ElectronSystem, spins: NDArray[np.float64]) -> NDArray[np.complex128]:
    """e_i - J_i S_i·sigma of every site, shape (..., Lx, Ly, 2, 2); vacancies have their `site_levels`."""
    exchange = -np.asarray(system.exchange)[..., None] * spins
    found = np.asarray(np.tensordot(exchange, SIGMA[1:], axes=1), dtype=np.complex128)
    return found + system.site_levels[..., None, None] * SIGMA[0]


def block_diagonal(blocks: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """Block-diagonal matrices, shape (..., 2 n, 2 n), from 2x2 blocks, shape (..., n, 2, 2)."""
    n = blocks.shape[-3]
    whole = blocks[..., None, :] * np.eye(n)[:, None, :, None]
    return whole.reshape(*blocks.shape[:-3], 2 * n, 2 * n)
