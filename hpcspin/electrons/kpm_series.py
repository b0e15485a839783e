"""Chebyshev series for electrons in equilibrium: bounds of the spectrum, coefficients, the chemical potential.

With x = (e - centre) / half width in [-1, 1], a function of the Hamiltonian is

    F(H) = sum_n g_n c_n T_n(x(H)),     c_n = (2 - delta_n0) / K sum_k F(e_k) cos(n theta_k),

on K Chebyshev points: a discrete cosine transform. g_n is Jackson's kernel, or 1. A. Weiße et al., Rev. Mod. Phys. 78,
275 (2006).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from hpcspin.electrons.fermi import chemical_potential_between, fermi
from hpcspin.electrons.system import ElectronSystem

Vector = NDArray[np.float64]

_MARGIN = 0.001
"""Relative margin of the interval around the bounds, because the band of an open lattice is sampled, not solved."""
_SAMPLES = 128
"""Number of wave vectors along an axis that sample a bond of one lattice step."""
_POINTS = 12.0
"""Chebyshev points divided by half width / T; coefficients fall as exp(-pi n T / half width) to nothing by then."""

_NEGLIGIBLE = 1e-13
"""Error of an occupation relative to the largest one that is due to rounding."""
_EMPTY = 40.0
"""|e - mu| / T beyond which a level is full or empty."""


@dataclass(frozen=True)
class Interval:
    """Interval of energies that contains the whole spectrum."""

    centre: float
    half_width: float

    @property
    def ends(self) -> tuple[float, float]:
        """Lowest and highest energy."""
        return self.centre - self.half_width, self.centre + self.half_width


def spectral_interval(system: ElectronSystem) -> Interval:
    """Bounds of the spectrum for any spins: those of the band of the hopping, plus the on-site energies ± |J_i|."""
    lowest, highest = _band(system)
    exchange, on_site = np.abs(system.exchange), np.asarray(system.on_site)
    lowest += float((on_site - exchange).min())
    highest += float((on_site + exchange).max())
    return Interval((lowest + highest) / 2, (1 + _MARGIN) * (highest - lowest) / 2)


def _band(system: ElectronSystem) -> tuple[float, float]:
    """Lowest and highest energy of the hopping alone; for a lattice with open edges those of the infinite lattice."""
    lattice, terms = system.lattice, system.hopping_terms
    waves = []
    for axis, length in enumerate(lattice.size):
        farthest = max(1, *(abs(term.offset[axis]) for term in terms))
        points = length if all(lattice.periodic) else _SAMPLES * farthest
        waves.append(2 * np.pi * np.arange(points) / points)
    bloch = np.zeros((len(waves[0]), len(waves[1]), 2, 2), dtype=np.complex128)
    for term in terms:
        phase = np.exp(1j * (term.offset[0] * waves[0][:, None] + term.offset[1] * waves[1]))
        bloch += phase[..., None, None] * term.matrix
    levels = np.linalg.eigvalsh(bloch + bloch.conj().swapaxes(-1, -2))
    return float(levels.min()), float(levels.max())


def jackson(count: int) -> Vector:
    """Jackson's kernel for ``count`` moments, shape (count,)."""
    n, q = np.arange(count), np.pi / (count + 1)
    return ((count - n + 1) * np.cos(q * n) + np.sin(q * n) / np.tan(q)) / (count + 1)


@dataclass(frozen=True)
class Expansion:
    """Truncated series of the Fermi function and the grand potential."""

    interval: Interval
    """Interval that contains the spectrum."""
    temperature: float
    """Temperature T of the electrons."""
    count: int
    """Number of moments M, even."""
    kernel: str
    """``"jackson"``, without Gibbs oscillations and best if mu lies in a gap, or ``"none"``, which converges
    exponentially once M > half width / T."""

    @property
    def factors(self) -> Vector:
        """g_n, shape (M,)."""
        return jackson(self.count) if self.kernel == "jackson" else np.ones(self.count)

    @property
    def energies(self) -> Vector:
        """e_k, the energies of the Chebyshev points, shape (K,)."""
        enough = max(2 * self.count, int(_POINTS * self.interval.half_width / self.temperature))
        points = 1 << (enough - 1).bit_length()
        angles = np.pi * (np.arange(points) + 0.5) / points
        return self.interval.centre + self.interval.half_width * np.cos(angles)

    def coefficients(self, values: Vector) -> Vector:
        """g_n c_n of a function, shape (M,), from its values at the energies e_k."""
        series = scipy.fft.dct(values)[: self.count] / len(values)
        series[0] /= 2
        return self.factors * series

    def occupation(self, potential: float) -> Vector:
        """Coefficients of the Fermi function f(e - mu)."""
        return self.coefficients(fermi(self.energies, potential, self.temperature))

    def grand_potential(self, potential: float) -> Vector:
        """Coefficients of -T log(1 + exp(-(e - mu) / T)); their derivative with respect to mu is minus `occupation`."""
        return self.coefficients(
            self.temperature * scipy.special.log_expit((self.energies - potential) / self.temperature)
        )

    def occupation_of_gradient(self, potential: float) -> Vector:
        """Coefficients of d/de of the truncated `grand_potential`: the occupation in the gradient of the energy."""
        terms = 2 * np.arange(self.count) * self.grand_potential(potential)
        # T_n' / 2n is the sum of all T_m of the other parity with m < n, with T_0 halved.
        even, odd = (np.cumsum(terms[parity::2][::-1])[::-1] for parity in (0, 1))
        series = np.zeros(self.count)
        series[0::2] = odd
        series[1:-1:2] = even[1:]
        series[0] /= 2
        return series / self.interval.half_width

    def majorant(self, potential: float) -> Vector:
        """Coefficients of a polynomial that is nowhere below the error of the occupations above; for Jackson's kernel.

        The kernel is positive: it widens the error to a polynomial, which a factor below 2 raises above the error.
        """
        exact = fermi(self.energies, potential, self.temperature)
        series = self.occupation(potential), self.occupation_of_gradient(potential)
        error = np.max([np.abs(self._values(one) - exact) for one in series], axis=0)
        widened = self.coefficients(error)
        return widened * (error / (self._values(widened) + _NEGLIGIBLE * error.max())).max()

    def left_out(self, potential: float) -> Vector:
        """Coefficients of the size of the error of `grand_potential`, whatever its sign on each level."""
        exact = self.temperature * scipy.special.log_expit((self.energies - potential) / self.temperature)
        return self.coefficients(np.abs(self._values(self.grand_potential(potential)) - exact))

    def _values(self, series: Vector) -> Vector:
        """Values of a series at the energies e_k."""
        padded = np.pad(series, (0, len(self.energies) - self.count))
        padded[1:] /= 2
        values: Vector = scipy.fft.dct(padded, type=3)
        return values

    def potential(self, moments: Vector, electrons: float) -> float:
        """Potential mu at which sum_n g_n c_n mu_n is ``electrons``, for moments mu_n = tr T_n(x(H)), shape (M,)."""
        energies = self.energies
        padded = np.zeros(len(energies))
        padded[: self.count] = self.factors * moments[: self.count]
        energies, weights = energies[::-1], scipy.fft.dct(padded, type=3)[::-1] / len(energies)
        below = np.concatenate([[0.0], np.cumsum(weights)])
        far = _EMPTY * self.temperature

        def excess(potential: float) -> float:
            first, last = np.searchsorted(energies, (potential - far, potential + far))
            partly = fermi(energies[first:last], potential, self.temperature) @ weights[first:last]
            return float(below[first] + partly) - electrons

        low, high = self.interval.ends[0] - far, self.interval.ends[1] + far
        if excess(low) >= 0:
            return low
        if excess(high) <= 0:
            return high
        return chemical_potential_between(low, high, excess)
