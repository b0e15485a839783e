"""A lattice cut across its longer side into strips of whole lines, one for each rank of a team.

A line contains all sites with the same coordinate along the longer side. Sums over sites are taken within each line
first, and then over the lines in order, so that results are bitwise equal wherever the lattice is cut. A step of the
recursion reads a few lines beyond either end of a strip, as many as the bonds are long.

The ranks form a grid: teams share the probing vectors, and the ranks of a team share the sites, one strip each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hpcspin.electrons.kpm_probes import ProbeGroup
from hpcspin.electrons.system import ElectronSystem
from hpcspin.parallel.domain import Domain
from hpcspin.parallel.halo import BorderExchange
from hpcspin.parallel.world import World

Real = NDArray[np.float64]
Sites = NDArray[np.int64]

LEAST_SITES = 4096
"""Fewest sites of a strip; on smaller strips messages take longer than the steps between them."""


@dataclass(frozen=True)
class Strip:
    """The lines of one rank; arrays over its sites are ordered line by line."""

    domain: Domain
    """The cut and the ranks of the team."""
    axis: int
    """Axis along which the lattice is cut."""
    border: int
    """Number of lines that are read beyond each end; 0 if the strip is the whole lattice."""
    _exchanges: dict[tuple[object, ...], BorderExchange] = field(default_factory=dict, repr=False)

    @classmethod
    def cut(cls, system: ElectronSystem, team: World) -> Strip:
        """My strip, if each rank of the team has one."""
        axis = _long_axis(system)
        blocks = (1, team.size) if axis else (team.size, 1)
        return cls(Domain(system.lattice, team, blocks), axis, _reach(system, axis) if team.size > 1 else 0)

    @property
    def across(self) -> int:
        """Number of sites of a line."""
        return self.domain.lattice.size[1 - self.axis]

    @property
    def lines(self) -> int:
        """Number of my lines."""
        return self.domain.shape[self.axis]

    @property
    def sites(self) -> Sites:
        """My sites, line by line."""
        return np.moveaxis(self.domain.sites, self.axis, 0).reshape(-1)

    @property
    def rows(self) -> int:
        """Number of rows of an array of vectors: my sites, `border` lines on either side, and a row that stays zero."""
        return (self.lines + 2 * self.border) * self.across + 1

    def rows_of(self, sites: Sites) -> NDArray[np.int32]:
        """Rows of sites that are mine or on the border lines; -1 stands for a site beyond an open edge."""
        line, place = np.divmod(self._position(sites), self.across)
        mine = self.domain.slices[self.axis]
        length = self.domain.lattice.size[self.axis]
        before, after = (line - mine.start + self.border) % length, (line - mine.stop) % length
        inside, below = (line >= mine.start) & (line < mine.stop), before < self.border
        local = np.where(inside, line - mine.start, self.lines + np.where(below, before, self.border + after))
        return np.where(sites < 0, self.rows - 1, local * self.across + place).astype(np.int32)

    def in_line_order(self, sites: NDArray[np.integer]) -> Sites:
        """The same sites, ordered line by line."""
        return sites[np.argsort(self._position(sites))].astype(np.int64)

    def own(self, group: ProbeGroup) -> tuple[ProbeGroup, int]:
        """The part of a group on my sites, with rows instead of sites; and the number of its sites on earlier lines."""
        position = self._position(group.sites)
        order = np.argsort(position)
        mine = self.domain.slices[self.axis]
        first, last = np.searchsorted(position[order], (mine.start * self.across, mine.stop * self.across))
        own = order[first:last]
        rows = (position[own] - mine.start * self.across).astype(np.int32)
        return ProbeGroup(rows, group.pairs[own], np.ascontiguousarray(group.phases[own])), int(first)

    def by_site(self, values: Real) -> Real:
        """Reorder the values of all sites, shape (sites, components), from line by line to the order of the sites."""
        if not self.axis:
            return values
        return values.reshape(-1, self.across, values.shape[-1]).swapaxes(0, 1).reshape(values.shape)

    def exchange(self, vectors: Sequence[Tensor]) -> BorderExchange:
        """The exchange for arrays of vectors like these, shape (rows, numbers)."""
        like = vectors[0]
        key = (len(vectors), like.shape[1], like.dtype, like.device)
        if key not in self._exchanges:
            count = self.border * self.across
            self._exchanges[key] = BorderExchange(self.domain, self.axis, self.lines * self.across, count, vectors)
        return self._exchanges[key]

    def _position(self, sites: NDArray[np.integer]) -> Sites:
        along = self.domain.lattice.size[1]
        return np.asarray(sites % along * self.domain.lattice.size[0] + sites // along if self.axis else sites)


def strips_of_a_team(system: ElectronSystem, ranks: int, groups: int) -> int:
    """Number of strips that gives the busiest rank the least work, without any strip being too small.

    It divides the number of all ranks, whose teams share the groups of probing vectors.
    """
    axis = _long_axis(system)
    length, sites = system.lattice.size[axis], system.lattice.num_sites
    most = max(1, min(length // _reach(system, axis), sites // LEAST_SITES))
    choices = [strips for strips in range(1, most + 1) if ranks % strips == 0]
    return min(choices, key=lambda strips: (math.ceil(groups * strips / ranks) * math.ceil(length / strips), strips))


def _long_axis(system: ElectronSystem) -> int:
    return int(system.lattice.size[1] > system.lattice.size[0])


def _reach(system: ElectronSystem, axis: int) -> int:
    """Number of lines that the longest bond spans, at least 1."""
    return max(1, *(abs(term.offset[axis]) for term in system.hopping_terms))
