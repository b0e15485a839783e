"""Estimates of one snapshot from probing vectors: on-site blocks of the density matrix, energy and chemical potential.

Two estimates. *Densities*: rho_ii = sum_n g_n c_n (T_n v)_i v_i†. *Gradient*: the exact derivative of the estimated
energy

    Omega = sum_v sum_n w_n <v|T_n|v>,     F = Omega + mu N with N = -dOmega/dmu,

which is conservative, whatever the vectors are, and with few of them several times closer in a metal. With unit vectors
both are exact but for the truncation. At a fixed filling mu follows from the moments of the same vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from hpcspin.electrons.closed import ClosedLattice
from hpcspin.electrons.kpm_probes import ProbeGroup
from hpcspin.electrons.kpm_recursion import Recursion, adjoint_weights
from hpcspin.electrons.kpm_series import Expansion
from hpcspin.parallel.threads import thread_pool
from hpcspin.parallel.world import World

Real = NDArray[np.float64]
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Estimate:
    """On-site blocks and numbers of one snapshot.

    Attributes
    ----------
    components
        tr(rho_ii) and tr(sigma rho_ii), shape (sites, 4).
    energy
        Omega at a fixed potential, F at a fixed filling.
    potential
        Chemical potential mu.
    """

    components: Real
    energy: float
    potential: float


@dataclass(frozen=True)
class LocalMoments:
    """Moments tr(m) and tr(sigma m) of m = (T_n v)_i v_i†.

    Attributes
    ----------
    sites
        Those that are kept, in any order, shape (k,).
    local
        Their moments, shape (count, k, 4).
    total
        tr(m) summed over all sites, kept or not, shape (count,).
    """

    sites: NDArray[np.int64]
    local: Real
    total: Real


@dataclass(frozen=True)
class Probing:
    """The electrons of one snapshot as probing vectors see them.

    Attributes
    ----------
    system
        Lattice and parameters; its potential or its filling counts.
    recursion
        Of the snapshot's Hamiltonian.
    world
        Ranks that share the groups of vectors; results are summed in the order of the groups, on every rank.
    """

    system: ClosedLattice
    recursion: Recursion
    world: World

    def local_moments(self, groups: Sequence[ProbeGroup], count: int, most: int) -> LocalMoments:
        """Moments of the sites of some groups, of at most about ``most`` sites evenly among them one by one."""
        stride = -(-sum(len(group.sites) for group in groups) // most)

        def moments(group: ProbeGroup) -> tuple[Real, Real]:
            local = self.recursion.local_moments(group, count)
            # A copy, so that the moments of the other sites are freed.
            return local[:, ::stride].copy(), local[..., 0].sum(axis=1)

        kept, totals = zip(*self._on_all_groups(moments, groups), strict=True)
        sites = np.concatenate([group.sites[::stride] for group in groups])
        return LocalMoments(sites, np.concatenate(kept, axis=1), sum_in_order(totals))

    def densities(self, moments: LocalMoments, expansion: Expansion) -> Estimate:
        """The estimate from densities, with the energy of the series without a kernel; the moments are of all sites."""
        total = moments.total[: expansion.count]
        potential = self._potential(expansion, total)
        components = np.empty((len(moments.sites), 4))
        occupied = np.tensordot(expansion.occupation(potential), moments.local[: expansion.count], axes=1)
        components[moments.sites] = occupied
        energy = self._energy(replace(expansion, kernel="none"), potential, total)
        return Estimate(components, energy, potential)

    def sample(self, moments: LocalMoments, expansion: Expansion) -> Real:
        """Components tr(sigma rho_ii) on the sites that are kept, of the series that the gradient occupies; (k, 3)."""
        potential = self._potential(expansion, moments.total[: expansion.count])
        series = expansion.occupation_of_gradient(potential)
        return np.tensordot(series, moments.local[: expansion.count, :, 1:], axes=1)

    def gradient(self, groups: Sequence[ProbeGroup], expansion: Expansion) -> Estimate:
        """The estimate as the gradient of the estimated energy."""
        steps = expansion.count // 2
        started = self._on_my_groups(lambda group: self.recursion.total_moments(group, steps), groups)
        total = sum_in_order(self._gather([moments for moments, _ in started]))
        potential = self._potential(expansion, total)
        weights = adjoint_weights(expansion.grand_potential(potential))
        parts = threaded(lambda start: self.recursion.gradient(start[1], *weights), started)
        components = sum_in_order(self._gather(parts)) / expansion.interval.half_width
        return Estimate(components, self._energy(expansion, potential, total), potential)

    def _potential(self, expansion: Expansion, moments: Real) -> float:
        if self.system.fixed_electrons is not None:
            return expansion.potential(moments, self.system.fixed_electrons)
        assert self.system.potential is not None
        return self.system.potential

    def _energy(self, expansion: Expansion, potential: float, moments: Real) -> float:
        omega = float(expansion.grand_potential(potential) @ moments)
        return omega if self.system.fixed_electrons is None else omega + potential * self.system.fixed_electrons

    def _on_my_groups(self, work: Callable[[ProbeGroup], Result], groups: Sequence[ProbeGroup]) -> list[Result]:
        first, last = ((self.world.rank + k) * len(groups) // self.world.size for k in (0, 1))
        return threaded(work, groups[first:last])

    def _gather(self, results: list[Result]) -> list[Result]:
        """Results of all ranks, in the order of the groups."""
        return [one for part in self.world.allgather(results) for one in part]

    def _on_all_groups(self, work: Callable[[ProbeGroup], Result], groups: Sequence[ProbeGroup]) -> list[Result]:
        return self._gather(self._on_my_groups(work, groups))


def threaded(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """``work`` of every item, in their order, on as many threads as torch has."""
    threads = min(torch.get_num_threads(), len(items))
    return list(thread_pool(threads).map(work, items)) if threads > 1 else [work(item) for item in items]


def sum_in_order(arrays: Sequence[Any]) -> Any:
    """Sum of arrays from the first to the last: the same bits on any number of ranks and threads."""
    total = np.zeros_like(arrays[0])
    for array in arrays:
        total += array
    return total
