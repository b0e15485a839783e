"""Linear maps of neighbour tables whose derivatives have a fixed order.

The neighbours of a lattice never change. Both the table (who stands in which
slot) and its inverse (in which slots one stands) are therefore known beforehand,
and the adjoint of a gather, usually a scatter with atomic additions in no
fixed order, becomes a gather through the inverse and a sum in a fixed order:
deterministic on every device.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

BACKENDS = ("torch-scatter", "torch")
"""Of sums over segments."""


def linear(x: Tensor, of: Callable[[Tensor], Tensor], adjoint: Callable[[Tensor], Tensor]) -> Tensor:
    """A linear map of x whose derivative is its adjoint, and that one's the map: differentiable to any order."""
    image: Tensor = _Linear.apply(x, of, adjoint)
    return image


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, of: Callable[[Tensor], Tensor], adjoint: Callable[[Tensor], Tensor]) -> Tensor:
        return of(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.maps = inputs[1:]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        of, adjoint = ctx.maps
        return linear(grad, adjoint, of), None, None


def segment_backend() -> str:
    """Name of the backend in use: ``torch-scatter`` or ``torch``."""
    return BACKENDS[0] if importlib.util.find_spec("torch_scatter") else BACKENDS[1]


class StaticGather(nn.Module):
    """Gather along the first axis at fixed positions, differentiable to any order.

    Parameters
    ----------
    places
        Positions, shape (m,).
    length
        Of the axis.
    """

    index: Tensor
    inverse: Tensor

    def __init__(self, places: ArrayLike, length: int) -> None:
        super().__init__()
        index = np.asarray(places, dtype=np.int64)
        inverse = packed_inverse(index, length)
        self.register_buffer("index", torch.from_numpy(index), persistent=False)
        places_of = np.where(inverse >= 0, inverse, len(index)).T
        self.register_buffer("inverse", torch.from_numpy(places_of.copy()), persistent=False)
        self._complete = bool((inverse >= 0).all())

    def forward(self, x: Tensor) -> Tensor:
        """Entries of x at the positions: the axis of ``length`` becomes one of m."""
        return linear(x, self._gather, self._sums)

    def adjoint(self, x: Tensor) -> Tensor:
        """For each position, the sum of x over the places at which it stands."""
        return linear(x, self._sums, self._gather)

    def _gather(self, x: Tensor) -> Tensor:
        return x.index_select(0, self.index)

    def _sums(self, x: Tensor) -> Tensor:
        if not self._complete:
            x = torch.cat([x, torch.zeros_like(x[:1])])
        # One place of all positions at a time, in the order of the table: torch.sum would add in one that depends on
        # the place in memory, and all places at once do not fit the cache.
        first, *others = self.inverse
        total = x.index_select(0, first)
        for places in others:
            total += x.index_select(0, places)
        return total


def packed_inverse(index: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Inverse of a list of positions, as narrow as it can be, shape (length, most repetitions), -1 for none."""
    order = np.argsort(index, kind="stable")
    positions = index[order]
    rank = np.arange(len(order)) - np.searchsorted(positions, positions)
    inverse = np.full((length, int(rank.max(initial=0)) + 1), -1, dtype=np.int64)
    inverse[positions, rank] = order
    return inverse


class SegmentSum(nn.Module):
    """Sum the first axis over contiguous segments, differentiable to any order.

    torch-scatter's own derivative is not differentiable a second time, which
    the training of forces needs; sum and expansion are therefore declared here
    as each other's derivative.

    Parameters
    ----------
    lengths
        Length of each segment, at least 1.
    backend
        One of `BACKENDS`; None for the one in use.
    """

    pointer: Tensor
    owner: Tensor
    members: Tensor

    def __init__(self, lengths: NDArray[np.int64], backend: str | None = None) -> None:
        super().__init__()
        self.backend = backend or segment_backend()
        self._trivial = bool((lengths == 1).all())
        pointer = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        longest = int(np.max(lengths, initial=0))
        members = np.full((len(lengths), longest), pointer[-1])
        for slot in range(longest):
            members[:, slot] = np.where(slot < lengths, pointer[:-1] + slot, pointer[-1])
        self.register_buffer("pointer", torch.from_numpy(pointer), persistent=False)
        self.register_buffer("owner", torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths)), persistent=False)
        self.register_buffer("members", torch.from_numpy(members), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Sum segments: shape (entries, ...) to (segments, ...)."""
        if self._trivial:
            return x
        return linear(x, self._sums, self.expand)

    def _sums(self, x: Tensor) -> Tensor:
        if self.backend == "torch-scatter":
            from torch_scatter import segment_csr

            return segment_csr(x.contiguous(), self.pointer, reduce="sum")
        padded = torch.cat([x, torch.zeros_like(x[:1])])
        return padded.index_select(0, self.members.T.reshape(-1)).unflatten(0, self.members.T.shape).sum(0)

    def expand(self, x: Tensor) -> Tensor:
        """Adjoint of the sum: each entry gets its segment's value."""
        return x.index_select(0, self.owner)
