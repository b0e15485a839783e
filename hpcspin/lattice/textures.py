"""Initial spin textures, registered by the name that a config uses."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hpcspin.errors import HpcspinError, shown
from hpcspin.lattice.lattice import Lattice, TriangularLattice, nearest_vectors
from hpcspin.registry import Registry
from hpcspin.settings import Count, Finite, NonNegative, Positive

TEXTURES: Registry[Callable[..., NDArray[np.float64]]] = Registry("initial.kind", given=2)
"""Functions of a lattice, a random generator and their own parameters that return unit spins, shape (Lx, Ly, 3)."""


def make_texture(
    name: str, lattice: Lattice, seed: int, vacancies: NDArray[np.bool_] | None = None, **parameters: Any
) -> NDArray[np.float64]:
    """Unit spins of a registered texture, shape (Lx, Ly, 3); files may hold zeros at ``vacancies``, a mask (Lx, Ly).

    Raises
    ------
    HpcspinError
        If no texture of that name is registered, it has no such parameter, or it refuses a value.
    """
    try:
        # NumPy also takes lists, and None for another seed at each call.
        rng = np.random.default_rng(operator.index(seed))
    except (TypeError, ValueError) as failure:
        raise HpcspinError(f"seed: {shown(seed)} must be a whole number of at least 0") from failure
    if name == "file" and set(parameters) == {"path"}:
        return _from_file(lattice, str(parameters["path"]), vacancies)
    spins: NDArray[np.float64] = TEXTURES.make(name, lattice, rng, **parameters)
    return spins


def _tilted(spins: NDArray[np.float64], tilt: float, rng: np.random.Generator) -> NDArray[np.float64]:
    spins = spins + tilt * rng.standard_normal(spins.shape)
    return spins / np.linalg.norm(spins, axis=-1, keepdims=True)


def _require_period(lattice: Lattice, name: str, period: tuple[int, int]) -> None:
    """Refuse periodic sides that are not commensurate with an order that repeats after ``period`` sites."""
    for axis, length, periodic, repeats in zip("xy", lattice.size, lattice.periodic, period, strict=True):
        if periodic and length % repeats:
            raise HpcspinError(
                f"initial.kind: {name} repeats after {repeats} sites along {axis}, and lattice.size has {length} along "
                f"periodic {axis}; give a multiple of {repeats}, or make {axis} open"
            )


def _require_triangular(lattice: Lattice, name: str) -> None:
    """Refuse a lattice without the bonds of the triangular lattice, on which the order is defined."""
    if set(lattice.neighbours) != {(s * x, s * y) for x, y in TriangularLattice.bonds for s in (1, -1)}:
        raise HpcspinError(f"initial.kind: {name} is an order of lattice.kind triangular, not of {lattice.kind}")


def _staggered_z(lattice: Lattice, name: str, period: tuple[int, int]) -> NDArray[np.float64]:
    _require_period(lattice, name, period)
    x, y = np.indices(lattice.size)
    spins = np.zeros((*lattice.size, 3))
    spins[..., 2] = 1 - 2 * ((x + y) % 2)
    return spins


@TEXTURES.adding("wall")
def wall(lattice: Lattice, rng: np.random.Generator, position: Finite, tilt: NonNegative = 0.1) -> NDArray[np.float64]:
    """Ferromagnet along +x in columns x < position, antiferromagnet along +z and -z beyond (spin flop)."""
    last = lattice.size[0] - 1
    if not 0 <= position <= last:
        raise HpcspinError(
            f"initial.position: {position:g} is no column of the lattice, whose lattice.size has the columns 0 to "
            f"{last}; choose one of them"
        )
    spins = _staggered_z(lattice, "wall", (1, 2))
    spins[np.arange(lattice.size[0]) < position] = (1.0, 0.0, 0.0)
    return _tilted(spins, tilt, rng)


@TEXTURES.adding("antiferromagnet")
def antiferromagnet(lattice: Lattice, rng: np.random.Generator, tilt: NonNegative = 0.1) -> NDArray[np.float64]:
    """Spins alternately along +z and -z: on the square lattice the Néel state."""
    return _tilted(_staggered_z(lattice, "antiferromagnet", (2, 2)), tilt, rng)


@TEXTURES.adding("ferromagnet")
def ferromagnet(lattice: Lattice, rng: np.random.Generator, tilt: NonNegative = 0.1) -> NDArray[np.float64]:
    """All spins along +x."""
    return _tilted(np.broadcast_to((1.0, 0.0, 0.0), (*lattice.size, 3)), tilt, rng)


@TEXTURES.adding("order_120")
def order_120(lattice: Lattice, rng: np.random.Generator, tilt: NonNegative = 0.1) -> NDArray[np.float64]:
    """120 degree order of the triangular lattice: neighbouring spins, in the xy plane, differ by 120 degrees.

    S = (cos K·r, sin K·r, 0) with K = (1/3, 2/3) in reciprocal vectors. Periodic sides must be multiples of 3.
    """
    _require_triangular(lattice, "order_120")
    _require_period(lattice, "order_120", (3, 3))
    x, y = np.indices(lattice.size)
    angle = 2 * np.pi / 3 * ((x + 2 * y) % 3)
    return _tilted(np.stack([np.cos(angle), np.sin(angle), np.zeros(lattice.size)], axis=-1), tilt, rng)


@TEXTURES.adding("tetrahedral")
def tetrahedral(
    lattice: Lattice, rng: np.random.Generator, chirality: Literal[1, -1] = 1, tilt: NonNegative = 0.1
) -> NDArray[np.float64]:
    """Tetrahedral order of the triangular lattice: four sublattices along the corners of a regular tetrahedron.

    All triangles have the scalar chirality ``chirality`` * 4 / (3 sqrt 3) (I. Martin and C. D. Batista, Phys. Rev.
    Lett. 101, 156402 (2008)). Periodic sides must be even.
    """
    _require_triangular(lattice, "tetrahedral")
    _require_period(lattice, "tetrahedral", (2, 2))
    corners = np.array([[[1, 1, 1], [-1, 1, -1]], [[1, -1, -1], [-1, -1, 1]]]) / math.sqrt(3)
    x, y = np.indices(lattice.size) % 2
    return _tilted(chirality * corners[x, y], tilt, rng)


@TEXTURES.adding("stripes")
def stripes(
    lattice: Lattice, rng: np.random.Generator, width: Count = 1, tilt: NonNegative = 0.1
) -> NDArray[np.float64]:
    """Ferromagnetic stripes of ``width`` columns, alternately along +z and -z.

    A periodic x must be a multiple of 2 ``width``.
    """
    _require_period(lattice, f"stripes of width {width}", (2 * width, 1))
    spins = np.zeros((*lattice.size, 3))
    spins[..., 2] = 1 - 2 * (np.arange(lattice.size[0]) // width % 2)[:, None]
    return _tilted(spins, tilt, rng)


@TEXTURES.adding("puddles")
def puddles(
    lattice: Lattice, rng: np.random.Generator, count: Count = 1, radius: Positive = 2.0, tilt: NonNegative = 0.1
) -> NDArray[np.float64]:
    """Ferromagnetic puddles along +x at random places of an antiferromagnet along +z and -z.

    A puddle consists of the sites within ``radius`` of its centre; no bond joins two puddles, and periodic sides must
    be even.
    """
    spins = _staggered_z(lattice, "puddles", (2, 2))
    sites = lattice.sites.reshape(-1, 2)
    longest_bond = float(np.linalg.norm(lattice.cartesian(lattice.bonds), axis=-1).max())
    free = np.ones(lattice.num_sites, dtype=bool)
    for number in range(count):
        if not free.any():
            raise HpcspinError(
                f"initial.count: {number} puddles of radius {radius:g} leave no room for the rest of {count}; give "
                "fewer or smaller ones"
            )
        centre = rng.choice(np.flatnonzero(free))
        distance = np.linalg.norm(nearest_vectors(lattice, sites - sites[centre]), axis=-1)
        spins.reshape(-1, 3)[distance <= radius + 1e-9] = (1.0, 0.0, 0.0)
        free &= distance > 2 * radius + longest_bond + 1e-9
    return _tilted(spins, tilt, rng)


_SMALLEST_SKYRMION = 5
"""Smallest period of a skyrmion lattice whose topological charge triangles of three spins still resolve."""


@TEXTURES.adding("skyrmions")
def skyrmions(
    lattice: Lattice, rng: np.random.Generator, period: Count = 8, charge: Literal[1, -1] = -1, tilt: NonNegative = 0.1
) -> NDArray[np.float64]:
    """A lattice of skyrmions, one in each cell of ``period`` times ``period`` sites, in a ferromagnet along +z.

    At a distance r < period / 2 from a centre a spin has the polar angle pi (1 - 2 r / period). Its component in the
    plane points away from the centre (Néel skyrmion, of topological charge -1, since its centre is along -z), or in the
    mirrored direction (antiskyrmion, of charge +1). Both sides must be multiples of ``period``, open ones too.
    """
    if period < _SMALLEST_SKYRMION:
        raise HpcspinError(f"initial.period: {period} is too short; give at least {_SMALLEST_SKYRMION}")
    if any(length % period for length in lattice.size):
        raise HpcspinError(
            f"initial.period: skyrmions repeat after {period} sites, and lattice.size is {lattice.size}; give sides "
            f"that are multiples of {period}"
        )
    cell = type(lattice)((period, period), (True, True))
    x, y = np.moveaxis(nearest_vectors(cell, cell.sites - period // 2), -1, 0)
    polar = np.pi * np.clip(1 - 2 * np.hypot(x, y) / period, 0, 1)
    azimuth = -charge * np.arctan2(y, x)
    spins = np.stack([np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth), np.cos(polar)], axis=-1)
    return _tilted(np.tile(spins, (lattice.size[0] // period, lattice.size[1] // period, 1)), tilt, rng)


@TEXTURES.adding("random")
def random(lattice: Lattice, rng: np.random.Generator) -> NDArray[np.float64]:
    """Independent spins, uniform on the sphere."""
    return _tilted(np.zeros((*lattice.size, 3)), 1.0, rng)


@TEXTURES.adding("file")
def from_file(lattice: Lattice, rng: np.random.Generator, path: str) -> NDArray[np.float64]:
    """Last frame of /spins in an HDF5 file, of a simulation's directory, or of an OVF 2.0 or .npy file."""
    return _from_file(lattice, path, None)


def _from_file(lattice: Lattice, path: str, vacancies: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    from hpcspin.storage import SpinsFile  # HDF5 takes a while to import.

    return SpinsFile(path, lattice.size, lattice.cartesian(lattice.sites), lattice.kind, vacancies).read(-1)[0]
