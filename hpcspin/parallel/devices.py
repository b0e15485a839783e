"""Which device a rank computes on."""

from __future__ import annotations

import torch

from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World


def pick_device(world: World, requested: str = "auto") -> torch.device:
    """Device of this rank: its own GPU by node-local rank, or the CPU.

    Parameters
    ----------
    world
        The ranks.
    requested
        ``"auto"`` takes a GPU where there is one, ``"cpu"`` and ``"cuda"`` insist.

    Raises
    ------
    HpcspinError
        If a GPU is insisted on and there is none.
    """
    if requested == "cpu" or (requested == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise HpcspinError("device: cuda is asked for and torch finds no GPU; use device=auto or device=cpu")
    device = torch.device("cuda", world.local_rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device
