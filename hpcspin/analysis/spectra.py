"""Correlations of spins in space and time, and their spectra; what `hpcspin analyse` can compute, by name.

A vacancy is a site whose spin is NaN; it belongs to no pair, to no wave and to no triangle.

Wave vectors are those of a periodic lattice, (h / Lx, k / Ly) in units of the reciprocal vectors, in the order of
`numpy.fft.fftfreq`; along an open side this is a Fourier transform without a conservation law behind it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from hpcspin.errors import HpcspinError
from hpcspin.lattice import Lattice, topological_charges
from hpcspin.parallel.memory import available_memory
from hpcspin.registry import Registry

Array = NDArray[np.float64]
_FEWEST = 4
_BLOCK = 2**28
"""Bytes of the waves that are held at a time."""
_COPIES = 5
"""Padded arrays that the transforms of a correlation hold at the same time, complex ones counted twice."""


def dynamical_structure_factor(spins: Array, interval: float) -> tuple[Array, Array]:
    r"""Spectrum of the fluctuations of the spins at each wave vector.

    .. math:: S(q, \omega) = \frac{\Delta t}{\pi \sum_t w_t^2}
              \sum_a \Big| \sum_t w_t\, [s^a_q(t) - \bar s^a_q]\, e^{i \omega t} \Big|^2, \quad
              s_q = N^{-1/2} \sum_i S_i e^{-i q \cdot r_i},

    with a Hann window w. A wave that moves along q, as exp(i q·r - i omega t), is at q, and its reverse at -q; their
    frequencies differ where inversion symmetry is broken, as by a Dzyaloshinskii-Moriya interaction. For omega < 0,
    S(q, omega) = S(-q, -omega). The integral over omega >= 0, averaged over q and -q, is the mean over time of
    \|s_q - mean\|^2, weighted with w^2. For this, the values at 0 and at the largest frequency of an even number of
    frames, which are their own negatives, are half of the above.

    Parameters
    ----------
    spins
        Unit vectors at equal intervals, shape (n, Lx, Ly, 3), NaN at vacancies, which N does not count; those of a
        file are read frame by frame, once for each block of wave vectors that fits into 256 MB.
    interval
        Time between two of them; frequencies up to pi / interval are resolved, higher ones are aliased.

    Returns
    -------
    tuple of ndarray
        Angular frequencies omega >= 0, shape (n // 2 + 1,), and S, shape (n // 2 + 1, Lx, Ly).

    Raises
    ------
    HpcspinError
        If there are fewer than four frames.
    """
    frames, lx, ly = spins.shape[:3]
    if frames < _FEWEST:
        raise HpcspinError(f"a spectrum needs at least {_FEWEST} frames, here are {frames}; record more of them")
    window = np.sin(np.pi * (np.arange(frames) + 0.5) / frames) ** 2
    vacant = np.isnan(spins[0])
    unit = interval / (2 * np.pi * (window**2).sum() * (~vacant[..., 0]).sum())
    positive, pairs = frames // 2 + 1, (frames - 1) // 2
    spectrum = np.empty((positive, lx, ly))
    for columns in np.array_split(np.arange(lx), min(lx, -(-48 * frames * lx * ly // _BLOCK))):
        present = (np.where(vacant, 0.0, spins[frame]) for frame in range(frames))
        waves = np.stack([np.fft.fft2(values, axes=(0, 1))[columns] for values in present])
        waves -= waves.mean(axis=0)
        waves *= window[:, None, None, None]
        power = unit * (np.abs(np.fft.fft(waves, axis=0)) ** 2).sum(axis=-1)
        # The transform of NumPy has exp(-i omega t): the frequency k is at -k.
        spectrum[0, columns], spectrum[1:, columns] = power[0], power[:-positive:-1]
    spectrum[1 : pairs + 1] *= 2
    return 2 * np.pi * np.arange(positive) / (frames * interval), spectrum


def dispersion(spins: Array, interval: float) -> Array:
    """Frequency of the strongest mode that moves along each wave vector: for spin waves, their dispersion.

    The maximum of `dynamical_structure_factor` at omega > 0, interpolated between the frequencies of the spectrum by a
    parabola through the logarithms of three values. Arguments and errors are those of that function.

    Returns
    -------
    ndarray
        Angular frequencies, shape (Lx, Ly); NaN where nothing moves.
    """
    frequencies, spectrum = dynamical_structure_factor(spins, interval)
    inner = spectrum[1:-1]
    peak = np.argmax(inner, axis=0) + 1
    low, top, high = (np.take_along_axis(spectrum, (peak + step)[None], axis=0)[0] for step in (-1, 0, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        low, mid, high = np.log(low), np.log(top), np.log(high)
        shift = (low - high) / (2 * (low - 2 * mid + high))
    shift = np.where(np.isfinite(shift), np.clip(shift, -0.5, 0.5), 0.0)
    return np.where(top > 0, (peak + shift) * frequencies[1], np.nan)


def spin_correlation(lattice: Lattice, spins: Array) -> Array:
    """Correlation <S_i(t0)·S_j(t0 + t)> against the offset of j from i and against t.

    Parameters
    ----------
    lattice
        The lattice of the spins; along its periodic sides offsets are cyclic.
    spins
        Unit vectors at equal intervals, shape (n, Lx, Ly, 3), NaN at vacancies.

    Returns
    -------
    ndarray
        Shape ((n + 1) // 2, Lx, Ly): means over all pairs of spins t intervals and (x, y) sites apart, x and y from 0;
        NaN where there is no such pair.

    Raises
    ------
    HpcspinError
        If there is less free memory than the transforms take.
    """
    frames, lx, ly = spins.shape[:3]
    sides = [length if closed else 2 * length for length, closed in zip((lx, ly), lattice.periodic, strict=True)]
    padded = (2 * frames, *sides)
    needed, free = _COPIES * 8 * math.prod(padded), available_memory()
    if needed > free:
        raise HpcspinError(
            f"a correlation of {frames} frames needs about {needed / 2**30:.3g} GiB and {free / 2**30:.3g} are free; "
            "record fewer frames"
        )

    def pairs(values: Array) -> Array:
        axes = (0, 1, 2)
        whole = np.fft.irfftn(np.abs(np.fft.rfftn(values, padded, axes)) ** 2, padded, axes)
        return whole[: (frames + 1) // 2, :lx, :ly]

    vacant = np.isnan(spins[0][..., 0])
    products: Array = np.sum([pairs(np.where(vacant, 0.0, spins[:, :, :, a])) for a in range(3)], axis=0)
    with np.errstate(invalid="ignore"):
        number = np.round(pairs(np.broadcast_to(1.0 - vacant, (frames, lx, ly))))
        return np.where(number > 0, products, np.nan) / number


QUANTITIES: Registry[Callable[[Lattice, Array, float], Mapping[str, Array]]] = Registry("--quantity", given=3)
"""Functions from a lattice, spins of shape (n, Lx, Ly, 3), read when indexed, and the time between two of them to
arrays by the names of their datasets."""


@QUANTITIES.adding("structure_factor")
def structure_factor(lattice: Lattice, spins: Array, interval: float) -> Mapping[str, Array]:
    """S(q, omega), ``structure_factor`` (frequencies, Lx, Ly), and ``frequency``."""
    frequency, spectrum = dynamical_structure_factor(spins, interval)
    return {"frequency": frequency, "structure_factor": spectrum}


@QUANTITIES.adding("dispersion")
def magnon_dispersion(lattice: Lattice, spins: Array, interval: float) -> Mapping[str, Array]:
    """Frequency of the strongest mode at each wave vector, ``dispersion`` (Lx, Ly)."""
    return {"dispersion": dispersion(spins, interval)}


@QUANTITIES.adding("correlation")
def correlation(lattice: Lattice, spins: Array, interval: float) -> Mapping[str, Array]:
    """Spin correlation in space and time, ``correlation`` (times, Lx, Ly), and ``time``."""
    values = spin_correlation(lattice, spins)
    return {"time": np.asarray(interval * np.arange(len(values)), dtype=np.float64), "correlation": values}


@QUANTITIES.adding("topological_charge")
def topological_charge(lattice: Lattice, spins: Array, interval: float) -> Mapping[str, Array]:
    """Topological charge of each cell, ``topological_charge`` (n, Lx, Ly); NaN without a triangle of spins."""
    return {"topological_charge": np.stack([topological_charges(lattice, frame) for frame in spins])}
