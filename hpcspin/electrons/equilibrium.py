"""The equilibrium part of the density matrix, f_0 A: a sum over a few Matsubara frequencies, an integral for the rest.

    rho = 1/2 + T sum_n F(omega_n),     F(y) = G(mu_0 + i y) + h.c.,     omega_n = (2 n + 1) pi T.

The frequencies are the midpoints of intervals of length h = 2 pi T. Beyond the first few F is smooth on that scale, and
the Euler-Maclaurin formula turns their sum into an integral from Omega = M h to infinity,

    h sum_{n >= M} F(omega_n) = ∫ F dy + h²/24 F'(Omega) - 7 h⁴/5760 F'''(Omega) + 31 h⁶/967680 F⁽⁵⁾(Omega) - ...,

with the derivatives from differences over the frequencies around Omega. In u = 1 / y the integrand is analytic down to
u = 0: a few dozen nodes suffice at any temperature and yield their own error estimate. The Green's function of the
isolated site (its own on-site Hamiltonian and width) is subtracted everywhere and its sum added back in closed form, so
that F decays fast.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hpcspin.electrons.backend import SINGULAR, Array, Backend
from hpcspin.electrons.columns import ColumnTeam
from hpcspin.electrons.fermi import psi_of_sites
from hpcspin.electrons.model import DrivenLattice
from hpcspin.electrons.onsite import on_site_places, real_part
from hpcspin.electrons.quadrature import Integrand, integrate
from hpcspin.electrons.workers import equal_parts, map_parts
from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World

_FREQUENCIES = 10
_MOST_FREQUENCIES = 5000
_RATIO = 8.0
"""Ratio of the ends of an interval of the first grid, which keeps it far enough from the levels, at y = 0."""
# Differences over the 2, 4 and 6 frequencies around Omega, and their coefficients in the sum.
_DIFFERENCES = np.array([[0, 0, -1, 1, 0, 0], [0, -1, 3, -3, 1, 0], [-1, 5, -10, 10, -5, 1]])
_EULER_MACLAURIN = np.array([1 / 24, -17 / 5760, 367 / 967680])


class EquilibriumPart:
    """On-site blocks of ∫ de/2pi f_0 A for the potential mu_0, ``reference``.

    ``tolerance`` is the largest error of the field from this part, ``batch`` the number of energies in one sweep.
    """

    def __init__(
        self, system: DrivenLattice, reference: float, columns: ColumnTeam, tolerance: float, batch: int
    ) -> None:
        self.system = system
        self.reference = reference
        self.columns = columns
        self.backend = columns.coupling.backend
        self.tolerance = tolerance
        self.batch = batch
        self.spacing = 2 * np.pi * system.temperature
        self._places = self.backend.asarray(on_site_places(2 * system.lattice.size[1]))

    def solve(
        self, blocks: Array, spins: NDArray[np.float64], world: World
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Components of the equilibrium part, shape (n, Lx, Ly, 4), and its errors in the field, shape (n,).

        ``blocks`` are the layer blocks of my columns, shape (n, columns, m, m), ``spins`` unit vectors, shape (n, Lx,
        Ly, 3); the ranks of ``world`` share the energies. Raises HpcspinError if no affordable number of frequencies
        reaches the tolerance, or the Green's function is not finite.
        """
        site = _IsolatedSites(self.system, spins, self.reference, self.backend)
        count = _FREQUENCIES
        while True:
            near, near_errors = self._near(blocks, site, count, world)
            if not np.isfinite(near_errors).all():
                raise HpcspinError(f"the Green's function is not finite at the Matsubara frequencies: {SINGULAR}")
            if near_errors.max() <= self.tolerance / 2:
                break
            if count > _MOST_FREQUENCIES:
                raise HpcspinError(
                    f"the equilibrium part does not reach {self.tolerance:.1e} with {count} Matsubara frequencies; "
                    "raise electrons.tolerance or electrons.temperature, and start again"
                )
            count *= 2
        far, far_errors = self._far(blocks, site, count, world)
        return site.integral() + near + far, near_errors + far_errors

    def _near(
        self, blocks: Array, site: _IsolatedSites, count: int, world: World
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The frequencies below Omega with the correction terms at Omega, and the error, which is the last term."""
        corrections = _EULER_MACLAURIN[:, None] * _DIFFERENCES
        weights = np.ones(count + 3)
        weights[count:] = 0
        weights[count - 3 :] += corrections.sum(axis=0)
        last = np.zeros(count + 3)
        last[count - 3 :] = corrections[-1]
        n, frequencies = blocks.shape[0], self.spacing * (np.arange(count + 3) + 0.5)
        mine = np.array_split(np.arange(n * (count + 3)), world.size)[world.rank]
        owner, heights = mine // (count + 3), frequencies[mine % (count + 3)]
        parts = equal_parts(self.backend, len(mine), self.batch)
        found = map_parts(self.backend, lambda part: self._values(blocks, site, heights[part], owner[part]), parts)
        backend, xp, size = self.backend, self.backend.xp, self.system.lattice.size
        values = xp.zeros((n * (count + 3), 4 * size[0] * size[1]), dtype=xp.float64, device=blocks.device)
        for part, some in zip(parts, found, strict=True):
            values[mine[0] + part.start : mine[0] + part.stop] = some
        values = xp.reshape(values, (n, count + 3, -1))
        totals = [xp.sum(values * backend.asarray(w)[:, None], axis=1) for w in (weights, last)]
        near, term = world.sum(self.system.temperature * backend.to_numpy(xp.stack(totals)))
        return near.reshape(n, *size, 4), self.system.scale * np.abs(term).max(axis=1)

    def _far(
        self, blocks: Array, site: _IsolatedSites, count: int, world: World
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """∫ F dy / 2 pi from Omega to infinity, integrated over u = 1 / y, and its error."""
        omega = count * self.spacing
        half_width = (self.system.band_edge + abs(self.reference)) / 2
        pieces = max(0, math.ceil(math.log(half_width / omega, _RATIO)))
        edges = np.concatenate([[0.0], np.geomspace(1 / max(omega, half_width), 1 / omega, pieces + 1)])

        def values(inverse: NDArray[np.float64], owner: NDArray[np.int64]) -> Array:
            found = self._values(blocks, site, 1 / inverse, owner)
            return found * self.backend.asarray(1 / (2 * np.pi * inverse[:, None] ** 2))

        sites = 4 * self.system.lattice.num_sites
        integrand = Integrand(values, sites, sites, self.system.scale, self.batch)
        n = blocks.shape[0]
        result = integrate(integrand, [edges] * n, self.tolerance / 2, world, self.backend)
        return result.values.reshape(n, *self.system.lattice.size, 4), result.errors

    def _values(
        self, blocks: Array, site: _IsolatedSites, heights: NDArray[np.float64], owner: NDArray[np.int64]
    ) -> Array:
        """Components of F minus those of the isolated sites, at heights y, shape (heights, 4 Lx Ly)."""
        backend, xp, m = self.backend, self.backend.xp, blocks.shape[-1]
        energies, owners = backend.asarray(self.reference + 1j * heights), backend.asarray(owner)
        slab = self.columns.connect(blocks, energies / self.system.nearest_hopping, owners)
        elements = [xp.take(xp.reshape(full, (-1, m * m)), self._places, axis=1) for full in slab.diagonals()]
        whole = self.columns.gather(real_part(xp, xp.stack(elements, axis=1)))
        return xp.reshape(whole * (-1 / self.system.nearest_hopping) - site.green(energies, owners), (len(heights), -1))


class _IsolatedSites:
    """Sites without hopping; on each of them h - i Gamma = a + b·sigma."""

    def __init__(self, system: DrivenLattice, spins: NDArray[np.float64], reference: float, backend: Backend) -> None:
        widths = system.widths.sum(axis=0)
        self._vector = -np.asarray(system.exchange)[..., None] * spins - 1j * widths[..., 1:]
        self._scalar = np.tile(system.site_levels - 1j * widths[..., 0], (len(spins), 1, 1))
        self._reference, self._temperature, self._xp = reference, system.temperature, backend.xp
        # Uploaded before the workers read it in their own streams.
        square = np.sum(self._vector * self._vector, axis=-1)
        self._on_device = tuple(backend.asarray(part) for part in (self._scalar, self._vector, square))

    def integral(self) -> NDArray[np.float64]:
        """Components of ∫ de/2pi f A = (i/2pi) [psi(h - i Gamma) - h.c.], shape (n, Lx, Ly, 4)."""
        mean, slope = psi_of_sites(self._scalar, self._vector, self._reference, self._temperature)
        function = np.concatenate([mean[..., None], slope[..., None] * self._vector], axis=-1)
        return -2 / np.pi * function.imag

    def green(self, energies: Array, owner: Array) -> Array:
        """Components of G + G†, G = (z - a + b·sigma) / ((z - a)² - b·b), shape (energies, Lx, Ly, 4)."""
        xp = self._xp
        scalar, vector, square = (part[owner] for part in self._on_device)
        shifted = energies[:, None, None] - scalar
        weight = 4 / (shifted * shifted - square)
        return xp.real(weight[..., None] * xp.concat([shifted[..., None], vector], axis=-1))
