"""Batched inversion of complex blocks."""

from __future__ import annotations

from typing import Any

from hpcspin.electrons.backend import Array


def invert(xp: Any, matrices: Array) -> Array:
    """Inverse of each matrix of a batch, shape (batch, m, m)."""
    return xp.linalg.inv(matrices)
