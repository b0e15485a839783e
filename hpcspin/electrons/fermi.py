"""Fermi functions: stable differences, poles of a rational approximation, closed-form integrals."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal
from scipy.special import digamma, expit

MOST_POLES = 4000


def fermi(energy: NDArray[np.float64], potential: float, temperature: float) -> NDArray[np.float64]:
    """Occupation 1 / (exp((energy - potential) / T) + 1)."""
    return expit((potential - energy) / temperature)


@lru_cache(maxsize=64)
def ozaki_poles(count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Poles and weights of the rational approximation of the Fermi function.

    f(x) = 1/2 - sum_p R_p [1/(x - i x_p) + 1/(x + i x_p)], with 1/x_p the
    positive eigenvalues of a tridiagonal matrix (T. Ozaki, Phys. Rev. B 75,
    035123 (2007)). The first poles are Matsubara frequencies with R = 1, the
    last are sparse and reach far.

    Returns
    -------
    tuple
        x_p and R_p, each of shape (count,), in increasing order of x_p.
    """
    k = np.arange(1, 2 * count)
    off_diagonal = 0.5 / np.sqrt((2 * k - 1.0) * (2 * k + 1.0))
    values, vectors = eigh_tridiagonal(np.zeros(2 * count), off_diagonal)
    values, first = values[: count - 1 : -1], vectors[0, : count - 1 : -1]
    return 1 / values, first**2 / (4 * values**2)


def count_poles(half_width: float, temperature: float, error: float) -> int:
    """Fewest poles, on a ladder of counts, that represent f to ``error`` for all |x| <= half_width / T."""
    x = np.concatenate([np.geomspace(0.1, half_width / temperature, 400)])
    exact = expit(-x)
    count = 8
    while count < MOST_POLES:
        poles, weights = ozaki_poles(count)
        approximate = 0.5 - 2 * np.sum(weights * x[:, None] / (x[:, None] ** 2 + poles**2), axis=1)
        if np.max(np.abs(approximate - exact)) <= error:
            break
        count = math.ceil(1.15 * count)
    return count


def psi(level: NDArray[np.complex128], potential: float, temperature: float) -> NDArray[np.complex128]:
    """Integral of f(e) / (e - level) over all e, up to a real constant, for Im level < 0.

    psi(z) = digamma(1/2 + i (z - mu) / (2 pi T)) - i pi / 2.
    """
    return digamma(0.5 + 1j * (level - potential) / (2 * np.pi * temperature)) - 0.5j * np.pi


def psi_of_sites(
    scalar: NDArray[np.complex128], vector: NDArray[np.complex128], potential: float, temperature: float
) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """The matrix function psi(a + b·sigma) of 2x2 matrices.

    psi(a + b·sigma) = mean + slope b·sigma with beta = sqrt(b·b), the mean of
    psi(a + beta) and psi(a - beta), and slope their divided difference. Where
    the matrix is nearly defective, beta -> 0, the difference would cancel and
    both come from Cauchy's formula on a circle inside the domain of analyticity.

    Parameters
    ----------
    scalar, vector
        a, shape (...), and b, shape (..., 3).
    potential, temperature
        Of the reservoir.

    Returns
    -------
    tuple
        mean and slope, each of shape (...).
    """
    beta = np.sqrt(np.sum(vector * vector, axis=-1))
    upper, lower = psi(scalar + beta, potential, temperature), psi(scalar - beta, potential, temperature)
    mean, slope = (upper + lower) / 2, np.zeros_like(upper)
    near = np.abs(beta) < 0.05 * temperature
    slope[~near] = ((upper - lower)[~near]) / (2 * beta[~near])
    # The nearest pole of psi lies at Im z = +pi T: a radius of T/2 converges as (1/2 pi)^16.
    offsets = 0.5 * temperature * np.exp(2j * np.pi * (np.arange(16) + 0.5) / 16)
    circle = psi(scalar[near][..., None] + offsets, potential, temperature)
    slope[near] = np.mean(circle * offsets / (offsets**2 - beta[near][..., None] ** 2), axis=-1)
    return mean, slope
