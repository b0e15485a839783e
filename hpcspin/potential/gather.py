"""Linear maps by neighbour tables whose derivatives are summed in a fixed order.

The neighbours on a lattice never change. Both the table (which site is in which slot) and its inverse (in which slots a
site is) are therefore computed in advance, and the adjoint of a gather, usually a scatter with atomic additions in no
fixed order, becomes a gather through the inverse and a sum in a fixed order: deterministic on every device.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from hpcspin.errors import HpcspinError

BACKENDS = ("torch-scatter", "torch")
"""Backends of sums over segments."""
_AT_ONCE = {"cpu": 512, "cuda": 1 << 17}
"""Number of spins that are summed at once, by device type."""


def linear(x: Tensor, of: Callable[[Tensor], Tensor], adjoint: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a linear map; its adjoint is its derivative and vice versa, so that it is differentiable to any order."""
    return _Linear.apply(x, of, adjoint)


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


def _scatter_has_kernels(device: torch.device) -> bool:
    """Whether torch-scatter supports a device; if built without CUDA, it supports CPUs only."""
    import torch_scatter  # noqa: F401

    return device.type == "cpu" or torch.ops.torch_scatter.cuda_version() >= 0


class StaticGather(nn.Module):
    """Gather fixed positions, shape (m,), of a first axis of given length; differentiable to any order.

    So is its adjoint, the sums over all entries at the same position; torch-scatter's own derivative is not, and the
    training of forces needs a second one. Both `BACKENDS` add these entries one by one, to the same bits.
    """

    index: Tensor
    order: Tensor
    owner: Tensor
    pointer: Tensor

    def __init__(self, places: ArrayLike, length: int) -> None:
        super().__init__()
        index = np.asarray(places, dtype=np.int64)
        order = np.argsort(index, kind="stable")
        pointer = np.cumsum([0, *np.bincount(index, minlength=length)])
        for name, array in (("index", index), ("order", order), ("owner", index[order]), ("pointer", pointer)):
            self.register_buffer(name, torch.from_numpy(array.astype(np.int64)), persistent=False)
        self._backend = segment_backend()
        self._is_sorted = bool((order == np.arange(len(index))).all())
        self._is_identity = np.array_equal(index, np.arange(length))

    def forward(self, x: Tensor) -> Tensor:
        """Entries of x at the positions: the first axis, of size ``length``, becomes one of size m."""
        return linear(x, self._gathered, self._summed)

    def adjoint(self, x: Tensor) -> Tensor:
        """Sum of the entries at each position: the first axis, of size m, becomes one of size ``length``."""
        return x if self._is_identity else linear(x, self._summed, self._gathered)

    def _gathered(self, x: Tensor) -> Tensor:
        return x.index_select(0, self.index)

    def _summed(self, x: Tensor) -> Tensor:
        laid, segments = x.contiguous() if self._is_sorted else x.index_select(0, self.order), len(self.pointer) - 1
        if self._backend == BACKENDS[0] and _scatter_has_kernels(x.device):
            from torch_scatter import segment_csr

            return segment_csr(laid, self.pointer, reduce="sum")
        if x.device.type == "cpu":
            return x.new_zeros(segments, *x.shape[1:]).index_add_(0, self.owner, laid)
        return torch.segment_reduce(laid, "sum", lengths=self.pointer.diff(), unsafe=True)


class SlotGather:
    """Gather from the spins around all centres, and its transpose, a sum over the centres around every spin.

    The positions of all components are computed from one number per slot, part by part, in cache: stored, they would
    take most of the memory of a simulation.

    ``table`` has the row of the spin in each slot, or the number of ``rows`` where it is missing: int32, shape (slots,
    centres + 1), of which the last centre is empty. Missing spins are read from the end of the gathered array, where
    the caller provides a row of zeros.
    """

    def __init__(self, table: Tensor, rows: int) -> None:
        self.table, self._rows = table, rows

    @functools.cached_property
    def _inverse(self) -> Tensor:
        """Inverse table, as large as the table; built only for fields that use `adjoint`."""
        return slot_inverse(self.table[:, :-1], self._rows)

    def gather(self, x: Tensor, those: slice = slice(None)) -> Tensor:
        """Numbers of the spins in the slots of some centres, from (rows + 1, width) to (slots, width, centres)."""
        width = x.shape[1]
        index = self.table[:, None, those] * width + torch.arange(width, device=x.device)[:, None]
        return x.flatten().index_select(0, index.flatten()).view(index.shape)

    def adjoint(self, x: Tensor) -> Tensor:
        """For each spin, the sum of x, (slots, width, centres + 1), over its slots; differentiable to any order.

        Terms are added in the order of the slots, whatever block of the lattice the table describes; x is zero at its
        end.
        """
        return linear(x, self._sums, lambda grad: self.gather(with_zero(grad)))

    def _sums(self, x: Tensor) -> Tensor:
        slots, width, centres = x.shape
        places, flat = torch.arange(slots * width, device=x.device).view(slots, width, 1) * centres, x.flatten()
        sums = []
        for centre in self._inverse.split(_AT_ONCE[x.device.type], 1):
            index = places + centre[:, None]
            total, *others = flat.index_select(0, index.flatten()).view(index.shape).unbind()
            for other in others:
                total += other
            sums.append(total)
        return torch.cat(sums, -1).T.contiguous()


def with_zero(x: Tensor) -> Tensor:
    """The rows of x, followed by a row of zeros."""
    return torch.cat([x, torch.zeros_like(x[:1])])


def slot_inverse(table: Tensor, rows: int) -> Tensor:
    """The centre that has each row in a slot, or the number of centres if there is none, shape (slots, rows).

    ``table`` is int32, of shape (slots, centres), with the number of rows in place of a missing neighbour. Raises
    HpcspinError if a row is the same neighbour of two centres.
    """
    slots, centres = table.shape
    # One more row, for missing neighbours.
    inverse = torch.full((slots, rows + 1), centres, dtype=torch.int32, device=table.device)
    numbers = torch.arange(centres, dtype=torch.int32, device=table.device)
    for slot, (found, places) in enumerate(zip(inverse, table.unbind(), strict=True)):
        index = places.long()
        found[index] = numbers
        if bool(((found[index] != numbers) & (places < rows)).any()):
            raise HpcspinError(f"neighbour table: a row is neighbour {slot} of two centres; list each centre once")
    return inverse[:, :-1]
