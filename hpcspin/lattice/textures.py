"""Initial spin textures, registered by the name that a config uses."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hpcspin.errors import HpcspinError
from hpcspin.lattice.lattice import Lattice

Texture = Callable[..., NDArray[np.float64]]
TEXTURES: dict[str, Texture] = {}


def texture(name: str) -> Callable[[Texture], Texture]:
    """Register a texture: a function of a lattice, a random generator and keyword parameters."""

    def register(function: Texture) -> Texture:
        TEXTURES[name] = function
        return function

    return register


def make_texture(name: str, lattice: Lattice, seed: int, **parameters: float) -> NDArray[np.float64]:
    """Unit spins of a registered texture, shape (Lx, Ly, 3).

    Raises
    ------
    HpcspinError
        If no texture of that name is registered, or it has other parameters.
    """
    if name not in TEXTURES:
        known = ", ".join(sorted(TEXTURES))
        raise HpcspinError(f"initial.kind: {name!r} is unknown; choose one of file, {known}")
    signature = inspect.signature(TEXTURES[name])
    try:
        signature.bind(lattice, None, **parameters)
    except TypeError as failure:
        takes = ", ".join([*signature.parameters][2:]) or "none"
        raise HpcspinError(f"initial.kind: {name}: {failure}; its parameters: {takes}") from failure
    return TEXTURES[name](lattice, np.random.default_rng(seed), **parameters)


def _tilted(spins: NDArray[np.float64], tilt: float, rng: np.random.Generator) -> NDArray[np.float64]:
    spins = spins + tilt * rng.standard_normal(spins.shape)
    return spins / np.linalg.norm(spins, axis=-1, keepdims=True)


def _staggered_z(lattice: Lattice) -> NDArray[np.float64]:
    x, y = np.indices(lattice.size)
    spins = np.zeros((*lattice.size, 3))
    spins[..., 2] = 1 - 2 * ((x + y) % 2)
    return spins


@texture("wall")
def wall(lattice: Lattice, rng: np.random.Generator, *, position: float, tilt: float = 0.1) -> NDArray[np.float64]:
    """Ferromagnetic columns x < position along +x, antiferromagnet along +z and -z beyond (spin flop)."""
    spins = _staggered_z(lattice)
    spins[np.arange(lattice.size[0]) < position] = (1.0, 0.0, 0.0)
    return _tilted(spins, tilt, rng)


@texture("antiferromagnet")
def antiferromagnet(lattice: Lattice, rng: np.random.Generator, *, tilt: float = 0.1) -> NDArray[np.float64]:
    """Spins alternately along +z and -z: on the square lattice the Néel state."""
    return _tilted(_staggered_z(lattice), tilt, rng)


@texture("ferromagnet")
def ferromagnet(lattice: Lattice, rng: np.random.Generator, *, tilt: float = 0.1) -> NDArray[np.float64]:
    """All spins along +x."""
    return _tilted(np.broadcast_to((1.0, 0.0, 0.0), (*lattice.size, 3)), tilt, rng)


@texture("random")
def random(lattice: Lattice, rng: np.random.Generator) -> NDArray[np.float64]:
    """Independent spins, uniform on the sphere."""
    return _tilted(np.zeros((*lattice.size, 3)), 1.0, rng)
