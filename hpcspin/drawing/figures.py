"""Figures, including those of the paper; each draws arrays into the image file ``path``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hpcspin.drawing.style import BLUE, save

_NARROW = 1e-3
"""Distance of the edges of a histogram from its outermost numbers."""


def torque_parity(exact: NDArray[np.float64], learned: NDArray[np.float64], path: Path) -> None:
    """Predicted against exact components of torques S x H, shape (..., 3), and the histogram of the error (Fig. 3)."""
    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    parity, histogram = figure.subplots(1, 2)
    _parity(parity, exact.ravel(), learned.ravel())
    parity.set(xlabel=r"exact torque component $(\mathbf{S}\times\mathbf{H})_a$ (t)", ylabel="predicted component (t)")
    error = (learned - exact).ravel()
    _error_histogram(histogram, error, f"torque error σ = {error.std():.2g} t")
    histogram.set(xlabel="error of a torque component (t)")
    save(figure, path)


def field_errors(
    components: NDArray[np.float64], sigma: float, bins: Sequence[Mapping[str, float]], path: Path
) -> None:
    """Predicted against exact field components, the histogram of the error, and how well a committee estimates it.

    The exact and predicted perpendicular components have the shape (2, n), and ``sigma`` is the standard deviation of
    the error. ``bins`` are those of `hpcspin.training.calibrate`; none for a single model.
    """
    figure = Figure(figsize=(12.6 if bins else 8.4, 3.6), layout="constrained")
    parity, histogram, *rest = figure.subplots(1, 3 if bins else 2)
    _parity(parity, *components)
    parity.set(xlabel=r"exact $\mathbf{H}_\perp$ component (t)", ylabel="predicted component (t)")
    _error_histogram(histogram, components[1] - components[0], f"field error σ = {sigma:.2g} t")
    histogram.set(xlabel=r"error of an $\mathbf{H}_\perp$ component (t)")
    for axis in rest:
        _calibration(axis, bins)
    save(figure, path)


def _parity(axis: Axes, exact: NDArray[np.float64], learned: NDArray[np.float64]) -> None:
    reach = float(max(np.abs(exact).max(), np.abs(learned).max())) or 1.0
    edges = np.linspace(-reach, reach, 151)
    # Matplotlib finds no logarithmic scale where all counts are equal.
    most = np.histogram2d(exact, learned, bins=(edges, edges))[0].max()
    counted = axis.hist2d(
        exact, learned, bins=(edges, edges), norm=LogNorm(1, max(most, 2)), cmap="viridis", rasterized=True
    )
    axis.figure.colorbar(counted[3], ax=axis, label="number of components")
    axis.plot([-reach, reach], [-reach, reach], color="black", linewidth=0.8)
    axis.locator_params(nbins=5)


def _error_histogram(axis: Axes, error: NDArray[np.float64], title: str) -> None:
    width = 5 * float(error.std()) or 1.0
    axis.hist(error, bins=121, range=(-width, width), density=True, color=BLUE)
    axis.set(ylabel="probability density (1/t)", title=title)


def _calibration(axis: Axes, bins: Sequence[Mapping[str, float]]) -> None:
    spreads, errors = ([share[name] for share in bins] for name in ("spread", "error"))
    axis.plot(spreads, errors, "o-", color=BLUE, label="tenths of the sites")
    axis.plot(spreads, spreads, color="black", linewidth=0.8, label="error = spread")
    axis.set(xlabel="rms spread of the committee (t)", ylabel="rms error (t)")
    axis.legend()


def torque_ratio(ratio: NDArray[np.float64], path: Path) -> None:
    """Histogram of |T^neq|/|T^eq| of the sites near the wall, one number per site and frame (Fig. 5b)."""
    figure = Figure(figsize=(4.6, 3.4))
    axis = figure.subplots()
    axis.hist(np.log10(ratio[ratio > 0]), bins=80, density=True, color=BLUE)
    axis.set(
        xlabel=r"$\log_{10}\,|\mathbf{T}^\mathrm{neq}|/|\mathbf{T}^\mathrm{eq}|$ near the wall",
        ylabel="probability density",
    )
    save(figure, path)


def against_time(
    runs: Sequence[Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]], what: str, path: Path
) -> None:
    """A number of each run under both dynamics against time, in full and broken lines (Fig. 5a for the wall).

    ``runs`` holds times and numbers of each test run by the names of both dynamics, ``what`` labels the vertical axis.
    """
    figure = Figure(figsize=(4.6, 3.4))
    axis = figure.subplots()
    for number, curves in enumerate(runs):
        for (name, (time, values)), style in zip(curves.items(), ("-", "--"), strict=True):
            axis.plot(time, values, style, color=f"C{number % 10}", label=None if number else name)
    axis.set(xlabel="time (ħ/t)", ylabel=what)
    axis.legend(title=f"{len(runs)} runs, a colour each" if len(runs) > 1 else None)
    save(figure, path)


def energy_parity(exact: NDArray[np.float64], learned: NDArray[np.float64], path: Path) -> None:
    """Predicted against exact energies per site of snapshots, shape (n,), without the constant that no field knows."""
    learned = learned - (learned - exact).mean()
    figure = Figure(figsize=(3.8, 3.6), layout="constrained")
    axis = figure.subplots()
    axis.plot(exact, learned, ".", color=BLUE, markersize=3)
    ends = [min(exact.min(), learned.min()), max(exact.max(), learned.max())]
    axis.plot(ends, ends, color="black", linewidth=0.8)
    error = float((learned - exact).std())
    axis.set(
        xlabel="exact energy per site (t)", ylabel="predicted, less its mean error (t)", title=f"σ = {error:.2g} t"
    )
    save(figure, path)


def histograms(panels: Mapping[str, Mapping[str, NDArray[np.float64]]], path: Path) -> None:
    """Histograms of some numbers, by their labels, those of several dynamics, by their names, superimposed."""
    figure = Figure(figsize=(4.2 * len(panels), 3.4), layout="constrained")
    for axis, (what, values) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        everything = np.concatenate(list(values.values()))
        # In perfect order all numbers are equal up to rounding errors, for which NumPy makes no bins.
        low, high = everything.min() - _NARROW, everything.max() + _NARROW
        bins = int(np.clip(np.sqrt(len(everything)), 10, 60))
        edges = np.linspace(low, high, bins + 1)
        for name, numbers in values.items():
            axis.hist(numbers, bins=edges, density=True, histtype="step", label=name)
        axis.set(xlabel=what, ylabel="probability density", yscale="log")
        axis.legend()
    save(figure, path)
