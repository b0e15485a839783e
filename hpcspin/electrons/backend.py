"""The array library, used through the array API, and the memory that is free for it.

The electron algebra is written against the Python array API standard; only
this module refers to the libraries by name.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hpcspin.errors import HpcspinError
from hpcspin.parallel.devices import keep_freed_memory, ranks_sharing
from hpcspin.parallel.memory import available_memory
from hpcspin.parallel.world import World

Array = Any
"""An array of the backend's library."""

BACKENDS = ("torch", "numpy", "cupy")
SINGULAR = "a level is coupled to no reservoir; add a bath"
"""Why a Green's function at a real energy is not finite, and what to do."""


@dataclass(frozen=True)
class Backend:
    """An array library on a device."""

    name: str
    """``"torch"``, ``"numpy"`` or ``"cupy"``."""
    xp: Any
    """Its array API namespace."""
    device: Any = None
    """Device of the arrays: torch's device, or the number of CuPy's card; None with NumPy."""
    most_sweeps: int = sys.maxsize
    """Number of sweeps that a rank may run at the same time: as many as fit in memory, and one where a sweep exchanges
    messages with other ranks."""

    def asarray(self, array: NDArray[Any]) -> Array:
        """Convert a host array to an array of the backend, without a copy if it is contiguous and on the device."""
        if self.name == "torch":
            return self.xp.from_numpy(np.ascontiguousarray(array)).to(self.device)
        return self.xp.asarray(array)

    def to_numpy(self, array: Array) -> NDArray[Any]:
        """Convert an array of the backend to a host array."""
        if self.name == "torch":
            return array.cpu().numpy()
        if self.name == "cupy":
            import cupy

            return cupy.asnumpy(array)
        return array

    def host_view(self, array: Array) -> NDArray[Any]:
        """A contiguous NumPy array for an array on a CPU, without a copy if the array is contiguous already."""
        return np.ascontiguousarray(array.numpy() if self.name == "torch" else array)

    def real_tensor(self, array: Array) -> torch.Tensor:
        """A torch view of a contiguous complex array: real and imaginary parts along a last axis, without a copy."""
        return torch.view_as_real(array if self.name == "torch" else torch.from_dlpack(array))

    @property
    def on_gpu(self) -> bool:
        """Whether the arrays are on a GPU."""
        return self.name == "cupy" or (self.name == "torch" and self.device.type == "cuda")

    def free_memory(self) -> int:
        """Bytes that are still free for arrays on the device."""
        if self.name == "cupy":
            import cupy

            cached = cupy.get_default_memory_pool().free_bytes()
            return int(cupy.cuda.runtime.memGetInfo()[0]) + int(cached)
        if self.on_gpu:
            cached = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
            return int(torch.cuda.mem_get_info(self.device)[0]) + cached
        return available_memory()

    def ranks_on_device(self, world: World) -> int:
        """Number of ranks that share the memory of this device; a collective call."""
        return ranks_sharing(world, torch.device("cuda" if self.on_gpu else "cpu"))


def make_backend(name: str = "auto", device: Any = "cpu") -> Backend:
    """Backend by name: ``"torch"``, ``"numpy"``, ``"cupy"`` or ``"auto"``, for ``"cpu"``, ``"cuda"`` or a torch device.

    ``"auto"`` is CuPy on a GPU if it is installed (its batched inversion is the fastest), otherwise torch (its batched
    LAPACK is faster than NumPy's). Raises HpcspinError if the name is unknown or the library is not installed.
    """
    place = torch.device(device)
    if name == "auto":
        name = "cupy" if place.type == "cuda" and has_cupy() else "torch"
    if name == "cupy" and not has_cupy():
        raise HpcspinError("backend cupy: CuPy or its GPU is not there; install hpcspin[gpu] or use torch")
    if name in BACKENDS:
        if place.type == "cpu":
            # Page faults after returning memory to the system took a fifth of the time of a 30x24 label.
            keep_freed_memory()
        where: Any = place if name == "torch" else None
        if name == "cupy":
            import cupy

            # CuPy's current device may differ from torch's.
            where = torch.cuda.current_device() if place.index is None else place.index
            cupy.cuda.Device(where).use()
        return Backend(name, import_module(f"array_api_compat.{name}"), where)
    raise HpcspinError(f"backend {name!r} is unknown; choose one of auto, {', '.join(BACKENDS)}")


def has_cupy() -> bool:
    """Whether CuPy is installed and has a GPU."""
    try:
        import cupy

        return bool(cupy.cuda.is_available())
    except ImportError:
        return False


def invert(xp: Any, matrices: Array) -> Array:
    """Inverse of each matrix of a batch, shape (batch, m, m).

    Uses batched LAPACK. Recursive inversion by 2x2 blocks with batched products was measured and is not faster at m =
    12 to 64 on a CPU. Raises HpcspinError if a matrix is singular, because a level at exactly this energy is coupled to
    no reservoir. CuPy returns numbers that are not finite instead, which the quadrature detects.
    """
    try:
        return xp.linalg.inv(matrices)
    except (np.linalg.LinAlgError, torch.linalg.LinAlgError) as failure:
        raise HpcspinError(f"the Green's function is singular at a real energy: {SINGULAR}") from failure
