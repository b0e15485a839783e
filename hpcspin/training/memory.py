"""Memory of a training step on a CPU, measured before the first one: the kernel ends a process that takes too much."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hpcspin.errors import HpcspinError
from hpcspin.lattice import Lattice
from hpcspin.parallel.devices import ranks_sharing
from hpcspin.parallel.memory import available_memory
from hpcspin.parallel.world import World
from hpcspin.potential import ForceField
from hpcspin.storage import POLARIZATIONS
from hpcspin.training.dataset import Snapshots

_MORE = 1.2
"""What a step takes, divided by its tensors; measured 1.2 to 1.6, as large tensors prevail less."""


def require_room(
    model: ForceField, train: Sequence[Snapshots], batch: int, world: World, device: torch.device, *, bfloat16: bool
) -> None:
    """Refuse a training on a CPU whose steps do not fit into the memory of a node; a collective call.

    Each rank takes one step on one of its snapshots, of which each list has one, without changing the weights. It ends
    as soon as its share of a batch would take more than there is. It is not for ``training.compile``: while tensors are
    counted, a step runs uncompiled, which takes more. Raises HpcspinError on all ranks.
    """
    if device.type != "cpu":
        return
    shares = [-(-min(batch, one.total) // world.size) for one in train]
    mine, one = max(zip(shares, train, strict=True), key=lambda pair: pair[0] * pair[1].lattice.num_sites)
    room = min(world.allgather(available_memory() // ranks_sharing(world, device)))
    needed = max(world.allgather(mine * _MORE * _bytes_of_a_step(model, one, room / mine / _MORE, bfloat16)))
    if needed > room:
        (nx, ny), several = one.lattice.size, ranks_sharing(world, device) > 1
        snapshots, smaller = (f"{mine} snapshots", "training.batch or ") if mine > 1 else ("one snapshot", "")
        raise HpcspinError(
            f"training.batch: a step on {snapshots} of {nx} x {ny} sites takes more memory than the "
            f"{room / 2**30:.3g} GiB that are free{' for each rank' if several else ''}; give a smaller {smaller}"
            f"potential.radius, or use nodes with more memory{', or fewer ranks on each' if several else ''}"
        )


def stand_in(model: ForceField, lattice: Lattice, total: int) -> Snapshots:
    """Random spins, on which `require_room` tries a step before there are labels; of several voltages they have one."""
    columns = {"polarized": 1 + POLARIZATIONS, "chemical_potential": 2}.get(model.sees, 1)
    draw = torch.randn(1, lattice.num_sites, 3, dtype=model.dtype, generator=torch.Generator().manual_seed(0))
    spins, bias, first = normalize(draw, dim=-1), torch.zeros(1, columns).to(draw), np.zeros(1, dtype=np.int64)
    return Snapshots(spins, torch.zeros_like(spins), bias, torch.zeros(1).double(), first, first, total, lattice)


def _bytes_of_a_step(model: ForceField, share: Snapshots, most: float, bfloat16: bool) -> float:
    """Bytes of the tensors of a step on one snapshot, infinite if they are more than ``most``."""
    tensors = _Tensors(most)
    spins, bias = share.spins[:1].clone(), share.bias[:1].clone()  # A view would count as all the snapshots.
    with suppress(_TooMany), tensors, torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        predicted = model(spins, model.neighbourhood(share.lattice), bias)
        torch.autograd.backward(predicted.field.square().sum() + predicted.nonequilibrium.square().sum())
    model.zero_grad()
    return tensors.peak if tensors.peak <= most else float("inf")


class _TooMany(Exception):
    """There are more bytes of tensors than are wanted."""


class _Tensors(TorchDispatchMode):
    """Count the bytes of all tensors that are made in a block; the block ends if there are too many at a time."""

    def __init__(self, most: float) -> None:
        super().__init__()
        self._most, self._known = most, set[int]()
        self._bytes = self.peak = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        if self._bytes > self._most:
            raise _TooMany
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self._known:
            self._known.add(storage._cdata)
            self._bytes += storage.nbytes()
            self.peak = max(self.peak, self._bytes)
            weakref.finalize(storage, self._remove, storage._cdata, storage.nbytes())

    def _remove(self, place: int, size: int) -> None:
        self._known.discard(place)
        self._bytes -= size
