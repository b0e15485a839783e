"""How far a driven exchange field is from the gradient of any energy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcspin.electrons.solver import Solver
from hpcspin.errors import HpcspinError


def tangents(spins: NDArray[np.float64]) -> NDArray[np.float64]:
    """Two orthonormal vectors perpendicular to each unit spin, shape (..., 2, 3), for spins of shape (..., 3)."""
    axis = np.eye(3)[np.argmin(np.abs(spins), axis=-1)]
    first = np.cross(spins, axis)
    first /= np.linalg.norm(first, axis=-1, keepdims=True)
    return np.stack([first, np.cross(spins, first)], axis=-2)


def nonconservativity(solver: Solver[Any, Any], spins: NDArray[np.float64]) -> float:
    """Norm of the antisymmetric part of the tangent Jacobian divided by that of its symmetric off-site part.

    The Jacobian K_ia,jb = e_a · ∂H_i / ∂(angle of spin j towards e_b), by central differences, is symmetric if and only
    if the field is a gradient. In equilibrium the result is therefore 0, up to the solver's tolerance divided by the
    angle of the differences, 1e-3. It takes 4 Lx Ly steady states.

    Parameters
    ----------
    solver
        Solver of the field; its tolerance should be far below 1e-3.
    spins
        Unit vectors, shape (Lx, Ly, 3).

    Raises
    ------
    HpcspinError
        If the lattice has a single site.
    """
    _require_pairs(spins)
    frames, sites = tangents(spins.reshape(-1, 3)), spins[..., 0].size
    vectors = np.eye(2 * sites).reshape(-1, sites, 2)
    slope = _directional(solver, spins, vectors, frames, 1e-3)
    jacobian = np.einsum("vix,iax->iav", slope, frames).reshape(sites, 2, sites, 2)
    transposed = jacobian.transpose(2, 3, 0, 1)
    symmetric = (jacobian + transposed) / 2
    symmetric[np.arange(sites), :, np.arange(sites), :] = 0
    return float(np.linalg.norm(jacobian - transposed) / 2 / np.linalg.norm(symmetric))


@dataclass(frozen=True)
class DrivenDistance:
    """How far a driven state is from any energy function.

    Attributes
    ----------
    ratio
        Estimate of `nonconservativity`.
    error
        Standard error of the ratio, from the scatter of the rounds.
    resolution
        Ratio that the solver's tolerance and the finite step alone could produce.
    """

    ratio: float
    error: float
    resolution: float


def estimate_nonconservativity(
    solver: Solver[Any, Any],
    spins: NDArray[np.float64],
    rounds: int = 8,
    probes: int = 4,
    seed: int = 0,
    step: float = 1e-3,
) -> DrivenDistance:
    """Stochastic estimate of `nonconservativity` for a large lattice, from random tangent vectors.

    A vector v rotates all spins at once, and two steady states give K v. For vectors v and w of independent random
    signs, w·Kv - v·Kw = 2 w·Av has the mean square 4 |A|², where A is the antisymmetric part; the same holds for the
    symmetric part. The two parts are estimated separately: in an estimate of |K|² - tr K² the noise of the far larger
    symmetric part would hide A. Every round halves the sites at random. Vectors on different halves do not contain the
    on-site blocks, whose norm is often the largest by far, and contain each pair of sites in about every other round.

    Parameters
    ----------
    solver, spins
        As for `nonconservativity`.
    rounds
        Independent halvings of the lattice, at least 2.
    probes
        Random vectors on each half, at least 2; a round takes 4 ``probes`` steady states, and one round is repeated.
    seed
        Seed of the random signs and halves.
    step
        Angle of the rotations in radians.

    Raises
    ------
    HpcspinError
        If there are too few rounds or probes for an error bar, or the lattice has a single site.
    """
    _require_pairs(spins)
    if rounds < 2 or probes < 2:
        raise HpcspinError(f"{rounds} rounds of {probes} probes leave no error bar; take at least 2 of each")
    frames, sites = tangents(spins.reshape(-1, 3)), spins[..., 0].size
    rng = np.random.default_rng(seed)

    def forms(vectors: NDArray[np.float64], step: float) -> NDArray[np.float64]:
        products = np.einsum("vix,iax->via", _directional(solver, spins, vectors, frames, step), frames)
        return np.einsum("wia,via->wv", vectors, products)

    squares = []
    for _ in range(rounds):
        half = rng.permutation(sites) < sites // 2
        signs = rng.choice([-1.0, 1.0], (2, probes, sites, 2))
        signs[0, :, ~half] = signs[1, :, half] = 0
        vectors = signs.reshape(2 * probes, sites, 2)
        found = forms(vectors, step)
        squares.append(_squares(found, probes))
    # The error of the step is a third of the change at twice the step; few vectors cannot resolve this factor.
    curved, _ = _squares(found - forms(vectors, 2 * step), probes)
    antisymmetric, symmetric = np.array(squares).T
    # A block across the halves contains this fraction of all ordered pairs of sites.
    symmetric = symmetric / ((sites // 2) * (sites - sites // 2) / (sites * (sites - 1)))
    # Jackknife over the rounds: the standard error of a ratio of means.
    left_out = np.sqrt((antisymmetric.sum() - antisymmetric) / (symmetric.sum() - symmetric))
    error = math.sqrt((rounds - 1) / rounds * np.sum((left_out - left_out.mean()) ** 2))
    feigned = math.sqrt(sites * (solver.tolerance / step) ** 2 + curved)
    return DrivenDistance(
        math.sqrt(antisymmetric.mean() / symmetric.mean()), error, feigned / math.sqrt(symmetric.mean())
    )


def _squares(forms: NDArray[np.float64], probes: int) -> tuple[float, float]:
    """Estimates of |A|², and of |S|² across the halves, from the forms w·Kv of a round, shape (2 probes, 2 probes)."""
    antisymmetric, symmetric = ((forms - forms.T) / 2) ** 2, ((forms + forms.T) / 2) ** 2
    across = slice(0, probes), slice(probes, None)
    within = sum(antisymmetric[half, half].sum() for half in across) / (probes * (probes - 1))
    return within + 2 * antisymmetric[across].mean(), symmetric[across].mean()


def _require_pairs(spins: NDArray[np.float64]) -> None:
    if spins[..., 0].size < 2:
        raise HpcspinError("nonconservativity compares pairs of sites, and the lattice has one site alone")


def _directional(
    solver: Solver[Any, Any],
    spins: NDArray[np.float64],
    vectors: NDArray[np.float64],
    frames: NDArray[np.float64],
    step: float,
) -> NDArray[np.float64]:
    """Derivative of the field along tangent vectors of shape (vectors, sites, 2), shape (vectors, sites, 3)."""
    flat = spins.reshape(-1, 3)
    tangent = np.einsum("via,iax->vix", vectors, frames)
    angle = step * np.linalg.norm(tangent, axis=-1, keepdims=True)
    turn = step * np.sinc(angle / np.pi) * tangent
    rotated = np.stack([np.cos(angle) * flat + turn, np.cos(angle) * flat - turn])
    kept = solver.get_state()
    solver.reset()
    field = solver.solve(rotated.reshape(-1, *spins.shape)).field
    solver.set_state(kept)
    ahead, behind = field.reshape(2, len(vectors), -1, 3)
    return (ahead - behind) / (2 * step)
