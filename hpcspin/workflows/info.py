"""``hpcspin info``: what this installation is made of and what it will use."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch

from hpcspin.electrons.backend import has_cupy
from hpcspin.parallel.device_buffers import obstacle_to_device_buffers
from hpcspin.parallel.devices import gpu_names, pick_device
from hpcspin.parallel.world import World
from hpcspin.potential import host_library, segment_backend
from hpcspin.storage import provenance


def aligned(lines: Mapping[str, str]) -> str:
    """Names and their texts in aligned columns, one per line."""
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {text}" for name, text in lines.items())


def describe(world: World) -> dict[str, str]:
    """Versions, launcher and MPI library, devices, and backends in use, by name; all ranks call it."""
    lines = dict(provenance())
    lines["launcher"] = f"{world.launcher}, {world.size} rank(s)"
    lines["MPI library"] = _mpi_library()
    lines["CPU"] = f"{len(os.sched_getaffinity(0))} core(s), {torch.get_num_threads()} torch thread(s) a rank"
    lines["GPUs"] = ", ".join(gpu_names()) or "none"
    lines["electron algebra"] = _electron_algebra()
    lines["learned fields"] = _learned_fields()
    lines["halo exchange"] = _halo_exchange(world)
    lines["segment reductions"] = segment_backend()
    return lines


def _halo_exchange(world: World) -> str:
    if world.launcher == "torchrun":
        return "torch.distributed on the tensors of the device"
    obstacle = obstacle_to_device_buffers(world, pick_device(world))
    return "MPI on device buffers" if obstacle is None else f"MPI through host memory: {obstacle}"


def _electron_algebra() -> str:
    if not torch.cuda.is_available():
        return "torch on the CPU"
    return "CuPy" if has_cupy() else "torch on the GPU; pip install 'hpcspin[gpu]' brings CuPy"


def _learned_fields() -> str:
    if torch.cuda.is_available():
        return "torch on the GPU"
    kernels = "compiled kernels" if host_library.library(torch.float32) else "torch too, for want of a C compiler"
    return f"torch on the CPU; layers: {kernels}"


def _mpi_library() -> str:
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError):
        return "none (one rank and torchrun work without; pip install 'hpcspin[mpi]' brings one)"
    return MPI.Get_library_version().split("\n")[0].strip("\x00 ")
