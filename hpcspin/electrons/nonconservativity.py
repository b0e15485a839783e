"""How far a driven exchange field is from the gradient of any energy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hpcspin.electrons.steady_state import SteadyStateSolver


def tangents(spins: NDArray[np.float64]) -> NDArray[np.float64]:
    """Two orthonormal vectors perpendicular to each unit spin, shape (..., 3) to (..., 2, 3)."""
    axis = np.eye(3)[np.argmin(np.abs(spins), axis=-1)]
    first = np.cross(spins, axis)
    first /= np.linalg.norm(first, axis=-1, keepdims=True)
    return np.stack([first, np.cross(spins, first)], axis=-2)


def tangent_jacobian(solver: SteadyStateSolver, spins: NDArray[np.float64], step: float = 1e-3) -> NDArray[np.float64]:
    """K_ia,jb = e_a · ∂H_i / ∂(angle of spin j towards e_b), by central differences.

    Parameters
    ----------
    solver
        Solver of the field; its tolerance should be far below ``step``.
    spins
        Unit vectors, shape (Lx, Ly, 3).
    step
        Angle of the rotations.

    Returns
    -------
    ndarray
        Shape (sites, 2, sites, 2). It takes 4 Lx Ly steady states.
    """
    flat = spins.reshape(-1, 3)
    frames, sites = tangents(flat), np.arange(len(flat))
    rotated = np.broadcast_to(flat, (2, 2, len(flat), *flat.shape)).copy()
    for s, sign in enumerate((1, -1)):
        for b in range(2):
            rotated[s, b, sites, sites] = np.cos(step) * flat + sign * np.sin(step) * frames[:, b]
    kept = solver.get_state()
    solver.reset()
    field = solver.solve(rotated.reshape(-1, *spins.shape)).field
    solver.set_state(kept)
    change = field.reshape(2, 2, len(flat), len(flat), 3)
    slope = (change[0] - change[1]) / (2 * step)
    return np.einsum("bjix,iax->iajb", slope, frames)


def nonconservativity(solver: SteadyStateSolver, spins: NDArray[np.float64], step: float = 1e-3) -> float:
    """Norm of the antisymmetric part of the tangent Jacobian over that of its symmetric off-site part.

    The Jacobian is symmetric if and only if the field is a gradient: 0 in
    equilibrium, up to the solver's tolerance over ``step``.

    Parameters
    ----------
    solver, spins, step
        As for `tangent_jacobian`.
    """
    jacobian = tangent_jacobian(solver, spins, step)
    sites = len(jacobian)
    transposed = jacobian.transpose(2, 3, 0, 1)
    symmetric = (jacobian + transposed) / 2
    symmetric[np.arange(sites), :, np.arange(sites), :] = 0
    return float(np.linalg.norm(jacobian - transposed) / 2 / np.linalg.norm(symmetric))
