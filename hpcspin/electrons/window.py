"""The nonequilibrium part of the density matrix: an integral over the window between potentials."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hpcspin.electrons.backend import Array
from hpcspin.electrons.fermi import fermi
from hpcspin.electrons.quadrature import GAUSS, KRONROD, NODES, Integrals, Intervals, integrate
from hpcspin.electrons.sources import Source
from hpcspin.electrons.workers import each, shares
from hpcspin.parallel.world import World

_CHECKED = 4
"""Intervals of a snapshot that are computed again in double precision where single precision is asked for."""
_WIDEST_INTERVAL = 0.2
"""Longest interval of a first grid, in hoppings."""


class WindowIntegral:
    """Occupation that a source injects beyond the reference potential.

    sum_s ∫ de/2pi (f_s - f_0) G 2 Gamma_s G† on every site, and
    ∫ de/2pi (f_r - f_0) tr(2 Gamma_r A) for the currents.

    Parameters
    ----------
    source
        Its reservoirs and the sweep that serves them.
    reference
        The potential mu_0 of f_0.
    temperature
        T of all reservoirs.
    scale
        From an error of the on-site components to one of the field.
    tolerance
        For the field, of this integral.
    batch
        Energies in one sweep.
    precision
        ``"complex128"`` or ``"complex64"``: of the blocks of G. What single
        precision costs is measured on some intervals of the final grid and
        added to the error.
    """

    def __init__(
        self,
        source: Source,
        reference: float,
        temperature: float,
        scale: float,
        tolerance: float,
        batch: int,
        precision: str = "complex128",
    ) -> None:
        self.source = source
        self.reference = reference
        self.temperature = temperature
        self.precision = precision
        self.scale = scale
        # Beyond the window |f_s - f_0| < exp(-reach), and the spectral weight of a level is 1.
        reach = math.log(50 * scale / tolerance)
        self.truncation = 2 * scale * math.exp(-reach)
        self.tolerance = tolerance - self.truncation
        self.first_grid = self._first_grid(reach * temperature, source.hopping)
        self._intervals_per_sweep = max(1, batch // len(NODES))

    def _first_grid(self, reach: float, hopping: float) -> NDArray[np.float64]:
        """Edges around every Fermi edge, and between them equal intervals that are not too long."""
        potentials = np.unique([*self.source.potentials, self.reference])
        marks = np.unique(np.concatenate([potentials - reach, potentials, potentials + reach]))
        marks = marks[np.concatenate([[True], np.diff(marks) > 1e-3 * reach])]
        pieces = np.maximum(1, np.ceil(np.diff(marks) / (_WIDEST_INTERVAL * hopping))).astype(int)
        parts = [np.linspace(a, b, n, endpoint=False) for a, b, n in zip(marks[:-1], marks[1:], pieces, strict=True)]
        return np.concatenate([*parts, marks[-1:]])

    def choose(self, blocks: Array, world: World) -> None:
        """Let the source find its fastest way on energies of the window; a collective call."""
        backend, count = self.source.backend, self._intervals_per_sweep * len(NODES)
        energies = np.linspace(self.first_grid[0], self.first_grid[-1], count) / self.source.hopping
        kind = getattr(backend.xp, self.precision)
        blocks, z = (backend.xp.astype(part, kind) for part in (blocks, backend.asarray(energies + 0j)))
        self.source.choose(blocks, z, backend.asarray(np.ones((count, len(self.source.groups)))), world)

    def integrate(self, blocks: Array, edges: list[NDArray[np.float64]], world: World, first: int) -> Integrals:
        """Adaptive integrals of all snapshots.

        Parameters
        ----------
        blocks
            Layer blocks, shape (n, Lx, m, m).
        edges
            First grid of every snapshot.
        world
            Ranks that share the work.
        first
            Number of the first snapshot, for messages.

        Returns
        -------
        Integrals
            Components (n, 4 Lx Ly + members): the four of every site, then
            the spectral integrals of the source's reservoirs.
        """
        components = 4 * self.source.size[0] * self.source.size[1] + len(self.source.members)

        def evaluate(intervals: Intervals) -> tuple[Array, NDArray[np.float64]]:
            parts = shares(self.source.backend, len(intervals), self._intervals_per_sweep)
            rules = each(self.source.backend, lambda part: self._rule(blocks, intervals[part]), parts)
            values, errors = zip(*rules, strict=True)
            return self.source.backend.xp.concat(values, axis=0), np.concatenate(errors)

        narrowest = 1e-9 * (edges[0][-1] - edges[0][0])
        backend = self.source.backend
        result = integrate(evaluate, edges, self.tolerance, components, world, backend, narrowest, first)
        if self.precision == "complex128":
            return result
        return replace(result, errors=result.errors + self._rounding(blocks, result.intervals, world))

    def _rounding(self, blocks: Array, intervals: Intervals, world: World) -> NDArray[np.float64]:
        """What single precision may have cost each snapshot, as if all intervals erred to the same side."""
        counts = np.bincount(intervals.owner, minlength=len(blocks))
        starts = np.cumsum(counts) - counts
        # The middles of equal shares of the grid: refined resonances are met as often as they have intervals.
        shares = (np.arange(_CHECKED) + 0.5) / _CHECKED
        chosen = np.unique((starts[:, None] + counts[:, None] * shares).astype(int))
        mine = intervals[np.array_split(chosen, world.size)[world.rank]]
        total = np.zeros(len(blocks))
        if len(mine):
            xp, sites = self.source.backend.xp, 4 * self.source.size[0] * self.source.size[1]
            single, double = (self._rule(blocks, mine, precision)[0] for precision in ("complex64", "complex128"))
            deviation = self.source.backend.to_numpy(xp.max(xp.abs(single - double)[:, :sites], axis=-1))
            total = np.bincount(mine.owner, deviation, len(blocks)).astype(np.float64)
        checked = np.bincount(intervals.owner[chosen], minlength=len(blocks))
        return self.scale * world.sum(total) / checked * counts

    def _rule(
        self, blocks: Array, intervals: Intervals, precision: str | None = None
    ) -> tuple[Array, NDArray[np.float64]]:
        """Kronrod integrals of some intervals and their error estimates in units of the field."""
        backend, count = self.source.backend, len(intervals)
        xp = backend.xp
        half = (intervals.upper - intervals.lower) / 2
        nodes = (intervals.lower + half)[:, None] + half[:, None] * NODES
        kind = getattr(xp, precision or self.precision)
        integrand = self._integrand(
            xp.astype(blocks, kind, copy=False), nodes.reshape(-1), np.repeat(intervals.owner, len(NODES))
        )
        rules = backend.asarray(half[:, None, None] * np.stack([KRONROD, KRONROD - GAUSS]))
        both = rules @ xp.reshape(integrand, (count, len(NODES), -1))
        sites = 4 * self.source.size[0] * self.source.size[1]
        sizes = backend.to_numpy(xp.max(xp.abs(both[:, :, :sites]), axis=-1))
        return both[:, 0], self.scale * _kronrod_error(sizes[:, 0], sizes[:, 1])

    def _integrand(self, blocks: Array, energies: NDArray[np.float64], owners: NDArray[np.int64]) -> Array:
        backend = self.source.backend
        xp = backend.xp
        occupied = fermi(energies, self.reference, self.temperature)
        weights = np.stack(
            [fermi(energies, mu, self.temperature) - occupied for mu in self.source.potentials], axis=1
        ) / (2 * np.pi)
        on_device = backend.asarray(weights)
        z = xp.astype(backend.asarray((energies / self.source.hopping).astype(np.complex128)), blocks.dtype, copy=False)
        if owners.min() == owners.max():
            blocks, snapshots = blocks[int(owners[0]) : int(owners[0]) + 1], None
        else:
            snapshots = backend.asarray(owners)
        response, traces = self.source.respond(blocks, z, on_device, snapshots)
        per_member = backend.asarray(weights[:, self.source.group_of_member])
        return xp.concat([xp.reshape(response, (len(energies), -1)), traces * per_member], axis=1)


def _kronrod_error(size: NDArray[np.float64], difference: NDArray[np.float64]) -> NDArray[np.float64]:
    """Error of the Kronrod rule from its difference to the Gauss rule.

    The empirical law of QUADPACK: the Kronrod rule's error falls as the power
    3/2 of the difference, relative to the size of the integral, with a factor
    200^(3/2) for safety, and never exceeds the difference.
    """
    safe = np.maximum(size, np.finfo(float).tiny)
    return np.minimum(difference, safe * (200 * difference / safe) ** 1.5)
