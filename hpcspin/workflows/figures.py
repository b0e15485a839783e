"""The figures of the paper, each from arrays to one file."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hpcspin.storage import atomic_path

mpl.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})

BLUE = "#1f4e79"


def _save(figure: Figure, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=160, bbox_inches="tight", format="png")


def torque_parity(exact: NDArray[np.float64], learned: NDArray[np.float64], sigma: float, path: Path) -> None:
    """Predicted against exact torque components, with the histogram of the error (Fig. 3).

    Parameters
    ----------
    exact, learned
        Torques S x H, shape (..., 3).
    sigma
        Standard deviation of the error of a perpendicular field component.
    path
        Image file to write.
    """
    figure = Figure(figsize=(8.4, 3.6))
    parity, histogram = figure.subplots(1, 2)
    for component, name, colour in zip(range(3), "xyz", (BLUE, "#c8501e", "#3a7d44"), strict=True):
        parity.plot(
            exact[..., component].ravel(),
            learned[..., component].ravel(),
            ".",
            markersize=1.5,
            color=colour,
            label=f"$T_{name}$",
            rasterized=True,
        )
    reach = float(np.abs(exact).max()) or 1.0
    parity.plot([-reach, reach], [-reach, reach], color="black", linewidth=0.8)
    parity.set(xlabel=r"exact torque $\mathbf{S}\times\mathbf{H}$ (NEGF)", ylabel="predicted torque")
    parity.legend(markerscale=5, frameon=False)
    error = (learned - exact).ravel()
    width = 5 * float(error.std()) or 1.0
    histogram.hist(error, bins=121, range=(-width, width), density=True, color=BLUE)
    histogram.set(xlabel="error of a torque component", ylabel="density", title=f"field error σ = {sigma:.2g}")
    _save(figure, path)


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
