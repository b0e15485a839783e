"""Layer blocks of the Hamiltonian and the constant coupling of neighbouring columns.

Orbital order: site-major, spin minor; a column has m = 2 Ly orbitals. All
matrices are in units of the hopping: blocks hold (H_x - i Gamma_x) / t and the
coupling is H_{x,x+1} / t = -W with W = 1 on the square lattice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcspin.electrons.backend import Array, Backend
from hpcspin.electrons.model import SIGMA, DrivenLattice, site_matrices
from hpcspin.errors import HpcspinError


@dataclass(frozen=True)
class Coupling:
    """W = -H_{x,x+1} / t, applied without ever being formed.

    On the square lattice W is the identity and costs nothing; on the
    triangular lattice W = 1 + P, where row y of P holds site y - 1 of the
    next column, and a product is one shifted addition.

    Attributes
    ----------
    diagonal
        Whether the (+1, -1) bond exists.
    periodic
        Whether y closes on itself.
    flipped
        Whether this is the coupling W† of the lattice mirrored in x.
    """

    backend: Backend
    diagonal: bool
    periodic: bool
    flipped: bool = False

    def mirrored(self) -> Coupling:
        """Coupling of the lattice with its columns in reverse order."""
        return Coupling(self.backend, self.diagonal, self.periodic, not self.flipped)

    def _add_neighbour(self, matrix: Array, step: int, axis: int) -> Array:
        """``matrix`` plus itself moved by ``step`` sites along its rows (-2) or columns (-1)."""
        xp = self.backend.xp
        moved = xp.roll(matrix, 2 * step, axis=axis)
        if not self.periodic:
            edge = slice(0, 2) if step > 0 else slice(-2, None)
            moved[(..., edge, slice(None)) if axis == -2 else (..., edge)] = 0
        return matrix + moved

    def up(self, matrix: Array) -> Array:
        """W X."""
        return self._add_neighbour(matrix, -1 if self.flipped else 1, -2) if self.diagonal else matrix

    def down(self, matrix: Array) -> Array:
        """W† X."""
        return self._add_neighbour(matrix, 1 if self.flipped else -1, -2) if self.diagonal else matrix

    def wrap_up(self, matrix: Array) -> Array:
        """W X W†: what column x + 1 does to column x."""
        if not self.diagonal:
            return matrix
        return self._add_neighbour(self.up(matrix), -1 if self.flipped else 1, -1)

    def wrap_down(self, matrix: Array) -> Array:
        """W† X W: what column x - 1 does to column x."""
        if not self.diagonal:
            return matrix
        return self._add_neighbour(self.down(matrix), 1 if self.flipped else -1, -1)

    def down_right(self, matrix: Array) -> Array:
        """X W."""
        return self._add_neighbour(matrix, 1 if self.flipped else -1, -1) if self.diagonal else matrix


def make_coupling(system: DrivenLattice, backend: Backend) -> Coupling:
    """Coupling of neighbouring columns.

    Raises
    ------
    HpcspinError
        If the lattice closes on itself along x: it has no first column.
    """
    if system.lattice.periodic[0]:
        raise HpcspinError(
            "electrons.solver: negf recurses from one end of the lattice to the other and x is periodic; "
            "use closed_form or open x"
        )
    return Coupling(backend, (1, -1) in system.lattice.bonds, system.lattice.periodic[1])


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
    local = _on_site(system, spins)[:, own]
    n, columns, rows = local.shape[:3]
    on_site = backend.asarray(local / system.hopping)
    eye = backend.asarray(np.eye(rows))
    blocks = xp.reshape(on_site, (n, columns, rows, 2, 1, 2)) * eye[:, None, :, None]
    blocks = xp.reshape(blocks, (n, columns, 2 * rows, 2 * rows))
    return blocks + backend.asarray(_bonds_within_column(system).astype(np.complex128))


def _on_site(system: DrivenLattice, spins: NDArray[np.float64]) -> NDArray[np.complex128]:
    """-J S·sigma - i sum Gamma of every site, shape (..., Lx, Ly, 2, 2)."""
    exchange = -system.exchange * np.tensordot(spins, SIGMA[1:], axes=1)
    return np.asarray(exchange - 1j * site_matrices(system.widths.sum(axis=0)), dtype=np.complex128)


def _bonds_within_column(system: DrivenLattice) -> NDArray[np.float64]:
    """Hopping along y inside one column in units of t, shape (m, m)."""
    rows = system.lattice.size[1]
    chain = np.eye(rows, k=1) + np.eye(rows, k=-1)
    if system.lattice.periodic[1]:
        chain[0, -1] = chain[-1, 0] = 1
    return -np.kron(chain, np.eye(2)).astype(np.float64)


def effective_hamiltonian(system: DrivenLattice, spins: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Dense H - i sum Gamma of one snapshot, shape (2 Lx Ly, 2 Lx Ly), in units of energy.

    Parameters
    ----------
    system
        Lattice, parameters and reservoirs; any periodic axes.
    spins
        Unit vectors, shape (Lx, Ly, 3).
    """
    sites = system.lattice.num_sites
    targets = system.lattice.shift(system.lattice.bonds)
    hopping = np.zeros((sites, sites))
    origin, bond = np.nonzero(targets >= 0)
    np.add.at(hopping, (origin, targets[origin, bond]), -system.hopping)
    dense = np.kron(hopping + hopping.T, np.eye(2)).astype(np.complex128)
    local = _on_site(system, spins)
    view = dense.reshape(sites, 2, sites, 2)
    view[np.arange(sites), :, np.arange(sites), :] += local.reshape(sites, 2, 2)
    return dense
