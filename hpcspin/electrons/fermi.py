"""Fermi functions and closed-form integrals over them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy
from numpy.typing import NDArray


def fermi(
    energy: NDArray[np.float64], potential: float | NDArray[np.float64], temperature: float
) -> NDArray[np.float64]:
    """Occupation 1 / (exp((energy - potential) / T) + 1)."""
    return scipy.special.expit((potential - energy) / temperature)


def chemical_potential_between(low: float, high: float, excess: Callable[[float], float]) -> float:
    """Chemical potential at which the excess of electrons, which rises with it, is 0, to the last digits."""
    # The import takes a third of a second, and most commands do not need it.
    from scipy.optimize import brentq

    return float(brentq(excess, low, high, xtol=1e-14 * max(1.0, abs(low), abs(high)), rtol=1e-15, maxiter=500))


def psi(level: NDArray[np.complex128], potential: float, temperature: float) -> NDArray[np.complex128]:
    """Integral of f(e) / (e - level) over all e, up to a real constant, for Im level < 0.

    psi(z) = digamma(1/2 + i (z - mu) / (2 pi T)) - i pi / 2.
    """
    return scipy.special.digamma(0.5 + 1j * (level - potential) / (2 * np.pi * temperature)) - 0.5j * np.pi


def psi_of_sites(
    scalar: NDArray[np.complex128], vector: NDArray[np.complex128], potential: float, temperature: float
) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """The matrix function psi(a + b·sigma) of 2x2 matrices, for a of shape (...) and b of shape (..., 3).

    psi(a + b·sigma) = mean + slope b·sigma, where mean is the mean of psi(a + beta) and psi(a - beta), slope is their
    divided difference, and beta = sqrt(b·b); returns mean and slope, each of shape (...). Where the matrix is nearly
    defective, beta -> 0, the difference would suffer from cancellation; there both come from Cauchy's formula on a
    circle inside the domain of analyticity.
    """
    beta = np.sqrt(np.sum(vector * vector, axis=-1))
    upper, lower = psi(scalar + beta, potential, temperature), psi(scalar - beta, potential, temperature)
    mean, slope = (upper + lower) / 2, np.zeros_like(upper)
    near = np.abs(beta) < 0.05 * temperature
    slope[~near] = ((upper - lower)[~near]) / (2 * beta[~near])
    # The nearest pole of psi lies at Im z = +pi T, so with a radius of T/2 the error is about (1/2 pi)^16.
    offsets = 0.5 * temperature * np.exp(2j * np.pi * (np.arange(16) + 0.5) / 16)
    circle = psi(scalar[near][..., None] + offsets, potential, temperature)
    slope[near] = np.mean(circle * offsets / (offsets**2 - beta[near][..., None] ** 2), axis=-1)
    return mean, slope
