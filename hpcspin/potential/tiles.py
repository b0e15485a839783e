"""Tiles: centres a fixed number at a time, so that the bits of one do not depend on the others.

Centres stand on the last axis of everything. A matrix product may add in
another order when the number of its columns changes, or, if its sums are long,
when it is given more threads; an elementwise operation may treat the last
elements of a run, which fill no vector register, in another way. The field on a
site would then depend on how the lattice is cut into domains. Models that drive
spins therefore work in tiles of one size, a multiple of all vector lengths; in
training one tile holds all centres.
"""

from __future__ import annotations

import torch
from torch import Tensor

TILE = {"cpu": 96, "cuda": 2048}
"""Centres in a tile, by device type: small lattices do not drown in padding, large ones keep the device busy.

On a CPU a multiple of 16 and of 12, the columns that MKL takes together in double precision on AVX2.
"""

GROUP = {"cpu": 8, "cuda": 64}
"""Tiles evaluated together at most, by device type: many enough to hide each call."""

_CACHE = 2**20
"""Bytes of features evaluated together on a CPU: they, and what is made of them, should stay in a core's own cache."""


def together(features: int, dtype: torch.dtype, device: torch.device) -> int:
    """Centres, in whole tiles, that are evaluated together where each has so many features."""
    tile, most = TILE[device.type], GROUP[device.type]
    if device.type == "cpu":
        most = max(1, min(most, _CACHE // (features * dtype.itemsize * tile)))
    return tile * most


def tiled(x: Tensor, tile: int) -> Tensor:
    """View of x, shape (k, ...), as its columns in tiles, shape (tiles, k, tile)."""
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


def cross(a: Tensor, b: Tensor) -> Tensor:
    """Vector product along the last axis but one."""
    (ax, ay, az), (bx, by, bz) = a.unbind(-2), b.unbind(-2)
    return torch.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], -2)


def add_components(x: Tensor) -> Tensor:
    """Sum over the last axis but one, of three components, in a fixed order."""
    first, second, third = x.unbind(-2)
    return first + second + third


def is_present(spins: Tensor) -> Tensor:
    """One where there is a spin and zero where a site is missing: (..., 3, centres) to (..., centres)."""
    return (add_components(spins.detach().square()) > 0.5).to(spins.dtype)
