"""Batched inversion of complex blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from hpcspin.electrons.backend import Array
from hpcspin.errors import HpcspinError

SINGULAR = "a level is coupled to no reservoir; add a bath"
"""Why a Green's function at a real energy is not finite, and what to do."""


def invert(xp: Any, matrices: Array) -> Array:
    """Inverse of each matrix of a batch, shape (batch, m, m).

    Batched LAPACK. Recursive inversion by 2x2 blocks from batched products was
    measured and is no quicker at m = 12 to 64 on a CPU.

    Raises
    ------
    HpcspinError
        If a matrix is singular: a level at that very energy is coupled to no reservoir. CuPy gives numbers that are
        not finite instead, which the quadrature finds.
    """
    try:
        return xp.linalg.inv(matrices)
    except (np.linalg.LinAlgError, torch.linalg.LinAlgError) as failure:
        raise HpcspinError(f"the Green's function is singular at a real energy: {SINGULAR}") from failure
