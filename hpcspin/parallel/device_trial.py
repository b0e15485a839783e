"""Send a tensor from this process to itself through MPI, as halos are sent, and compare.

    python -m hpcspin.parallel.device_trial DEVICE

Exits with 0 if it has arrived unchanged. It runs in its own process, since an MPI library that cannot read GPU memory
crashes.
"""

from __future__ import annotations

import sys

import torch

_NUMBERS = 1 << 17
"""1 MB: larger than the messages that libraries copy by a protocol for small ones."""


def arrives(device: torch.device) -> bool:
    """Whether a message between two buffers on a device arrives unchanged."""
    from mpi4py import MPI

    sent = torch.arange(_NUMBERS, dtype=torch.float64, device=device)
    received = torch.zeros_like(sent)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    requests = [MPI.COMM_SELF.Send_init(sent, 0), MPI.COMM_SELF.Recv_init(received, 0)]
    MPI.Prequest.Startall(requests)
    MPI.Request.Waitall(requests)
    return torch.equal(sent, received)


if __name__ == "__main__":
    sys.exit(not arrives(torch.device(sys.argv[1])))
