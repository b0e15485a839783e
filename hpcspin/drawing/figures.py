"""Figures, those of the paper among them, each from arrays to one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hpcspin.storage import write_bytes

mpl.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})

BLUE = "#1f4e79"


def _save(figure: Figure, path: Path) -> None:
    image = BytesIO()
    figure.savefig(image, dpi=160, bbox_inches="tight", format="png")
    write_bytes(path, image.getvalue())


def torque_parity(exact: NDArray[np.float64], learned: NDArray[np.float64], path: Path) -> None:
    """Predicted against exact torque components, with the histogram of the error (Fig. 3).

    Parameters
    ----------
    exact, learned
        Torques S x H, shape (..., 3).
    path
        Image file to write.
    """
    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    parity, histogram = figure.subplots(1, 2)
    _parity(parity, exact.ravel(), learned.ravel())
    parity.set(xlabel=r"exact torque $\mathbf{S}\times\mathbf{H}$ (NEGF)", ylabel="predicted torque")
    error = (learned - exact).ravel()
    _error_histogram(histogram, error, f"torque error σ = {error.std():.2g}")
    histogram.set(xlabel="error of a torque component")
    _save(figure, path)


def field_errors(
    components: NDArray[np.float64], sigma: float, bins: Sequence[Mapping[str, float]], path: Path
) -> None:
    """Predicted against exact field components, the histogram of the error, and how well a committee tells it.

    Parameters
    ----------
    components
        Exact and predicted perpendicular components, shape (2, n).
    sigma
        Standard deviation of the error.
    bins
        Root mean squares ``spread`` and ``error`` of groups of sites, see
        `hpcspin.training.calibrate`; none of a single model.
    path
        Image file to write.
    """
    figure = Figure(figsize=(12.6 if bins else 8.4, 3.6), layout="constrained")
    parity, histogram, *rest = figure.subplots(1, 3 if bins else 2)
    _parity(parity, *components)
    parity.set(xlabel=r"exact $\mathbf{H}_\perp$ component (NEGF)", ylabel="predicted component")
    _error_histogram(histogram, components[1] - components[0], f"field error σ = {sigma:.2g}")
    histogram.set(xlabel=r"error of an $\mathbf{H}_\perp$ component")
    for axis in rest:
        _calibration(axis, bins)
    _save(figure, path)


def _parity(axis: Axes, exact: NDArray[np.float64], learned: NDArray[np.float64]) -> None:
    reach = float(np.abs(exact).max()) or 1.0
    edges = np.linspace(-reach, reach, 151)
    # Matplotlib finds no logarithmic scale where all counts are equal.
    most = np.histogram2d(exact, learned, bins=(edges, edges))[0].max()
    counted = axis.hist2d(
        exact, learned, bins=(edges, edges), norm=LogNorm(1, max(most, 2)), cmap="viridis", rasterized=True
    )
    axis.figure.colorbar(counted[3], ax=axis, label="components")
    axis.plot([-reach, reach], [-reach, reach], color="black", linewidth=0.8)


def _error_histogram(axis: Axes, error: NDArray[np.float64], title: str) -> None:
    width = 5 * float(error.std()) or 1.0
    axis.hist(error, bins=121, range=(-width, width), density=True, color=BLUE)
    axis.set(ylabel="density", title=title)


def _calibration(axis: Axes, bins: Sequence[Mapping[str, float]]) -> None:
    spreads, errors = ([share[name] for share in bins] for name in ("spread", "error"))
    axis.plot(spreads, errors, "o-", color=BLUE, label="tenths of the sites")
    axis.plot(spreads, spreads, color="black", linewidth=0.8, label="error = spread")
    axis.set(xlabel="spread of the committee (rms)", ylabel="error (rms)")
    axis.legend(frameon=False)


def bond_maps(times: NDArray[np.float64], exact: NDArray[np.float64], learned: NDArray[np.float64], path: Path) -> None:
    """Nearest-neighbour correlation of both dynamics side by side in time (Fig. 4).

    Parameters
    ----------
    times
        Shape (n,).
    exact, learned
        Bond maps, shape (n, Lx, Ly).
    path
        Image file to write.
    """
    figure = Figure(figsize=(6.4, 1.5 + 1.2 * len(times) * exact.shape[2] / exact.shape[1] * 2))
    axes = figure.subplots(len(times), 2, squeeze=False, sharex=True, sharey=True)
    for row, time in enumerate(times):
        for axis, maps, name in zip(axes[row], (exact, learned), ("NEGF–LLG", "ML–LLG"), strict=True):
            image = axis.imshow(maps[row].T, origin="lower", cmap="RdBu_r", vmin=-1, vmax=1, aspect="equal")
            axis.set_title(f"{name}, t = {time:.0f} ħ/t", fontsize=8)
            axis.set_xticks([])
            axis.set_yticks([])
    figure.colorbar(image, ax=axes, label=r"$b_{ij}=\mathbf{S}_i\cdot\mathbf{S}_j$", shrink=0.6)
    _save(figure, path)


def wall_positions(
    runs: list[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]], path: Path
) -> None:
    """Wall position against time of both dynamics (Fig. 5a).

    Parameters
    ----------
    runs
        For each test run: times, exact positions, learned positions.
    path
        Image file to write.
    """
    figure = Figure(figsize=(4.6, 3.4))
    axis = figure.subplots()
    for number, (times, exact, learned) in enumerate(runs):
        colour = f"C{number % 10}"
        axis.plot(times, exact, color=colour, label=f"NEGF–LLG, run {number}")
        axis.plot(times, learned, "--", color=colour, label=f"ML–LLG, run {number}")
    axis.set(xlabel="time (ħ/t)", ylabel="wall position (columns)")
    axis.legend(frameon=False, fontsize=7, ncols=1 + len(runs) // 4)
    _save(figure, path)


def torque_ratio(ratio: NDArray[np.float64], path: Path) -> None:
    """Histogram of |T^neq|/|T^eq| of the sites near the wall (Fig. 5b).

    Parameters
    ----------
    ratio
        One number a site and frame.
    path
        Image file to write.
    """
    figure = Figure(figsize=(4.6, 3.4))
    axis = figure.subplots()
    axis.hist(np.log10(ratio[ratio > 0]), bins=80, density=True, color=BLUE)
    axis.set(xlabel=r"$\log_{10}\,|\mathbf{T}^{neq}|/|\mathbf{T}^{eq}|$ near the wall", ylabel="density")
    _save(figure, path)
