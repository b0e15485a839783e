"""Layer blocks of the Hamiltonian and the constant coupling of neighbouring columns.

Orbital order: site-major, spin minor; a column has m = 2 Ly orbitals. All
matrices are in units of the hopping: blocks hold (H_x - i Gamma_x) / t and the
coupling is H_{x,x+1} / t = -W. Both follow from the lattice's bonds alone.
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

    W is a sum of shifts: for each of its steps d, site y of a column is bound to
    site y + d of the next one. A product with W is one shifted addition a step;
    where d = 0 is the only one W is the identity and costs nothing.

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
    local = _on_site(system, spins)[:, own]
    n, columns, rows = local.shape[:3]
    on_site = backend.asarray(local / system.hopping)
    eye = backend.asarray(np.eye(rows))
    blocks = xp.reshape(on_site, (n, columns, rows, 2, 1, 2)) * eye[:, None, :, None]
    blocks = xp.reshape(blocks, (n, columns, 2 * rows, 2 * rows))
    within = -np.kron(bonds_within_column(system.lattice), np.eye(2))
    return blocks + backend.asarray(within.astype(np.complex128))


def _on_site(system: DrivenLattice, spins: NDArray[np.float64]) -> NDArray[np.complex128]:
    """-J S·sigma - i sum Gamma of every site, shape (..., Lx, Ly, 2, 2)."""
    exchange = -system.exchange * np.tensordot(spins, SIGMA[1:], axes=1)
    return np.asarray(exchange - 1j * site_matrices(system.widths.sum(axis=0)), dtype=np.complex128)


def bonds_within_column(lattice: Lattice) -> NDArray[np.float64]:
    """Number of bonds between the sites of one column, shape (Ly, Ly)."""
    rows = lattice.size[1]
    if lattice.periodic[1]:
        hops = [np.roll(np.eye(rows), step, axis=1) for step in _steps_to_column(lattice, 0)]
    else:
        hops = [np.eye(rows, k=step) for step in _steps_to_column(lattice, 0)]
    return np.sum([np.zeros((rows, rows)), *hops], axis=0)


def is_chain(lattice: Lattice) -> bool:
    """Whether a column's only bonds are those of sites that follow one another along y."""
    return _steps_to_column(lattice, 0) == ((-1, 1) if lattice.size[1] > 1 else ())


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
