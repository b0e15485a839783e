"""Whether MPI may be given buffers on a GPU.

A wrong guess would crash the job. The MPI library must therefore report that it supports them, and a trial in a
separate process must succeed, on every rank; otherwise messages pass through pinned host memory.  The trial uses one
rank, so it does not test transfers between ranks.  This path has been tested up to the device boundary, with host
tensors in place of device buffers; it has not run on a GPU yet.
"""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
import sys

import torch

from hpcspin.parallel.world import World

TRIAL = (sys.executable, "-m", "hpcspin.parallel.device_trial")
TRIAL_SECONDS = 60.0
_LAUNCHER_PREFIXES = ("PMI_", "PMIX_", "PMI2_", "OMPI_", "PRTE_", "HYDI_", "HYDRA_", "MPI_LOCAL", "SLURM_")
"""Prefixes of the variables by which an MPI library recognises a launcher; without them a process runs alone."""


def obstacle_to_device_buffers(world: World, device: torch.device) -> str | None:
    """Why MPI is not given buffers on a device, the first obstacle on any rank, or None; a collective call."""
    return next((obstacle for obstacle in world.allgather(_obstacle(device)) if obstacle is not None), None)


@functools.cache
def _obstacle(device: torch.device) -> str | None:
    if device.type != "cuda":
        return "the spins live on the CPU"
    if not library_reports_cuda():
        return "the MPI library does not report that it can read GPU memory"
    return _failure_of_trial(str(device))


def library_reports_cuda() -> bool:
    """Whether the MPI library of mpi4py says that it takes CUDA buffers, as Open MPI and MPICH can.

    ``MPIX_Query_cuda_support`` is an extension: a library without it says no.
    """
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError):
        return False
    # The symbols of a module include those of the library that it is linked to.
    query = getattr(ctypes.CDLL(MPI.__file__), "MPIX_Query_cuda_support", None)
    return query is not None and bool(query())


def _failure_of_trial(device: str) -> str | None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_LAUNCHER_PREFIXES)}
    try:
        trial = subprocess.run(
            [*TRIAL, device], env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=TRIAL_SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"a trial message from GPU memory has not arrived within {TRIAL_SECONDS:g} s"
    if trial.returncode != 0:
        return f"a trial message from GPU memory failed with code {trial.returncode}"
    return None
