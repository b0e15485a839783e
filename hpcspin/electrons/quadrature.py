"""Vector-valued adaptive quadrature by nested rules, with one batch for each round of refinement.

Many integrals (one for each snapshot) are refined together: each round evaluates the new nodes of all integrals at
once. Every rank evaluates its share, and all ranks make the same decisions from the same error estimates.

An interval begins with 21 nodes. Where these do not suffice but converge fast, 22 more extend the rule; elsewhere the
interval is halved. An extension reuses the nodes, which bisection discards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcspin.electrons.backend import SINGULAR, Array, Backend
from hpcspin.electrons.rules import GAUSS, KRONROD, MORE_NODES, MORE_PATTERSON, NODES, PATTERSON
from hpcspin.electrons.workers import equal_parts, map_parts
from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World

_KEPT = 0.85
"""Fraction of the tolerance for intervals that are left as they are; the rest is for those that are refined."""
_PROMISE = 0.01
"""Largest predicted error of the extended rule, relative to the tolerance; above it the interval is halved instead."""
_HIDDEN = 10.0
"""Safety factor for peaks between nodes: for one position in forty the nodes see less than a tenth of what is usual."""
_NARROWEST = 1e-9
"""Length of an interval that is not divided any more, relative to the whole first grid."""
_SPARE = 1e-7
"""Error of an interval, relative to the tolerance, below which the next first grid may double its length."""


Intervals = Any
"""A record array of NumPy with the columns `_INTERVAL`: intervals of several integrals, with their errors and rules."""
_INTERVAL = [
    ("owner", "i8"),  # Number of the integral to which the interval belongs.
    ("lower", "f8"),
    ("upper", "f8"),
    ("error", "f8"),  # Estimated error of the integral over the interval.
    ("derived", "f8"),  # The same of the numbers that are derived from it.
    ("promised", "f8"),  # Predicted error with 43 nodes, from the convergence between 10 and 21 nodes.
    ("points", "i8"),  # Number of nodes, 21 or 43.
    ("rank", "i8"),  # Rank that evaluates the interval.
    ("row", "i8"),  # Index at which this rank keeps the integral.
]


def new_intervals(owner: NDArray[np.int64], lower: NDArray[np.float64], upper: NDArray[np.float64]) -> Intervals:
    """Intervals that have not been evaluated yet."""
    found = np.recarray(len(owner), _INTERVAL)
    found.owner, found.lower, found.upper = owner, lower, upper
    found.error = found.derived = found.promised = np.inf
    found.points, found.rank, found.row = len(NODES), -1, -1
    return found


@dataclass(frozen=True)
class Integrand:
    """The function to integrate."""

    values: Callable[[NDArray[np.float64], NDArray[np.int64]], Array]
    """Function of one or more points and of the numbers of their integrals, each of shape (nodes,), which returns
    values of shape (nodes, components)."""
    components: int
    counted: int
    """Number of leading components that count in the error."""
    scale: float
    """Factor from an error of a component to an error in units of the tolerance."""
    nodes_at_once: int
    """Largest number of nodes in one call."""
    width: float = np.inf
    """Half width of the narrowest peak that the function may have."""
    derive: Array | None = None
    """Matrix, shape (components, numbers), of numbers that are sums of components; their errors do not refine."""

    def hidden(self, intervals: Intervals) -> NDArray[np.float64]:
        """Largest ratio of the integral of a peak between the nodes of an interval to what the nodes see of it.

        At a distance d from a Lorentzian of half width w, whose integral is pi A / w, a node sees A / d². With nodes at
        a spacing h the sums of the rules therefore differ by about A / h.
        """
        apart = (intervals.upper - intervals.lower) / intervals.points
        return np.maximum(1.0, _HIDDEN * apart / self.width)


@dataclass(frozen=True)
class Integrals:
    """Result of an adaptive quadrature."""

    values: NDArray[np.float64]
    """The integrals, shape (n, components), the same on every rank."""
    errors: NDArray[np.float64]
    """Sum of the error estimates of the intervals, shape (n,)."""
    derived: NDArray[np.float64]
    """The same of the derived numbers, the largest of them on each interval; 0 if there are none."""
    intervals: Intervals
    """The final grid, sorted by owner and energy."""
    evaluations: int
    """Number of nodes, over all rounds and ranks."""


def integrate(
    integrand: Integrand,
    edges: list[NDArray[np.float64]],
    tolerance: float,
    world: World,
    backend: Backend,
    first: int = 0,
) -> Integrals:
    """Refine until the error estimate of every integral, the sum of those of its intervals, is below the tolerance.

    ``edges`` is the first grid of every integral, each of shape (intervals + 1,). Each rank evaluates the integrand at
    its share of the nodes; the backend keeps the integrals of the intervals, of which none shorter than `_NARROWEST` is
    divided. Raises HpcspinError if an interval does not converge or the function is not finite; the message names
    the interval, and the integral by its number, where ``first`` is that of the first one.
    """
    owner = np.repeat(np.arange(len(edges)), [len(one) - 1 for one in edges])
    leaves = new_intervals(
        owner, *(np.concatenate([one[part] for one in edges]) for part in (slice(-1), slice(1, None)))
    )
    fresh, extended = np.arange(len(leaves)), np.arange(0)
    kept: list[Array] = []
    evaluations = 0
    while len(fresh) or len(extended):
        _assign(leaves, fresh, extended, world.size)
        judged = np.zeros((3, len(leaves)))
        mine = fresh[leaves.rank[fresh] == world.rank]
        if len(mine):
            sums, judged[:, mine] = first_rule(integrand, leaves[mine], backend)
            leaves.row[mine] = len(kept) + np.arange(len(mine))
            kept.extend(sums)
        mine = extended[leaves.rank[extended] == world.rank]
        if len(mine):
            sampled = [kept[row] for row in leaves.row[mine]]
            sums, judged[:2, mine] = _extended_rule(integrand, leaves[mine], sampled, backend)
            leaves.row[mine] = len(kept) + np.arange(len(mine))
            kept.extend(sums)
        new = np.concatenate([fresh, extended])
        leaves.error[new], leaves.derived[new], leaves.promised[new] = world.sum(judged)[:, new]
        _check_finite(leaves[new], first)
        evaluations += len(NODES) * len(fresh) + len(MORE_NODES) * len(extended)
        refined = _worst(leaves, len(edges), tolerance)
        longer = refined & (leaves.points == len(NODES)) & (leaves.promised < _PROMISE * tolerance)
        _check_width(leaves[refined & ~longer], _NARROWEST * (edges[0][-1] - edges[0][0]), first)
        leaves.points[longer] += len(MORE_NODES)
        leaves, fresh, extended = _bisect(leaves, refined & ~longer, longer)
    achieved, derived = (
        np.bincount(leaves.owner, part, len(edges)).astype(np.float64) for part in (leaves.error, leaves.derived)
    )
    leaves = leaves[np.lexsort((leaves.lower, leaves.owner))]
    totals = _sum_by_owner(kept, leaves[leaves.rank == world.rank], len(edges), integrand.components, backend)
    return Integrals(world.sum(totals), achieved, derived, leaves, evaluations)


def first_rule(integrand: Integrand, intervals: Intervals, backend: Backend) -> tuple[Array, NDArray[np.float64]]:
    """Integrals by 21 nodes, on all workers of this rank, and by that part of 43, shape (intervals, 2, components).

    Errors, those of derived numbers, and predicted errors with 43 nodes follow, shape (3, intervals).
    """

    def rule(part: slice) -> tuple[Array, NDArray[np.float64]]:
        half, values = _evaluate(integrand, intervals[part], NODES, backend)
        weights = np.stack([KRONROD, PATTERSON])
        sums = backend.asarray(half[:, None, None] * weights) @ values
        difference = backend.asarray(half[:, None, None] * (KRONROD - GAUSS)[None, None]) @ values
        size = np.maximum(sizes(integrand, sums[:, 0], backend), np.finfo(float).tiny)
        error = sizes(integrand, difference[:, 0], backend)
        # Assumes an error that falls as r^-n with the degree n of a rule: 19 for Gauss, 65 for the extension.
        promised = error[:1] * np.minimum(error[:1] / size[:1], 1) ** 1.5
        return sums, integrand.hidden(intervals[part]) * np.concatenate([_kronrod_error(size, error), promised])

    return _by_parts(integrand, intervals, backend, rule)


def _extended_rule(
    integrand: Integrand, intervals: Intervals, sampled: list[Array], backend: Backend
) -> tuple[Array, NDArray[np.float64]]:
    """Integrals with 43 nodes from those with 21, shape (intervals, 1, components), and both errors, (2, intervals)."""
    xp = backend.xp

    def rule(part: slice) -> tuple[Array, NDArray[np.float64]]:
        half, values = _evaluate(integrand, intervals[part], MORE_NODES, backend)
        before = xp.stack(sampled[part])
        more = backend.asarray(half[:, None, None] * MORE_PATTERSON[None, None]) @ values
        sums = before[:, 1:] + more
        size = np.maximum(sizes(integrand, sums[:, 0], backend), np.finfo(float).tiny)
        error = _kronrod_error(size, sizes(integrand, sums[:, 0] - before[:, 0], backend))
        return sums, integrand.hidden(intervals[part]) * error

    return _by_parts(integrand, intervals, backend, rule)


def _by_parts(
    integrand: Integrand,
    intervals: Intervals,
    backend: Backend,
    rule: Callable[[slice], tuple[Array, NDArray[np.float64]]],
) -> tuple[Array, NDArray[np.float64]]:
    """Integrals and errors of a rule that the workers apply to parts of the intervals."""
    parts = equal_parts(backend, len(intervals), max(1, integrand.nodes_at_once // len(NODES)))
    sums, errors = zip(*map_parts(backend, rule, parts), strict=True)
    return backend.xp.concat(sums, axis=0), np.concatenate(errors, axis=-1)


def _evaluate(
    integrand: Integrand, intervals: Intervals, abscissae: NDArray[np.float64], backend: Backend
) -> tuple[NDArray[np.float64], Array]:
    """Half lengths, and values of shape (intervals, nodes, components)."""
    half = (intervals.upper - intervals.lower) / 2
    nodes = (intervals.lower + half)[:, None] + half[:, None] * abscissae
    values = integrand.values(nodes.reshape(-1), np.repeat(intervals.owner, len(abscissae)))
    return half, backend.xp.reshape(values, (len(intervals), len(abscissae), -1))


def sizes(integrand: Integrand, vectors: Array, backend: Backend) -> NDArray[np.float64]:
    """Largest magnitudes, of each vector's components that count, scaled, and of the derived numbers, (2, vectors)."""
    xp = backend.xp
    counted = backend.to_numpy(xp.max(xp.abs(vectors[:, : integrand.counted]), axis=-1)) * integrand.scale
    if integrand.derive is None:
        return np.stack([counted, np.zeros_like(counted)])
    return np.stack([counted, backend.to_numpy(xp.max(xp.abs(vectors @ integrand.derive), axis=-1))])


def _kronrod_error(size: NDArray[np.float64], difference: NDArray[np.float64]) -> NDArray[np.float64]:
    """Error of a rule, estimated from its difference from the embedded rule.

    The empirical law of QUADPACK: relative to the size of the integral, the error of the longer rule is the difference
    to the power 3/2 with a safety factor of 200^(3/2), and at most the difference.
    """
    return difference * np.minimum(1, 200**1.5 * np.sqrt(difference / size))


def _assign(leaves: Intervals, fresh: NDArray[np.int64], extended: NDArray[np.int64], ranks: int) -> None:
    """Assign new intervals to ranks such that all have the same work; extensions stay on the rank with their sums."""
    load = np.bincount(leaves.rank[extended], minlength=ranks)
    for _ in fresh:
        load[np.argmin(load)] += 1
    share = load - np.bincount(leaves.rank[extended], minlength=ranks)
    # Neighbours stay on one rank, so that a sweep rarely needs the blocks of several snapshots.
    leaves.rank[fresh] = np.repeat(np.arange(ranks), share)


def _worst(leaves: Intervals, count: int, tolerance: float) -> NDArray[np.bool_]:
    """Intervals to refine: the worst of each integral above its tolerance, until the rest use only the part `_KEPT`."""
    order = np.lexsort((leaves.error, leaves.owner))
    running = np.cumsum(leaves.error[order])
    starts = np.searchsorted(leaves.owner[order], np.arange(count + 1))
    before = np.concatenate([[0.0], running])[starts]
    totals = before[1:] - before[:-1]
    owner = leaves.owner[order]
    refined = np.zeros(len(leaves), dtype=bool)
    refined[order] = (running - before[owner] > _KEPT * tolerance) & (totals[owner] > tolerance)
    return refined


def _bisect(
    leaves: Intervals, divided: NDArray[np.bool_], longer: NDArray[np.bool_]
) -> tuple[Intervals, NDArray[np.int64], NDArray[np.int64]]:
    """Replace the divided intervals by their halves; also returns the indices of the new and the extended ones."""
    kept, old = leaves[~divided], leaves[divided]
    middle = (old.lower + old.upper) / 2
    owner = np.repeat(old.owner, 2)
    order = np.argsort(owner, kind="stable")
    lower, upper = (np.stack(ends, axis=1).reshape(-1) for ends in ((old.lower, middle), (middle, old.upper)))
    joined = np.concatenate([kept, new_intervals(owner[order], lower[order], upper[order])]).view(np.recarray)
    return joined, np.arange(len(kept), len(joined)), np.flatnonzero(longer[~divided])


def _check_finite(new: Intervals, number: int) -> None:
    infinite = new[~np.isfinite(new.error)]
    if len(infinite):
        raise HpcspinError(
            f"the Green's function of snapshot {number + infinite.owner[0]} is singular between "
            f"{infinite.lower[0]:.9g} and {infinite.upper[0]:.9g}: {SINGULAR}"
        )


def _check_width(divided: Intervals, narrowest: float, number: int) -> None:
    narrow = np.flatnonzero(divided.upper - divided.lower < narrowest)
    if len(narrow):
        first = divided[narrow[:1]]
        raise HpcspinError(
            f"the energy integral of snapshot {number + first.owner[0]} does not converge between {first.lower[0]:.9g} "
            f"and {first.upper[0]:.9g} (error {first.error[0]:.1e} there); "
            "raise electrons.tolerance or couple a wider bath, and start again"
        )


def _sum_by_owner(
    kept: list[Array], mine: Intervals, count: int, components: int, backend: Backend
) -> NDArray[np.float64]:
    """Sum of my intervals' integrals for every owner, in order of energy, shape (count, components)."""
    totals = np.zeros((count, components))
    for owner in np.unique(mine.owner):
        integrals = backend.xp.stack([kept[row][0] for row in mine.row[mine.owner == owner]])
        totals[owner] = backend.to_numpy(backend.xp.sum(integrals, axis=0))
    return totals


def coarsened(intervals: Intervals, tolerance: float) -> list[NDArray[np.float64]]:
    """Edges of the first grid of every integral, for integrands close to those of a finished quadrature.

    Neighbours of equal length are joined if their errors are so small that one interval suffices for both. Without this
    a grid that follows a trajectory would only grow.
    """
    grids = []
    for owner in np.unique(intervals.owner):
        mine = intervals[intervals.owner == owner]
        width = mine.upper - mine.lower
        spare = (mine.error < _SPARE * tolerance) & (mine.points == len(NODES))
        edges, i = [mine.lower[0]], 0
        while i < len(mine):
            joins = i + 1 < len(mine) and spare[i] and spare[i + 1] and np.isclose(width[i], width[i + 1], rtol=1e-6)
            i += 2 if joins else 1
            edges.append(mine.upper[i - 1])
        grids.append(np.array(edges))
    return grids
