"""Tiles: centres are evaluated a fixed number at a time, so that the bits of one do not depend on the others.

Centres are the last axis of all arrays. A matrix product may add in a different order when the number of its columns
changes, or, if its sums are long, when it has more threads; an elementwise operation may treat the last elements of an
array differently if they do not fill a vector register. The field on a site would then depend on how the lattice is
divided into domains. Evaluation therefore works in tiles of one size, a multiple of all vector lengths; in training one
tile holds all centres.
"""

from __future__ import annotations

import torch
from torch import Tensor

TILE = {"cpu": 96, "cuda": 2048}
"""Number of centres in a tile, by device type: little padding for small lattices, and a busy device for large ones.

On a CPU a multiple of 16 and of 12, the columns of a register block of MKL in double precision on AVX2, and of 32, the
centres that `HostPotentials` evaluates together.
"""

GROUP = {"cpu": 8, "cuda": 64}
"""Most tiles in one evaluation, by device type: enough to hide the overhead of a call."""

WHOLE = 16
"""Matrices are padded to a multiple of so many columns: whole vectors of any processor."""

_CACHE = 2**20
"""Bytes of features in one evaluation on a CPU, which should stay in a core's own cache with what follows from them."""


def group_size(features: int, dtype: torch.dtype, device: torch.device) -> int:
    """Number of centres, in whole tiles, in one evaluation if each has so many features."""
    tile, most = TILE[device.type], GROUP[device.type]
    if device.type == "cpu":
        most = max(1, min(most, _CACHE // (features * dtype.itemsize * tile)))
    return tile * most


def tiled(x: Tensor, tile: int) -> Tensor:
    """View of x, shape (k, ...), with its columns split into tiles, shape (tiles, k, tile)."""
    return x.flatten(1).unflatten(1, (-1, tile)).transpose(0, 1)


def untiled(x: Tensor) -> Tensor:
    """From (tiles, k, ..., tile) back to (k, ..., centres)."""
    return x.movedim(0, -2).flatten(-2)


def tile_product(matrix: Tensor, x: Tensor) -> Tensor:
    """Product of a matrix (m, k) with each tile of x, shape (tiles, k, tile), as one batch."""
    return torch.bmm(matrix.expand(len(x), -1, -1), x)


def product(matrix: Tensor, x: Tensor, tile: int) -> Tensor:
    """Product of a matrix (m, k) with x, shape (k, ...), tile by tile: shape (m, ...)."""
    return untiled(tile_product(matrix, tiled(x, tile))).reshape(-1, *x.shape[1:])


def dot(a: Tensor, b: Tensor, axis: int = -2) -> Tensor:
    """Scalar product along an axis, added in a fixed order."""
    x, y, z = (a * b).unbind(axis)
    return x + y + z


def cross(a: Tensor, b: Tensor, axis: int = -2) -> Tensor:
    """Vector product along an axis."""
    (ax, ay, az), (bx, by, bz) = a.unbind(axis), b.unbind(axis)
    return torch.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis)


def is_present(spins: Tensor, axis: int = -2) -> Tensor:
    """One where there is a spin and zero where a site is missing, without the axis of the components."""
    return (spins.detach().square().sum(axis) > 0.5).to(spins.dtype)
