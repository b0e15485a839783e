"""Messages of fixed shape between a block and its neighbours.

Under MPI they lie in contiguous buffers with persistent requests: on the device where MPI can work there, else on the
host, in pinned memory if the spins live on a GPU. The host waits for the GPU before it passes them to MPI. Under
torchrun they are tensors on the device; on a GPU, NCCL sends and receives them in the order of the stream, and the host
never waits for it.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from hpcspin.parallel.device_buffers import obstacle_to_device_buffers
from hpcspin.parallel.devices import require_own_gpu
from hpcspin.parallel.stopwatch import PACKING, WAITING

if TYPE_CHECKING:
    from hpcspin.parallel.domain import Domain

Direction = tuple[int, int]


def _opposite(side: Direction) -> Direction:
    return -side[0], -side[1]


def _tag(side: Direction) -> int:
    return 3 * (side[0] + 1) + side[1] + 1


def _free(requests: list[Any]) -> None:
    for request in requests:
        request.Free()


class NeighbourMessages:
    """The messages to each side of my block, and those from there, which all ranks make and use in the same order.

    ``shapes`` are those of what is sent to each side that is not an open edge, and of what comes from it, ``like`` is a
    tensor of their type, on their device. Raises HpcspinError if NCCL would send them and ranks share a GPU or have
    none.
    """

    def __init__(self, domain: Domain, shapes: Mapping[Direction, tuple[int, ...]], like: Tensor) -> None:
        self._world, self._stopwatch = domain.world, domain.stopwatch
        self._peers = {side: peer for side in sorted(shapes) if (peer := domain.neighbour(side)) is not None}
        under_mpi, on_gpu = self._world.comm is not None, like.device.type == "cuda"
        if not under_mpi:  # Also on a CPU: the others may have GPUs.
            require_own_gpu(self._world, like.device)
        self._read_by_host = like.device if under_mpi and on_gpu else None
        self._staged = under_mpi and obstacle_to_device_buffers(self._world, like.device) is not None
        device = torch.device("cpu") if self._staged else like.device
        pin = self._staged and on_gpu
        self._out, self._in = (
            {side: torch.empty(shapes[side], dtype=like.dtype, device=device, pin_memory=pin) for side in self._peers}
            for _ in range(2)
        )
        self._requests: list[Any] = self._persistent() if under_mpi else []
        if under_mpi:
            weakref.finalize(self, _free, self._requests)

    @property
    def received_bytes(self) -> int:
        """Bytes received in one exchange."""
        return sum(buffer.nbytes for buffer in self._in.values())

    def send(self, parts: Mapping[Direction, Tensor]) -> None:
        """Start to send a tensor to each side, and to receive."""
        if not self._peers:
            return
        self._synchronise()  # Computing the parts does not count as packing.
        with self._stopwatch.measure(PACKING):
            for side, buffer in self._out.items():
                buffer.copy_(parts[side], non_blocking=True)
            self._synchronise()
        with self._stopwatch.measure(WAITING):
            if self._world.comm is not None:
                from mpi4py import MPI

                MPI.Prequest.Startall(self._requests)
            else:
                self._requests = dist.batch_isend_irecv(self._operations())

    def receive(self) -> Mapping[Direction, Tensor]:
        """Wait for the messages, valid until the next `send`; they are on the host if MPI cannot read the device."""
        with self._stopwatch.measure(WAITING):
            if self._world.comm is not None:
                from mpi4py import MPI

                MPI.Request.Waitall(self._requests)
            else:
                for request in self._requests:
                    request.wait()
        return self._in

    def _synchronise(self) -> None:
        if self._read_by_host is not None:
            torch.cuda.current_stream(self._read_by_host).synchronize()

    def _persistent(self) -> list[Any]:
        comm = self._world.comm
        requests = []
        for side, peer in self._peers.items():
            requests.append(comm.Send_init(self._buffer(self._out[side]), dest=peer, tag=_tag(side)))
            # What comes from my low side was sent by that rank towards its high side.
            requests.append(comm.Recv_init(self._buffer(self._in[side]), source=peer, tag=_tag(_opposite(side))))
        return requests

    def _buffer(self, tensor: Tensor) -> Any:
        return tensor.numpy() if self._staged else tensor

    def _operations(self) -> list[dist.P2POp]:
        group = self._world.group
        sends = [
            dist.P2POp(dist.isend, self._out[side], group=group, tag=_tag(side), group_peer=peer)
            for side, peer in self._peers.items()
        ]
        # NCCL has no tags: receives are in the order in which the other rank, going through its sides, sends.
        receives = [
            dist.P2POp(dist.irecv, self._in[side], group=group, tag=_tag(_opposite(side)), group_peer=peer)
            for side, peer in reversed(self._peers.items())
        ]
        return sends + receives
