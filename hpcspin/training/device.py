"""The device of a training: precision of its products, and transfer of the snapshots.

Two trainings on a GPU from the same seed are close but not bitwise equal: cuDNN adds the gradients of convolutions
with atomic operations, in no fixed order. On a CPU they are bitwise equal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcspin.training.dataset import Snapshots

_SHARE = 0.25
"""Fraction of a GPU's free memory that snapshots may take; the rest is for the network and its gradients."""


@contextmanager
def tensor_float32(allowed: bool) -> Iterator[None]:
    """Set whether GPUs may round the factors of float32 products to TF32, 10 bits, in convolutions and matrices.

    torch's own defaults are yes for convolutions and no for matrices. CPUs have no TF32.
    """
    products: tuple[Any, ...] = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [kind.allow_tf32 for kind in products]
    for kind in products:
        kind.allow_tf32 = allowed
    try:
        yield
    finally:
        for kind, was in zip(products, before, strict=True):
            kind.allow_tf32 = was


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to a device, through pinned memory, so that the host does not wait for a GPU."""
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def emulates_bfloat16(device: torch.device) -> bool:
    """Whether products in bfloat16 take longer on this device than in float32."""
    return device.type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported()


class TrainingBatches:
    """Transfer of my snapshots, one list for each lattice, to the device of the training.

    They are copied to a GPU once if they take at most a quarter of its free memory; otherwise each batch passes through
    pinned memory and is copied while the GPU still computes the one before.
    """

    def __init__(self, shares: Sequence[Snapshots], device: torch.device) -> None:
        self._device = device
        self._data = [[share.spins, share.field, share.bias, share.energy] for share in shares]
        self._resident = sum(t.nbytes for tensors in self._data for t in tensors) <= _SHARE * _free_memory(device)
        if self._resident:
            self._data = [[tensor.to(device) for tensor in tensors] for tensors in self._data]

    def take(self, number: int, rows: NDArray[np.int64]) -> list[Tensor]:
        """Spins, fields, biases and energies per site for some rows of a list, on the device."""
        chosen, tensors = torch.from_numpy(rows), self._data[number]
        if self._resident:
            chosen = to_device(chosen, self._device)
            return [tensor.index_select(0, chosen) for tensor in tensors]
        return [to_device(tensor.index_select(0, chosen), self._device) for tensor in tensors]


def _free_memory(device: torch.device) -> float:
    """Bytes that are free for a copy of the snapshots; on a CPU none is needed."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else math.inf
