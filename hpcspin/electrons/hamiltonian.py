"""The Hamiltonian (Eq. 6 of arXiv:2112.12124), the self-energy and G^R, whole or in blocks of the columns of sites.

Orbital order: site-major, spin minor; a column has m = 2 Ly orbitals. The matrices of the whole lattice are in units
of energy. Layer blocks are in units of the hopping: they hold (H_x + Sigma_x) / t = (H_x - i Gamma_x) / t, and the
coupling of neighbouring columns is H_{x,x+1} / t = -W. All follow from the lattice's bonds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hpcspin.electrons.backend import Array, Backend
from hpcspin.electrons.model import SIGMA, DrivenLattice, site_matrices
from hpcspin.errors import HpcspinError
from hpcspin.lattice import Lattice


@dataclass(frozen=True)
class Coupling:
    """W = -H_{x,x+1} / t, applied without ever being formed.

    W is a sum of shifts: for each of its steps d, site y of a column is bound to site y + d of the next one. A product
    with W is one shifted addition a step; where d = 0 is the only one W is the identity and costs nothing.

    Attributes
    ----------
    steps
        The steps d that stay on the lattice, the shortest first.
    periodic
        Whether y closes on itself.
    """

    backend: Backend
    steps: tuple[int, ...]
    periodic: bool

    @property
    def is_identity(self) -> bool:
        """Whether W = 1."""
        return self.steps == (0,)

    def mirrored(self) -> Coupling:
        """Coupling W† of the lattice with its columns in reverse order."""
        return replace(self, steps=tuple(-step for step in self.steps))

    def _shifted(self, matrix: Array, sign: int, axis: int) -> Array:
        """Sum over the steps of ``matrix`` with its rows (-2) or columns (-1) at y taken from y + ``sign`` d."""
        if self.is_identity:
            return matrix
        xp, total = self.backend.xp, None
        for step in self.steps:
            moved = matrix
            if step:
                moved = xp.roll(matrix, -2 * sign * step, axis=axis)
                if not self.periodic:
                    edge = slice(-2 * sign * step, None) if sign * step > 0 else slice(0, -2 * sign * step)
                    moved[(..., edge, slice(None)) if axis == -2 else (..., edge)] = 0
            total = moved if total is None else total + moved
        return xp.zeros_like(matrix) if total is None else total

    def up(self, matrix: Array) -> Array:
        """W X."""
        return self._shifted(matrix, 1, -2)

    def down(self, matrix: Array) -> Array:
        """W† X."""
        return self._shifted(matrix, -1, -2)

    def wrap_up(self, matrix: Array) -> Array:
        """W X W†: what column x + 1 does to column x."""
        return self._shifted(self.up(matrix), 1, -1)

    def wrap_down(self, matrix: Array) -> Array:
        """W† X W: what column x - 1 does to column x."""
        return self._shifted(self.down(matrix), -1, -1)


def make_coupling(system: DrivenLattice, backend: Backend) -> Coupling:
    """Coupling of neighbouring columns.

    Raises
    ------
    HpcspinError
        If the lattice closes on itself along x, so that it has no first column,
        or if a bond joins columns that are not neighbours.
    """
    lattice = system.lattice
    if lattice.periodic[0]:
        raise HpcspinError(
            "electrons.solver: negf recurses from one end of the lattice to the other and x is periodic; "
            "use closed_form or open x"
        )
    for bond in lattice.bonds:
        if 1 < abs(bond[0]) < lattice.size[0]:
            raise HpcspinError(
                f"electrons.solver: negf recurses over neighbouring columns and the bond {bond} of the lattice "
                f"{lattice.kind!r} reaches past the next one; use closed_form"
            )
    return Coupling(backend, _steps_to_column(lattice, 1), lattice.periodic[1])


def _steps_to_column(lattice: Lattice, columns: int) -> tuple[int, ...]:
    """Steps along y of the bonds from a site to sites some columns ahead, those of a periodic y in [-Ly/2, Ly/2)."""
    rows = lattice.size[1]
    if columns >= lattice.size[0]:
        return ()
    steps = [sign * dy for dx, dy in lattice.bonds for sign in (1, -1) if sign * dx == columns]
    if lattice.periodic[1]:
        steps = [(step + rows // 2) % rows - rows // 2 for step in steps]
    return tuple(sorted((step for step in steps if abs(step) < rows), key=lambda step: (abs(step), step)))


def layer_blocks(
    system: DrivenLattice, spins: NDArray[np.float64], backend: Backend, own: slice = slice(None)
) -> Array:
    """Blocks (H_x - i Gamma_x) / t of every column.

    Parameters
    ----------
    system
        Lattice, parameters and reservoirs.
    spins
        Unit vectors, shape (n, Lx, Ly, 3).
    backend
        Where the blocks live.
    own
        The columns that are wanted.

    Returns
    -------
    Array
        Complex, shape (n, columns, m, m).
    """
    xp = backend.xp
    local = (_exchange_energy(system, spins) + self_energy(system))[:, own]
    n, columns, rows = local.shape[:3]
    on_site = backend.asarray(local / system.hopping)
    eye = backend.asarray(np.eye(rows))
    blocks = xp.reshape(on_site, (n, columns, rows, 2, 1, 2)) * eye[:, None, :, None]
    blocks = xp.reshape(blocks, (n, columns, 2 * rows, 2 * rows))
    within = Coupling(backend, _steps_to_column(system.lattice, 0), system.lattice.periodic[1])
    return blocks - within.up(backend.asarray(np.eye(2 * rows, dtype=np.complex128)))


def is_chain(lattice: Lattice) -> bool:
    """Whether a column's only bonds are those of sites that follow one another along y."""
    return _steps_to_column(lattice, 0) == ((-1, 1) if lattice.size[1] > 1 else ())


def sd_hamiltonian(system: DrivenLattice, spins: NDArray[np.float64]) -> NDArray[np.complex128]:
    """H_sd of one snapshot, Eq. 6 of arXiv:2112.12124, shape (2 Lx Ly, 2 Lx Ly).

        H_sd = -t sum_<ij> (c†_i c_j + h.c.) - J sum_i S_i · c†_i sigma c_i.

    Parameters
    ----------
    system
        Lattice, with any periodic axes, and parameters.
    spins
        Unit vectors, shape (Lx, Ly, 3).
    """
    sites = system.lattice.num_sites
    targets = system.lattice.shift(system.lattice.bonds)
    hopping = np.zeros((sites, sites))
    origin, bond = np.nonzero(targets >= 0)
    np.add.at(hopping, (origin, targets[origin, bond]), -system.hopping)
    return np.kron(hopping + hopping.T, np.eye(2)) + _block_diagonal(_exchange_energy(system, spins))


def self_energy(system: DrivenLattice) -> NDArray[np.complex128]:
    """Retarded self-energy of the wide-band reservoirs on each site, shape (Lx, Ly, 2, 2).

    Sigma^R = -i sum_r Gamma_r with Gamma_r = g_r (1 + p_r·sigma), the same at all energies; it enters the paper's G^R
    below Eq. 6. The lesser one follows by the fluctuation-dissipation theorem, Sigma^< = 2 i sum_r f_r Gamma_r.
    """
    return -1j * site_matrices(system.widths.sum(axis=0))


def effective_hamiltonian(system: DrivenLattice, spins: NDArray[np.float64]) -> NDArray[np.complex128]:
    """H_sd + Sigma^R of one snapshot, shape (2 Lx Ly, 2 Lx Ly); arguments as for `sd_hamiltonian`."""
    return sd_hamiltonian(system, spins) + _block_diagonal(self_energy(system))


def retarded_green(
    system: DrivenLattice, spins: NDArray[np.float64], energies: NDArray[np.complex128]
) -> NDArray[np.complex128]:
    """G^R(e) = [e - H_sd - Sigma^R]^-1 as whole matrices, the formula below Eq. 6 of arXiv:2112.12124.

    For a look at single energies; solvers take the columns of sites one by one.

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
        If an energy is that of a level without a reservoir.
    """
    effective = effective_hamiltonian(system, spins)
    shifted = np.asarray(energies)[..., None, None] * np.eye(len(effective)) - effective
    return np.linalg.inv(shifted).astype(np.complex128, copy=False)


def _exchange_energy(system: DrivenLattice, spins: NDArray[np.float64]) -> NDArray[np.complex128]:
    """-J S·sigma of every site, shape (..., Lx, Ly, 2, 2)."""
    return np.asarray(-system.exchange * np.tensordot(spins, SIGMA[1:], axes=1), dtype=np.complex128)


def _block_diagonal(sites: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """The matrix of the lattice with these 2x2 blocks, shape (Lx, Ly, 2, 2), on its diagonal."""
    blocks = sites.reshape(-1, 2, 2)
    return np.einsum("iab,ij->iajb", blocks, np.eye(len(blocks))).reshape(2 * len(blocks), -1)
