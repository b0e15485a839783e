"""The nonequilibrium part of the density matrix: an integral over the window between potentials."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hpcspin.electrons.backend import Array
from hpcspin.electrons.fermi import fermi
from hpcspin.electrons.quadrature import Integrals, Integrand, Intervals, first_rule, integrate, sizes
from hpcspin.electrons.sources import Source
from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World

_CHECKED = 4
"""Number of intervals of a snapshot that are recomputed in double precision if the precision is single."""
_QUADRATURE = 0.5
"""Fraction of the tolerance for the quadrature in single precision; the rest is for the rounding errors."""
_ROUNDING = {"complex128": 1e-13, "complex64": 1e-5}
"""Bound on the rounding errors of the sums over nodes."""
_WIDEST_INTERVAL = 0.2
"""Longest interval of a first grid, in hoppings."""
_MOST_INTERVALS = 30_000
"""Largest number of intervals of a first grid; only temperatures of a hundred hoppings need more."""


class WindowIntegral:
    """Occupation that a source injects relative to the reference potential mu_0.

    sum_s ∫ de/2pi (f_s - f_0) G 2 Gamma_s G† on every site, and ∫ de/2pi (f_r - f_0) tr(2 Gamma_r A) for the currents.
    The error includes the rounding error of the source. ``precision`` is the type of the blocks of G; the rounding
    error of ``complex64`` is measured on some intervals of the final grid and added to the error. Other arguments are
    those of `EquilibriumPart`.
    """

    def __init__(
        self, source: Source, reference: float, tolerance: float, batch: int, precision: str = "complex128"
    ) -> None:
        self.source = source
        self.reference = reference
        self.temperature = source.system.temperature
        self.precision = precision
        self.scale = scale = source.system.scale
        # Outside the window |f_s - f_0| < exp(-reach), and the spectral weight of a level is 1.
        reach = math.log(50 * scale / tolerance)
        self.truncation = scale * (2 * math.exp(-reach) + source.accuracy)
        weight = np.abs(source.currents[: -len(source.members)]).sum(axis=0).max()
        self.current_truncation = 2 * weight * self.truncation / scale
        quadrature = 1.0 if precision == "complex128" else _QUADRATURE
        self.tolerance = quadrature * tolerance - self.truncation
        # The tails of levels sharper than this would be below the rounding errors.
        rounding = _ROUNDING[precision] * scale / self.tolerance
        self.level_width = max(source.level_width, rounding * _WIDEST_INTERVAL * source.hopping)
        self.first_grid = self._first_grid(reach * self.temperature, source.hopping)
        self.batch = batch

    def _first_grid(self, reach: float, hopping: float) -> NDArray[np.float64]:
        """Grid points around every Fermi edge, and between them equal intervals of at most `_WIDEST_INTERVAL`."""
        potentials = np.unique([*self.source.potentials, self.reference])
        marks = np.unique(np.concatenate([potentials - reach, potentials, potentials + reach]))
        apart = np.diff(marks, prepend=-np.inf) > 1e-3 * reach
        apart[-1] = True  # With many closely spaced potentials the window would otherwise end before the last edge.
        marks = marks[apart]
        pieces = np.maximum(1, np.ceil(np.diff(marks) / (_WIDEST_INTERVAL * hopping))).astype(int)
        if pieces.sum() > _MOST_INTERVALS:
            raise HpcspinError(
                f"electrons.temperature: at {self.temperature:g} the Fermi functions reach over {np.ptp(marks):.3g}, "
                "too many energies for negf; check the unit, which is that of the hopping, or set "
                "electrons.solver=closed_form"
            )
        parts = [np.linspace(a, b, n, endpoint=False) for a, b, n in zip(marks[:-1], marks[1:], pieces, strict=True)]
        return np.concatenate([*parts, marks[-1:]])

    def choose(self, blocks: Array, world: World) -> None:
        """Let the source choose its fastest way to compute, timed on energies of the window; a collective call."""
        backend = self.source.backend
        energies = np.linspace(self.first_grid[0], self.first_grid[-1], self.batch) / self.source.hopping
        kind = getattr(backend.xp, self.precision)
        blocks, z = (backend.xp.astype(part, kind) for part in (blocks, backend.asarray(energies + 0j)))
        self.source.choose(blocks, z, backend.asarray(np.ones((self.batch, len(self.source.groups)))), world)

    def integrate(self, blocks: Array, edges: list[NDArray[np.float64]], world: World, first: int) -> Integrals:
        """Adaptive integrals of all snapshots, shape (n, 4 Lx Ly + members).

        They are the four components of every site, then the spectral integrals of the source's reservoirs. ``edges`` is
        the first grid of every snapshot, and ``first`` the number of the first snapshot, for messages.
        """
        integrand = self._integrand(blocks, self.precision)
        result = integrate(integrand, edges, self.tolerance, world, self.source.backend, first)
        if self.precision == "complex128":
            return result
        field, current = self._rounding(blocks, result.intervals, world)
        return replace(result, errors=result.errors + field, derived=result.derived + current)

    def _rounding(self, blocks: Array, intervals: Intervals, world: World) -> NDArray[np.float64]:
        """Errors of single precision in each snapshot, of the field and of the currents, shape (2, n).

        Those of all intervals might have the same sign.
        """
        counts = np.bincount(intervals.owner, minlength=len(blocks))
        starts = np.cumsum(counts) - counts
        # The middles of equal parts of the grid: refined resonances are sampled in proportion to their intervals.
        shares = (np.arange(_CHECKED) + 0.5) / _CHECKED
        chosen = np.unique((starts[:, None] + counts[:, None] * shares).astype(int))
        mine = intervals[np.array_split(chosen, world.size)[world.rank]]
        total = np.zeros((2, len(blocks)))
        if len(mine):
            single, double = (self._integrand(blocks, precision) for precision in ("complex64", "complex128"))
            values = [first_rule(one, mine, self.source.backend)[0][:, 0] for one in (single, double)]
            deviations = sizes(double, values[0] - values[1], self.source.backend)
            total += [np.bincount(mine.owner, deviation, len(blocks)) for deviation in deviations]
        checked = np.bincount(intervals.owner[chosen], minlength=len(blocks))
        return world.sum(total) / checked * counts

    def _integrand(self, blocks: Array, precision: str) -> Integrand:
        sites = 4 * self.source.system.lattice.num_sites
        blocks = self.source.backend.xp.astype(blocks, getattr(self.source.backend.xp, precision), copy=False)
        return Integrand(
            lambda energies, owners: self._values(blocks, energies, owners),
            sites + len(self.source.members),
            sites,
            self.scale,
            self.batch,
            self.level_width,
            self.source.backend.asarray(self.source.currents),
        )

    def _values(self, blocks: Array, energies: NDArray[np.float64], owners: NDArray[np.int64]) -> Array:
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
