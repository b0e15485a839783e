"""Exchange of halos between neighbouring blocks, one axis at a time.

First strips of columns travel along x, then strips of rows along y that already carry their x halo: so
corners arrive without diagonal messages.  Under MPI the strips are packed into contiguous host buffers
(pinned where the spins live on a GPU) with persistent requests; under torchrun they are tensors on the
device.  A message is known by the side it travels to, so that two ranks which are each other's
neighbour on both sides do not mix them up, and both receives are posted in the order in which the other
side sends, which NCCL needs because it knows no tags.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

if TYPE_CHECKING:
    from hpcspin.parallel.domain import Domain

LOW, HIGH = -1, 1


class _Strips:
    """Strips of one axis between my block and its two neighbours."""

    def __init__(self, domain: Domain, axis: int, shape: tuple[int, ...], like: Tensor) -> None:
        self._world = domain.world
        self._device = like.device
        staged = self._world.comm is not None
        device = torch.device("cpu") if staged else like.device
        pin = staged and like.device.type == "cuda"
        peers = {side: domain.neighbour(axis, side) for side in (LOW, HIGH)}
        self._peers = {side: rank for side, rank in peers.items() if rank is not None}
        self._out, self._in = (
            {side: torch.empty(shape, dtype=like.dtype, device=device, pin_memory=pin) for side in self._peers}
            for _ in range(2)
        )
        self._requests = self._persistent() if staged else None

    def trade(self, low: Tensor, high: Tensor) -> dict[int, Tensor]:
        """Send my strips to both sides; return the strips that came, by the side they came from."""
        for side, strip in ((LOW, low), (HIGH, high)):
            if side in self._peers:
                self._out[side].copy_(strip)
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()
        if self._requests is None:
            self._trade_torch()
        else:
            self._trade_mpi()
        return self._in

    def _persistent(self) -> list[Any]:
        comm = self._world.comm
        requests = []
        for side, peer in self._peers.items():
            requests.append(comm.Send_init(self._out[side].numpy(), dest=peer, tag=int(side == HIGH)))
            # What arrives from my low side was sent by that rank towards its high side.
            requests.append(comm.Recv_init(self._in[side].numpy(), source=peer, tag=int(side == LOW)))
        return requests

    def _trade_mpi(self) -> None:
        from mpi4py import MPI

        requests = self._requests or []
        MPI.Prequest.Startall(requests)
        MPI.Request.Waitall(requests)

    def _trade_torch(self) -> None:
        group = self._world.group
        operations = [
            dist.P2POp(dist.isend, self._out[side], group=group, tag=int(side == HIGH), group_peer=self._peers[side])
            for side in (LOW, HIGH)
            if side in self._peers
        ]
        operations += [
            dist.P2POp(dist.irecv, self._in[side], group=group, tag=int(side == LOW), group_peer=self._peers[side])
            for side in (HIGH, LOW)
            if side in self._peers
        ]
        for request in dist.batch_isend_irecv(operations) if operations else ():
            request.wait()


class HaloExchange:
    """Surround a block with a halo of fixed width; buffers and requests are made once.

    Parameters
    ----------
    domain
        The cut; all ranks make and call their exchanges together.
    halo
        Width; at most the thinnest block along an axis that is cut.
    like
        A block of the shape, type and device that will be exchanged.
    """

    def __init__(self, domain: Domain, halo: int, like: Tensor) -> None:
        self._domain, self._halo = domain, halo
        nx, ny, components = like.shape
        shapes = ((components, halo, ny), (components, nx + 2 * halo, halo))
        self._strips = [
            _Strips(domain, axis, shapes[axis], like) if domain.blocks[axis] > 1 else None for axis in range(2)
        ]

    def __call__(self, block: Tensor) -> Tensor:
        """Shape (nx, ny, components) in, (nx + 2 halo, ny + 2 halo, components) out, stored by components."""
        halo = self._halo
        nx, ny, components = block.shape
        extended = block.new_zeros((components, nx + 2 * halo, ny + 2 * halo))
        extended[:, halo : halo + nx, halo : halo + ny] = block.permute(2, 0, 1)
        self._fill(extended[:, :, halo : halo + ny], axis=0)
        self._fill(extended, axis=1)
        return extended.permute(1, 2, 0)

    def _fill(self, extended: Tensor, axis: int) -> None:
        halo, dim = self._halo, axis + 1
        length = extended.shape[dim] - 2 * halo
        sides = {LOW: extended.narrow(dim, 0, halo), HIGH: extended.narrow(dim, halo + length, halo)}
        strips = self._strips[axis]
        if strips is not None:
            low, high = extended.narrow(dim, halo, halo), extended.narrow(dim, length, halo)
            for side, strip in strips.trade(low, high).items():
                sides[side].copy_(strip)
        elif self._domain.lattice.periodic[axis]:
            mine = extended.narrow(dim, halo, length)
            # The halo may be wider than the lattice: images of images.
            steps = torch.arange(halo, device=extended.device)
            sides[LOW].copy_(mine.index_select(dim, (steps - halo) % length))
            sides[HIGH].copy_(mine.index_select(dim, steps % length))
