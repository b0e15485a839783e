"""Sums over contiguous segments: torch-scatter where it is installed, plain torch otherwise."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

BACKENDS = ("torch-scatter", "torch")


def segment_backend() -> str:
    """Name of the backend in use: ``torch-scatter`` or ``torch``."""
    return BACKENDS[0] if importlib.util.find_spec("torch_scatter") else BACKENDS[1]


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
        result: Tensor = _Sum.apply(x, self)
        return result

    def total(self, x: Tensor) -> Tensor:
        """Sums of the segments."""
        if self.backend == "torch-scatter":
            from torch_scatter import segment_csr

            return segment_csr(x.contiguous(), self.pointer, reduce="sum")
        padded = torch.cat([x, torch.zeros_like(x[:1])])
        return padded.index_select(0, self.members.T.reshape(-1)).unflatten(0, self.members.T.shape).sum(0)

    def expand(self, x: Tensor) -> Tensor:
        """Transpose of `total`: each entry gets its segment's value."""
        return x.index_select(0, self.owner)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, segments: SegmentSum) -> Tensor:
        ctx.segments = segments
        return segments.total(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Expand.apply(grad, ctx.segments), None


class _Expand(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, segments: SegmentSum) -> Tensor:
        ctx.segments = segments
        return segments.expand(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Sum.apply(grad, ctx.segments), None
