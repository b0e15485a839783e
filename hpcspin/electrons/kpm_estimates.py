"""Estimates of one snapshot from probing vectors: on-site blocks of the density matrix, energy and chemical potential.

There are two estimates. *Densities*: rho_ii = sum_n g_n c_n (T_n v)_i v_i†. *Gradient*: the exact derivative of the
estimated energy

    Omega = sum_v sum_n w_n <v|T_n|v>,     F = Omega + mu N with N = -dOmega/dmu.

The gradient is conservative whatever the vectors are, and with few vectors its error in a metal is several times
smaller. With unit vectors both are exact except for the truncation. At a fixed filling mu follows from the moments of
the same vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hpcspin.electrons.closed import ClosedLattice
from hpcspin.electrons.kpm_host import Recursion
from hpcspin.electrons.kpm_probes import ProbeGroup
from hpcspin.electrons.kpm_recursion import adjoint_weights, moments_of_products
from hpcspin.electrons.kpm_series import Expansion
from hpcspin.electrons.kpm_strips import LEAST_SITES
from hpcspin.parallel.threads import threaded
from hpcspin.parallel.world import World

Real = NDArray[np.float64]
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class KpmEstimate:
    """On-site blocks, energy and chemical potential of one snapshot."""

    components: Real
    """tr(rho_ii) and tr(sigma rho_ii), shape (sites, 4)."""
    energy: float
    """Omega at a fixed potential, F at a fixed filling."""
    potential: float
    """Chemical potential mu."""
    energy_error: float = 0.0
    """Error of the energy, as far as it is known."""


@dataclass(frozen=True)
class LocalMoments:
    """Moments tr(m) and tr(sigma m) of m = (T_n v)_i v_i†."""

    sites: NDArray[np.int64]
    """Sites whose moments are stored, in any order, shape (k,)."""
    local: Real
    """Moments of these sites, shape (count, k, 4)."""
    total: Real
    """tr(m) summed over all sites, stored or not, shape (count,)."""


@dataclass(frozen=True)
class Probing:
    """Estimates of one snapshot's electrons from probing vectors."""

    system: ClosedLattice
    """Lattice and parameters, with a fixed potential or a fixed filling."""
    recursion: Recursion
    """Recursion of the snapshot's Hamiltonian on my strip."""
    world: World
    """The ranks. Teams share the groups of vectors; a team has as many consecutive ranks as there are strips. Results
    are summed over the groups and over the lines of sites in order, and are the same on every rank."""

    def local_moments(self, groups: Sequence[ProbeGroup], count: int, most: int) -> LocalMoments:
        """Moments on every k-th site of some groups, with k such that at most about ``most`` sites remain."""
        stride, strip = -(-sum(len(group.sites) for group in groups) // most), self.recursion.strip

        def moments(mine: Sequence[ProbeGroup]) -> list[tuple[Real, Real]]:
            own, before = zip(*(strip.own(group) for group in mine), strict=True)
            return self.recursion.local_moments(
                own, count, [slice(-skipped % stride, None, stride) for skipped in before]
            )

        found = self.world.allgather(self._each(moments, self._my_groups(groups)))
        teams = (zip(*found[first : first + self._strips], strict=True) for first in self._first_ranks)
        joined = [[np.concatenate(parts, axis=1) for parts in zip(*one, strict=True)] for team in teams for one in team]
        kept, traces = zip(*joined, strict=True)
        sites = np.concatenate([strip.in_line_order(group.sites)[::stride] for group in groups])
        return LocalMoments(sites, np.concatenate(kept, axis=1), sum(one.sum(axis=1) for one in traces))

    def densities(self, moments: LocalMoments, expansion: Expansion) -> KpmEstimate:
        """The estimate from densities; needs moments of all sites.

        The energy is that of the series without a kernel, and its error the sum of what this leaves out on all levels.
        """
        total = moments.total[: expansion.count]
        potential = self._potential(expansion, total)
        components = np.empty((len(moments.sites), 4))
        occupied = np.tensordot(expansion.occupation(potential), moments.local[: expansion.count], axes=1)
        components[moments.sites] = occupied
        sharp = replace(expansion, kernel="none")
        error = abs(float(sharp.left_out(potential) @ total))
        return KpmEstimate(components, self._energy(sharp, potential, total), potential, error)

    def sample(self, moments: LocalMoments, expansion: Expansion) -> Real:
        """tr(sigma rho_ii) on the stored sites, with the series of `Expansion.occupation_of_gradient`; shape (k, 3)."""
        potential = self._potential(expansion, moments.total[: expansion.count])
        series = expansion.occupation_of_gradient(potential)
        return np.tensordot(series, moments.local[: expansion.count, :, 1:], axes=1)

    def bound(self, moments: LocalMoments, expansion: Expansion) -> float:
        """Largest trace of `Expansion.majorant` on the stored sites: no component is further off at this mu."""
        potential = self._potential(expansion, moments.total[: expansion.count])
        traces = np.tensordot(expansion.majorant(potential), moments.local[: expansion.count, :, 0], axes=1)
        return float(np.abs(traces).max())

    def gradient(self, groups: Sequence[ProbeGroup], expansion: Expansion) -> KpmEstimate:
        """The estimate as the gradient of the estimated energy, whose error is what its kernel changes."""
        steps, strip = expansion.count // 2, self.recursion.strip
        own = [strip.own(group)[0] for group in self._my_groups(groups)]
        started = self._each(lambda mine: self.recursion.products(mine, steps), own)
        total = moments_of_products(self._summed([products for products, _ in started]).sum(axis=0))
        potential = self._potential(expansion, total)
        weights = adjoint_weights(expansion.grand_potential(potential))
        parts = self._each(lambda starts: self.recursion.gradients(starts, *weights), [start for _, start in started])
        components = strip.by_site(self._summed(parts)) / expansion.interval.half_width
        energy = self._energy(expansion, potential, total)
        sharper = self._energy(replace(expansion, kernel="none"), potential, total)
        return KpmEstimate(components, energy, potential, abs(energy - sharper))

    def _potential(self, expansion: Expansion, moments: Real) -> float:
        if self.system.fixed_electrons is not None:
            return expansion.potential(moments, self.system.fixed_electrons)
        assert self.system.potential is not None
        return self.system.potential

    def _energy(self, expansion: Expansion, potential: float, moments: Real) -> float:
        omega = float(expansion.grand_potential(potential) @ moments)
        return omega if self.system.fixed_electrons is None else omega + potential * self.system.fixed_electrons

    @property
    def _strips(self) -> int:
        return self.recursion.strip.domain.world.size

    @property
    def _first_ranks(self) -> range:
        """The first rank of each team."""
        return range(0, self.world.size, self._strips)

    def _my_groups(self, groups: Sequence[ProbeGroup]) -> Sequence[ProbeGroup]:
        """The groups of my team."""
        team, teams = self.world.rank // self._strips, len(self._first_ranks)
        first, last = ((team + k) * len(groups) // teams for k in (0, 1))
        return groups[first:last]

    def _each(self, work: Callable[[Sequence[Item]], list[Result]], items: Sequence[Item]) -> list[Result]:
        """``work`` on the items one by one; on small strips several at once, which share the border messages.

        Other threads of CuPy would allocate and launch on the first GPU, whichever is that of this rank.
        """
        if self._strips == 1 and not self.recursion.on_gpu:
            return threaded(lambda item: work([item])[0], items)
        # Not more: the vectors of one group should stay in cache from step to step.
        together = max(1, LEAST_SITES * self._strips // self.system.lattice.num_sites)
        return [one for first in range(0, len(items), together) for one in work(items[first : first + together])]

    def _summed(self, parts: Sequence[Real]) -> Real:
        """Sum over all groups of arrays over my sites or lines, joined over all strips, on every rank.

        Each team adds its groups to the sum of the team before, so that the groups are added in order.
        """
        me, total, joined = self.world.rank, 0.0, []
        for first in self._first_ranks:
            mine = first <= me < first + self._strips
            joined = self.world.allgather(sum(parts, start=total) if mine else None)[first : first + self._strips]
            total = joined[me % self._strips]
        return np.concatenate(joined)
