"""On-site 2x2 blocks as four real components tr(rho_ii), tr(sigma rho_ii)."""

from __future__ import annotations

from typing import Any

from hpcspin.electrons.backend import Array


def _components(xp: Any, up: Array, down: Array, mixed: Array) -> Array:
    """Components of Hermitian 2x2 matrices from their real diagonal and their upper right element."""
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


def real_part_sites(xp: Any, matrices: Array) -> Array:
    """Components of M + M†, shape (batch, m, m) to (batch, Ly, 4)."""
    uu, ud, du, dd = _elements(matrices)
    return _components(xp, 2 * xp.real(uu), 2 * xp.real(dd), ud + xp.conj(du))


def spectral_sites(xp: Any, matrices: Array) -> Array:
    """Components of i (M - M†), shape (batch, m, m) to (batch, Ly, 4)."""
    uu, ud, du, dd = _elements(matrices)
    return _components(xp, -2 * xp.imag(uu), -2 * xp.imag(dd), 1j * (ud - xp.conj(du)))


def gram_sites(xp: Any, columns: Array) -> Array:
    """Components of C C†, shape (batch, m, k) to (batch, Ly, 4)."""
    batch, m, k = columns.shape
    # Tiny products beat sums of elementwise products by a third on a CPU.
    spinors = xp.reshape(columns, (batch * (m // 2), 2, k))
    blocks = spinors @ xp.conj(xp.matrix_transpose(spinors))
    sites = _components(xp, xp.real(blocks[:, 0, 0]), xp.real(blocks[:, 1, 1]), blocks[:, 0, 1])
    return xp.reshape(sites, (batch, m // 2, 4))
