"""Bonds and scalar chiralities of a neighbourhood, arranged in symmetry orbits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Orbit:
    """All bonds or chiralities that the symmetry makes out of one.

    Attributes
    ----------
    kind : str
        ``"bond"`` b_jk = S_j·S_k, or ``"chirality"`` χ_0jk = S_0·(S_j x S_k).
    pairs : ndarray
        Slots (j, k) to which each operation carries the generator, shape (operations, 2).
    stabiliser : ndarray
        Sign with which each operation maps the generator onto itself, 0 if elsewhere.
    """

    kind: str
    pairs: NDArray[np.int64]
    stabiliser: NDArray[np.float64]

    @property
    def parity(self) -> int:
        """Sign under time reversal, S -> -S."""
        return 1 if self.kind == "bond" else -1

    @property
    def members(self) -> set[tuple[int, int]]:
        """Distinct members as unordered pairs of slots."""
        return {(min(pair), max(pair)) for pair in self.pairs.tolist()}


def slot_permutations(offsets: NDArray[np.int64], operations: NDArray[np.int64]) -> NDArray[np.int64]:
    """Slot to which each operation carries each slot, shape (operations, slots)."""
    slot = {tuple(offset): number for number, offset in enumerate(offsets.tolist())}
    moved = np.einsum("gab,jb->gja", operations, offsets)
    return np.array([[slot[tuple(offset)] for offset in images] for images in moved.tolist()])


def find_orbits(offsets: NDArray[np.int64], operations: NDArray[np.int64]) -> list[Orbit]:
    """Orbits of all bonds b_0j, b_jk and chiralities χ_0jk of a neighbourhood.

    Every pair within the cutoff radius of the centre counts, however far j and
    k are from each other.

    Parameters
    ----------
    offsets
        Zero first, shape (slots, 2).
    operations
        Symmetry operations, identity first, shape (operations, 2, 2).
    """
    permutations = slot_permutations(offsets, operations)
    slots = range(1, len(offsets))
    bonds = [(0, j) for j in slots] + list(combinations(slots, 2))
    return [
        *_partition("bond", bonds, permutations),
        *_partition("chirality", list(combinations(slots, 2)), permutations),
    ]


def _partition(kind: str, pairs: list[tuple[int, int]], permutations: NDArray[np.int64]) -> Iterator[Orbit]:
    seen: set[tuple[int, int]] = set()
    for pair in pairs:
        if pair in seen:
            continue
        images = permutations[:, pair]
        same = (images == pair).all(-1).astype(float)
        swapped = (images == pair[::-1]).all(-1).astype(float)
        orbit = Orbit(kind, images, same + swapped if kind == "bond" else same - swapped)
        seen |= orbit.members
        yield orbit
