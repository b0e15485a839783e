"""Messages from a GPU: the host waits for it where MPI reads what it has written, and never under NCCL.

No GPU is needed: tensors of the host stand for those of the device, and the order of the calls is written down.
"""

import sys
from types import SimpleNamespace

import pytest
import torch

from hpcspin.parallel import messages
from hpcspin.parallel.messages import NeighbourMessages
from hpcspin.parallel.stopwatch import Stopwatch
from hpcspin.parallel.world import World

GPU = torch.device("cuda", 0)


@pytest.fixture
def calls(monkeypatch):
    """What is asked of the GPU, of MPI and of NCCL, in order."""
    found = []

    def note(word, result=None):
        return lambda *given, **named: found.append(word) or result

    empty = torch.empty
    monkeypatch.setattr(messages.torch, "empty", lambda shape, dtype, device, pin_memory: empty(shape, dtype=dtype))
    stream = SimpleNamespace(synchronize=note("host waits for the GPU"))
    monkeypatch.setattr(messages.torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(messages, "require_own_gpu", note("cards"))
    monkeypatch.setattr(messages, "obstacle_to_device_buffers", lambda world, device: "no CUDA-aware MPI")
    monkeypatch.setattr(messages.dist, "P2POp", lambda kind, tensor, **peer: tensor)
    request = SimpleNamespace(wait=note("stream waits for NCCL"))
    monkeypatch.setattr(messages.dist, "batch_isend_irecv", note("NCCL sends", [request]))
    mpi = SimpleNamespace(Prequest=SimpleNamespace(Startall=note("MPI sends")))
    mpi.Request = SimpleNamespace(Waitall=note("host waits for MPI"))
    monkeypatch.setattr(torch.Tensor, "copy_", note("copy"))
    monkeypatch.setitem(sys.modules, "mpi4py", SimpleNamespace(MPI=mpi))
    return found


class Communicator:
    """Of an MPI library whose requests do nothing."""

    def request(self, *given, **named):
        return SimpleNamespace(Free=lambda: None)

    Send_init = Recv_init = request


def exchange(comm):
    world = World(size=2, launcher="mpi" if comm else "torchrun", comm=comm)
    domain = SimpleNamespace(world=world, stopwatch=Stopwatch(), neighbour=lambda side: 1)
    shapes = {(0, 1): (4,)}
    halo = NeighbourMessages(domain, shapes, SimpleNamespace(device=GPU, dtype=torch.float64))
    halo.send({(0, 1): torch.ones(4, dtype=torch.float64)})
    torch.zeros(4, dtype=torch.float64).copy_(halo.receive()[0, 1])


def test_under_nccl_the_host_never_waits(calls):
    exchange(None)
    assert calls == ["cards", "copy", "NCCL sends", "stream waits for NCCL", "copy"]


def test_under_mpi_the_host_waits_before_it_hands_over_what_the_gpu_writes(calls):
    exchange(Communicator())
    """And before it begins to copy, so that the record of its time does not take computing for packing."""
    waits = "host waits for the GPU"
    assert calls == [waits, "copy", waits, "MPI sends", "host waits for MPI", "copy"]
