"""Initial spin textures, registered by the name that a config uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcspin.errors import HpcspinError
from hpcspin.lattice.lattice import Lattice
from hpcspin.registry import Registry
from hpcspin.settings import Finite, NonNegative

TEXTURES: Registry[Callable[..., NDArray[np.float64]]] = Registry("initial.kind", given=2)
"""Functions of a lattice, a random generator and parameters of their own to unit spins, shape (Lx, Ly, 3)."""


def make_texture(name: str, lattice: Lattice, seed: int, **parameters: Any) -> NDArray[np.float64]:
    """Unit spins of a registered texture, shape (Lx, Ly, 3).

    Raises
    ------
    HpcspinError
        If no texture of that name is registered, or it has other parameters or refuses their values.
    """
    spins: NDArray[np.float64] = TEXTURES.make(name, lattice, np.random.default_rng(seed), **parameters)
    return spins


def _tilted(spins: NDArray[np.float64], tilt: float, rng: np.random.Generator) -> NDArray[np.float64]:
    spins = spins + tilt * rng.standard_normal(spins.shape)
    return spins / np.linalg.norm(spins, axis=-1, keepdims=True)


def _staggered_z(lattice: Lattice) -> NDArray[np.float64]:
    x, y = np.indices(lattice.size)
    spins = np.zeros((*lattice.size, 3))
    spins[..., 2] = 1 - 2 * ((x + y) % 2)
    return spins


@TEXTURES.adding("wall")
def wall(lattice: Lattice, rng: np.random.Generator, position: Finite, tilt: NonNegative = 0.1) -> NDArray[np.float64]:
    """Ferromagnetic columns x < position along +x, antiferromagnet along +z and -z beyond (spin flop)."""
    last = lattice.size[0] - 1
    if not 0 <= position <= last:
        raise HpcspinError(
            f"initial.position: {position:g} is no column of the lattice, whose lattice.size has the columns 0 to "
            f"{last}; choose one of them"
        )
    spins = _staggered_z(lattice)
    spins[np.arange(lattice.size[0]) < position] = (1.0, 0.0, 0.0)
    return _tilted(spins, tilt, rng)


@TEXTURES.adding("antiferromagnet")
def antiferromagnet(lattice: Lattice, rng: np.random.Generator, tilt: NonNegative = 0.1) -> NDArray[np.float64]:
    """Spins alternately along +z and -z: on the square lattice the Néel state."""
    return _tilted(_staggered_z(lattice), tilt, rng)


@TEXTURES.adding("ferromagnet")
def ferromagnet(lattice: Lattice, rng: np.random.Generator, tilt: NonNegative = 0.1) -> NDArray[np.float64]:
    """All spins along +x."""
    return _tilted(np.broadcast_to((1.0, 0.0, 0.0), (*lattice.size, 3)), tilt, rng)


@TEXTURES.adding("random")
def random(lattice: Lattice, rng: np.random.Generator) -> NDArray[np.float64]:
    """Independent spins, uniform on the sphere."""
    return _tilted(np.zeros((*lattice.size, 3)), 1.0, rng)


@TEXTURES.adding("file")
def from_file(lattice: Lattice, rng: np.random.Generator, path: str) -> NDArray[np.float64]:
    """Last frame of an HDF5 file's /spins, of a simulation's directory, an OVF 2.0 or a .npy file."""
    from hpcspin.storage import SpinsFile  # HDF5 takes a while to import.

    return SpinsFile(path, lattice.size, lattice.cartesian(lattice.sites)).read(-1)[0]
