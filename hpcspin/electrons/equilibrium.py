"""The equilibrium part of the density matrix, f_0 A, as a sum over poles.

    rho = 1/2 + T sum_p R_p [G(z_p) + G(z_p)†],     z_p = mu_0 + i x_p T.

Wide-band tails fall as 1/z, which the poles alone resolve poorly. At the poles
the Green's function of the isolated site (its own on-site Hamiltonian and
width) is therefore subtracted, and its integral added back in closed form.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcspin.electrons.backend import Array
from hpcspin.electrons.columns import ColumnTeam
from hpcspin.electrons.fermi import MOST_POLES, count_poles, ozaki_poles, psi_of_sites
from hpcspin.electrons.model import DrivenLattice
from hpcspin.electrons.onsite import real_part_sites
from hpcspin.electrons.workers import each, shares
from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World

_COARSER = 0.7
"""Share of the poles in the second sum, whose difference certifies the first."""


class EquilibriumPart:
    """On-site blocks of ∫ de/2pi f_0 A.

    Parameters
    ----------
    system
        The driven lattice.
    reference
        The potential mu_0.
    columns
        The columns of sites and the ranks that hold them.
    scale
        From an error of the on-site components to one of the field.
    tolerance
        For the field, of this part.
    batch
        Energies in one sweep.
    """

    def __init__(
        self,
        system: DrivenLattice,
        reference: float,
        columns: ColumnTeam,
        scale: float,
        tolerance: float,
        batch: int,
    ) -> None:
        self.system = system
        self.reference = reference
        self.columns = columns
        self.backend = columns.coupling.backend
        self.scale = scale
        self.tolerance = tolerance
        self.batch = batch
        reach = system.band_edge + abs(reference)
        self.count = count_poles(reach, system.temperature, 0.1 * tolerance / scale)

    def solve(
        self, blocks: Array, spins: NDArray[np.float64], world: World
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Components of the equilibrium part and the error of the field.

        Parameters
        ----------
        blocks
            Layer blocks of my columns, shape (n, columns, m, m).
        spins
            Shape (n, Lx, Ly, 3).
        world
            Ranks that share the poles.

        Returns
        -------
        tuple
            Components (n, Lx, Ly, 4), errors (n,).

        Raises
        ------
        HpcspinError
            If no affordable number of poles reaches the tolerance.
        """
        site = _IsolatedSites(self.system, spins, self.reference)
        exact = site.integral()
        count = self.count
        coarse = self._pole_sum(blocks, site, round(_COARSER * count), world)
        while count <= MOST_POLES:
            fine = self._pole_sum(blocks, site, count, world)
            errors = self.scale * np.abs(fine - coarse).max(axis=(1, 2, 3))
            if errors.max() <= self.tolerance:
                return exact + fine, errors
            coarse, count = fine, round(count / _COARSER)
        raise HpcspinError(
            f"the equilibrium part does not reach {self.tolerance:.1e} with {MOST_POLES} poles; "
            "raise electrons.tolerance or electrons.temperature"
        )

    def _pole_sum(self, blocks: Array, site: _IsolatedSites, count: int, world: World) -> NDArray[np.float64]:
        """T sum_p R_p [G - G_site + h.c.] on every site, shape (n, Lx, Ly, 4)."""
        temperature = self.system.temperature
        poles, residues = ozaki_poles(count)
        energies = np.asarray(self.reference + 1j * poles * temperature, dtype=np.complex128)
        n, (columns, rows) = blocks.shape[0], self.system.lattice.size
        nodes = np.arange(n * count)
        total = np.zeros((n, columns, rows, 4))
        mine = np.array_split(nodes, world.size)[world.rank]
        owner, pole = mine // count, mine % count

        def sweep(part: slice) -> NDArray[np.float64]:
            return self._sweep(blocks, energies[pole[part]], owner[part])

        parts = shares(self.backend, len(mine), self.batch)
        for part, sites in zip(parts, each(self.backend, sweep, parts), strict=True):
            np.add.at(total, owner[part], temperature * residues[pole[part], None, None, None] * sites)
        return world.sum(total) - temperature * site.pole_sum(energies, residues)

    def _sweep(self, blocks: Array, energies: NDArray[np.complex128], owner: NDArray[np.int64]) -> NDArray[np.float64]:
        """Components of G + G†, shape (batch, Lx, Ly, 4)."""
        backend = self.backend
        z = backend.asarray(energies / self.system.hopping)
        slab = self.columns.connect(blocks, z, backend.asarray(owner))
        sites = backend.xp.stack([real_part_sites(backend.xp, d) for d in slab.diagonals()], axis=1)
        return backend.to_numpy(self.columns.gather(sites)) * (-1 / self.system.hopping)


@dataclass(frozen=True)
class _IsolatedSites:
    """Sites without hopping: h - i Gamma = scalar + vector·sigma on each."""

    system: DrivenLattice
    spins: NDArray[np.float64]
    reference: float

    def _coefficients(self) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
        widths = self.system.widths.sum(axis=0)
        vector = -self.system.exchange * self.spins - 1j * widths[..., 1:]
        return np.broadcast_to(-1j * widths[..., 0], vector.shape[:-1]), vector

    def integral(self) -> NDArray[np.float64]:
        """Components of ∫ de/2pi f A = (i/2pi) [psi(h - i Gamma) - h.c.], shape (n, Lx, Ly, 4)."""
        scalar, vector = self._coefficients()
        mean, slope = psi_of_sites(scalar, vector, self.reference, self.system.temperature)
        function = np.concatenate([mean[..., None], slope[..., None] * vector], axis=-1)
        return -2 / np.pi * function.imag

    def pole_sum(self, energies: NDArray[np.complex128], residues: NDArray[np.float64]) -> NDArray[np.float64]:
        """Components of sum_p R_p [G + G†], G = (z - a + b·sigma) / ((z - a)² - b·b)."""
        scalar, vector = self._coefficients()
        shifted = energies[:, None, None, None] - scalar
        divisor = shifted**2 - np.sum(vector * vector, axis=-1)
        weights = residues[:, None, None, None] / divisor
        direction = weights.sum(axis=0)[..., None] * vector
        green = np.concatenate([(weights * shifted).sum(axis=0)[..., None], direction], axis=-1)
        return 4 * green.real
