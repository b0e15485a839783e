"""Which device a rank computes on."""

from __future__ import annotations

import ctypes
import sys

import torch

from hpcspin.errors import HpcspinError, shown
from hpcspin.parallel.world import World

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h


def pick_device(world: World, requested: str = "auto") -> torch.device:
    """Device of this rank, ``"cpu"``, ``"cuda"`` or ``"auto"``: its own GPU by node-local rank, or the CPU.

    Every stage of a workflow calls this first: it releases the GPU memory that torch or CuPy cached in the stage
    before, for the other library. Raises HpcspinError if ``"cuda"`` is requested and there is no GPU, or for a request
    other than ``"auto"``, ``"cpu"`` and ``"cuda"``.
    """
    if not (isinstance(requested, str) and requested in ("auto", "cpu", "cuda")):
        raise HpcspinError(f"device: {shown(requested)} must be auto, cpu or cuda")
    if requested == "cpu" or (requested == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise HpcspinError("device: cuda is asked for and torch finds no GPU; use device=auto or device=cpu")
    device = torch.device("cuda", world.local_rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    torch.cuda.empty_cache()
    if (cupy := sys.modules.get("cupy")) is not None:
        with cupy.cuda.Device(device.index):
            cupy.get_default_memory_pool().free_all_blocks()
    return device


def gpu_names() -> list[str]:
    """Names of the GPUs of this node."""
    number = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [torch.cuda.get_device_name(one) for one in range(number)]


def ranks_sharing(world: World, device: torch.device) -> int:
    """How many ranks of the job, not of the team, compute on the device of this rank; all ranks call it.

    GPUs are compared by their UUIDs, since each rank may see only its own under the number 0; all ranks of a node share
    its CPU.
    """
    if device.type not in world.sharing:
        mine = unique_name(device)
        everywhere = world.allgather(mine)
        world.sharing[device.type] = world.local_size if mine is None else everywhere.count(mine)
    return world.sharing[device.type]


def form_teams(world: World, teams: int, requested: str) -> tuple[int, World]:
    """Divide the ranks by `World.split`, once all have counted who shares a device, which a team does not see."""
    ranks_sharing(world, pick_device(world, requested))
    return world.split(teams)


def require_own_gpu(world: World, device: torch.device) -> None:
    """Raise HpcspinError on all ranks if torch.distributed cannot connect them: two on one GPU, or some on none."""
    names = world.allgather(unique_name(device))
    gpus = [uuid for uuid in names if uuid is not None]
    if 0 < len(gpus) < len(names):  # They would wait for each other for ever.
        raise HpcspinError(
            f"{len(gpus)} of {len(names)} ranks have a GPU, and torch.distributed cannot connect them with the others; "
            "start ranks only where there is a GPU for each, or use device=cpu"
        )
    if len(set(gpus)) < len(gpus):
        raise HpcspinError(
            f"{len(gpus)} ranks compute on {len(set(gpus))} GPU(s): NCCL refuses two ranks on one GPU; start one rank "
            "for each GPU, or use device=cpu; simulations under mpiexec may share a GPU"
        )


def unique_name(device: torch.device) -> str | None:
    """UUID of a GPU; None for a CPU."""
    return str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else None


def keep_freed_memory() -> None:
    """Ask the C library to reuse freed memory instead of returning it to the system.

    By default glibc maps every tensor beyond 32 MB afresh, and the first touch of each page costs more than the
    arithmetic: a Heun step of 2048 x 2048 spins took 2.2 s, and takes 0.8 s with this and at most twice the memory.
    Other C libraries are left alone.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
