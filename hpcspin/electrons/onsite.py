"""On-site 2x2 blocks as four real components tr(rho_ii), tr(sigma rho_ii)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hpcspin.electrons.backend import Array


def _components(xp: Any, up: Array, down: Array, mixed: Array) -> Array:
    """Components of Hermitian 2x2 matrices from their real diagonal and upper right elements."""
    return xp.stack([up + down, 2 * xp.real(mixed), -2 * xp.imag(mixed), up - down], axis=-1)


def _elements(matrices: Array) -> tuple[Array, Array, Array, Array]:
    """The elements uu, ud, du, dd of every on-site block, each of shape (batch, Ly)."""
    m = matrices.shape[-1]
    flat = matrices.reshape(-1, m * m)
    stride = 2 * (m + 1)
    return flat[:, ::stride], flat[:, 1::stride], flat[:, m::stride], flat[:, m + 1 :: stride]


def hermitian_sites(xp: Any, matrices: Array) -> Array:
    """Components of M for Hermitian M, shape (batch, m, m) to (batch, Ly, 4)."""
    uu, ud, _, dd = _elements(matrices)
    return _components(xp, xp.real(uu), xp.real(dd), ud)


def on_site_places(m: int) -> NDArray[np.int64]:
    """Indices of the elements uu, ud, du, dd of all on-site blocks in a flattened (m, m) matrix, shape (4 Ly,)."""
    return (np.array([0, 1, m, m + 1])[:, None] + 2 * (m + 1) * np.arange(m // 2)).reshape(-1)


def real_part(xp: Any, elements: Array) -> Array:
    """Components of M + M† from the elements at `on_site_places`, shape (..., 4 Ly) to (..., Ly, 4)."""
    uu, ud, du, dd = (xp.reshape(elements, (*elements.shape[:-1], 4, -1))[..., part, :] for part in range(4))
    return _components(xp, 2 * xp.real(uu), 2 * xp.real(dd), ud + xp.conj(du))


def spectral_sites(xp: Any, matrices: Array) -> Array:
    """Components of i (M - M†), shape (batch, m, m) to (batch, Ly, 4)."""
    uu, ud, du, dd = _elements(matrices)
    return _components(xp, -2 * xp.imag(uu), -2 * xp.imag(dd), 1j * (ud - xp.conj(du)))


def gram_sites(xp: Any, columns: Array) -> Array:
    """Components of C C†, shape (batch, m, k) to (batch, Ly, 4)."""
    batch, m, k = columns.shape
    pairs = xp.reshape(columns, (batch, m // 2, 2, k))
    mixed = xp.sum(pairs[:, :, 0] * xp.conj(pairs[:, :, 1]), axis=-1)
    parts = _as_real(columns)
    weights = xp.reshape(xp.sum(parts * parts, axis=(-2, -1)), (batch, m // 2, 2))
    return _components(xp, weights[..., 0], weights[..., 1], mixed)


def occupation(xp: Any, column: Array, stops: NDArray[np.int64], weights: Array) -> Array:
    """Components of sum_s w_s C_s C_s†, shape (batch, m, k) to (batch, Ly, 4); ``stops`` divide C into the C_s."""
    parts = [column[..., int(a) : int(b)] for a, b in pairwise(stops)]
    grams = [weights[:, s, None, None] * gram_sites(xp, part) for s, part in enumerate(parts)]
    return sum(grams[1:], start=grams[0])


def _as_real(array: Array) -> Array:
    """A view with real and imaginary parts along one more axis."""
    if isinstance(array, torch.Tensor):
        return torch.view_as_real(array)
    return array.view(array.real.dtype).reshape(*array.shape, 2)
