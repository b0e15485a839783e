"""Vector-valued adaptive Gauss-Kronrod quadrature, one batch a refinement round.

Many integrals (one a snapshot) are refined together: each round hands the new
intervals of all of them to one evaluation. Every rank evaluates its share and
decides alike on the same error estimates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcspin.electrons.backend import Array, Backend
from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World

# Gauss-Kronrod 10-21 (QUADPACK): abscissae and weights of the right half, and the Gauss weights.
_X21 = (
    0.995657163025808080735527280689003, 0.973906528517171720077964012084452,
    0.930157491355708226001207180059508, 0.865063366688984510732096688423493,
    0.780817726586416897063717578345042, 0.679409568299024406234327365114874,
    0.562757134668604683339000099272694, 0.433395394129247190799265943165784,
    0.294392862701460198131126603103866, 0.148874338981631210884826001129720, 0.0,
)  # fmt: skip
_W21 = (
    0.011694638867371874278064396062192, 0.032558162307964727478818972459390,
    0.054755896574351996031381300244580, 0.075039674810919952767043140916190,
    0.093125454583697605535065465083366, 0.109387158802297641899210590325805,
    0.123491976262065851077958109585166, 0.134709217311473325928054001771707,
    0.142775938577060080797094273138717, 0.147739104901338491374841515972068,
    0.149445554002916905664936468389821,
)  # fmt: skip
_W10 = (
    0.066671344308688137593568809893332, 0.149451349150580593145863396957746,
    0.219086362515982043995534934228163, 0.269266719309996355091226921569469,
    0.295524224714752870173815619188769,
)  # fmt: skip

NODES = np.array([-x for x in _X21] + [x for x in _X21[-2::-1]])
"""Abscissae on [-1, 1], shape (21,)."""
KRONROD = np.array(list(_W21) + list(_W21[-2::-1]))
"""Weights of the 21-point rule, exact to degree 31."""
GAUSS = np.zeros(21)
"""Weights of the embedded 10-point rule, exact to degree 19."""
GAUSS[1:10:2] = _W10
GAUSS[11:20:2] = _W10[::-1]


_SPARE = 1e-7
"""Error of an interval, relative to the tolerance, below which twice its length is tried next time."""


@dataclass
class Intervals:
    """Intervals of several integrals: whose they are, their ends, and their error estimates."""

    owner: NDArray[np.int64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    error: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.owner)

    def __getitem__(self, which: NDArray[np.bool_] | NDArray[np.int64] | slice) -> Intervals:
        return Intervals(self.owner[which], self.lower[which], self.upper[which], self.error[which])

    @property
    def columns(self) -> tuple[NDArray[Any], ...]:
        """Owner, lower end, upper end and error."""
        return self.owner, self.lower, self.upper, self.error

    @staticmethod
    def from_edges(edges: list[NDArray[np.float64]]) -> Intervals:
        """Intervals between consecutive edges of every integral."""
        owner = np.concatenate([np.full(len(e) - 1, i) for i, e in enumerate(edges)])
        lower = np.concatenate([e[:-1] for e in edges])
        upper = np.concatenate([e[1:] for e in edges])
        return Intervals(owner, lower, upper, np.full(len(owner), np.inf))


Evaluate = Callable[[Intervals], tuple[Array, NDArray[np.float64]]]
"""Integrals over some intervals, (intervals, components), and their error estimates, (intervals,)."""


@dataclass(frozen=True)
class Integrals:
    """Outcome of an adaptive quadrature.

    Attributes
    ----------
    values
        Shape (n, components), the same on every rank.
    errors
        Sum of the error estimates of the intervals, shape (n,).
    intervals
        The final grid, sorted by owner and energy.
    evaluated
        Number of intervals that were evaluated, over all rounds.
    """

    values: NDArray[np.float64]
    errors: NDArray[np.float64]
    intervals: Intervals
    evaluated: int


def integrate(
    evaluate: Evaluate,
    edges: list[NDArray[np.float64]],
    tolerance: float,
    components: int,
    world: World,
    backend: Backend,
    narrowest: float,
    first: int = 0,
) -> Integrals:
    """Refine until the error estimate of every integral is below the tolerance.

    Parameters
    ----------
    evaluate
        Called with my share of the new intervals of a round, never with none.
    edges
        First grid of every integral, each of shape (intervals + 1,).
    tolerance
        For the sum of the error estimates of an integral.
    components
        Number of components of the integrand.
    world
        Ranks that share the intervals.
    backend
        Where the integrals of intervals are kept.
    narrowest
        Intervals below this length are not divided.
    first
        Number of the first integral, for messages.

    Raises
    ------
    HpcspinError
        Naming the interval that does not converge.
    """
    leaves = Intervals.from_edges(edges)
    fresh, evaluated = np.arange(len(leaves)), 0
    rows = np.full(len(leaves), -1)
    store: list[Array] = []
    while len(fresh):
        share = np.array_split(fresh, world.size)[world.rank]
        errors = np.zeros(len(leaves))
        if len(share):
            values, errors[share] = evaluate(leaves[share])
            rows[share] = sum(len(part) for part in store) + np.arange(len(share))
            store.append(values)
        leaves.error[fresh] = world.sum(errors)[fresh]
        evaluated += len(fresh)
        divided = _worst(leaves, len(edges), tolerance)
        _check_width(leaves[divided], narrowest, first)
        leaves, rows, fresh = _bisect(leaves, rows, divided)
    totals = _sum_by_owner(store, leaves, rows, len(edges), components, backend)
    order = np.lexsort((leaves.lower, leaves.owner))
    achieved = np.bincount(leaves.owner, leaves.error, len(edges)).astype(np.float64)
    return Integrals(world.sum(totals), achieved, leaves[order], evaluated)


def _worst(leaves: Intervals, count: int, tolerance: float) -> NDArray[np.bool_]:
    """Intervals to divide: of every integral above its tolerance, those whose errors exceed half of it."""
    order = np.lexsort((leaves.error, leaves.owner))
    running = np.cumsum(leaves.error[order])
    starts = np.searchsorted(leaves.owner[order], np.arange(count + 1))
    before = np.concatenate([[0.0], running])[starts]
    totals = before[1:] - before[:-1]
    owner = leaves.owner[order]
    divided = np.zeros(len(leaves), dtype=bool)
    divided[order] = (running - before[owner] > tolerance / 2) & (totals[owner] > tolerance)
    return divided


def _bisect(
    leaves: Intervals, rows: NDArray[np.int64], divided: NDArray[np.bool_]
) -> tuple[Intervals, NDArray[np.int64], NDArray[np.int64]]:
    """Replace divided intervals by their halves; returns also which ones are new."""
    kept, old = leaves[~divided], leaves[divided]
    middle = (old.lower + old.upper) / 2
    halves = Intervals(
        np.repeat(old.owner, 2),
        np.stack([old.lower, middle], axis=1).reshape(-1),
        np.stack([middle, old.upper], axis=1).reshape(-1),
        np.full(2 * len(old), np.inf),
    )
    # One snapshot after the other: a sweep then rarely needs the blocks of several.
    halves = halves[np.argsort(halves.owner, kind="stable")]
    joined = Intervals(*(np.concatenate(parts) for parts in zip(kept.columns, halves.columns, strict=True)))
    new_rows = np.concatenate([rows[~divided], np.full(len(halves), -1)])
    return joined, new_rows, np.arange(len(kept), len(joined))


def _check_width(divided: Intervals, narrowest: float, number: int) -> None:
    narrow = np.flatnonzero(divided.upper - divided.lower < narrowest)
    if len(narrow):
        first = divided[narrow[:1]]
        raise HpcspinError(
            f"the energy integral of snapshot {number + first.owner[0]} does not converge between {first.lower[0]:.9g} "
            f"and {first.upper[0]:.9g} (error {first.error[0]:.1e} there); "
            "raise electrons.tolerance or couple a wider bath"
        )


def _sum_by_owner(
    store: list[Array], leaves: Intervals, rows: NDArray[np.int64], count: int, components: int, backend: Backend
) -> NDArray[np.float64]:
    """Sum of my intervals' integrals for every owner, in order of energy, shape (count, components)."""
    totals = np.zeros((count, components))
    if not store:
        return totals
    values = backend.xp.concat(store, axis=0)
    order = np.lexsort((leaves.lower, leaves.owner))
    order = order[rows[order] >= 0]
    for owner in np.unique(leaves.owner[order]):
        mine = backend.asarray(rows[order[leaves.owner[order] == owner]])
        totals[owner] = backend.to_numpy(backend.xp.sum(backend.xp.take(values, mine, axis=0), axis=0))
    return totals


def coarsened(intervals: Intervals, tolerance: float) -> list[NDArray[np.float64]]:
    """First grids for integrands close to those of a finished quadrature.

    Neighbours of equal length whose errors are so small that one interval will
    do for both are joined, or a grid that follows a trajectory would only grow.

    Returns
    -------
    list
        Edges for every owner.
    """
    grids = []
    for owner in np.unique(intervals.owner):
        mine = intervals[intervals.owner == owner]
        width = mine.upper - mine.lower
        spare = mine.error < _SPARE * tolerance
        edges, i = [mine.lower[0]], 0
        while i < len(mine):
            joins = i + 1 < len(mine) and spare[i] and spare[i + 1] and np.isclose(width[i], width[i + 1], rtol=1e-6)
            i += 2 if joins else 1
            edges.append(mine.upper[i - 1])
        grids.append(np.array(edges))
    return grids
