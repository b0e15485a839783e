"""Figures of whole lattices: numbers at the places of the sites, currents, structure factors in the Brillouin zone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection, QuadMesh
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray
from scipy.spatial import Voronoi

from hpcspin.drawing.style import plain, save
from hpcspin.lattice import Lattice, bond_columns

Array = NDArray[np.float64]

BOND = r"$b_{ij}=\mathbf{S}_i\cdot\mathbf{S}_j$"
BONDS = r"mean bond $\mathbf{S}_i\cdot\mathbf{S}_j$ of a site"
CHIRALITY = r"mean $\mathbf{S}_i\cdot(\mathbf{S}_j\times\mathbf{S}_k)$ of a cell"
_PIXELS = 240
"""Pixels along each side of the picture of a Brillouin zone."""
_ROUNDING = 1e-9
"""Fraction of the range of colours by which a number may be beyond it without being said to be."""
_DENSITIES = 5
"""Largest number of maps of the density of states in a figure, at energies from the first to the last."""
_DARKEST = 1e-4
"""Fraction of the largest structure factor below which all is one colour."""


def site_maps(
    lattice: Lattice,
    captions: Sequence[str],
    maps: Mapping[str, Array],
    label: str,
    path: Path,
    limits: tuple[float, float] = (-1.0, 1.0),
    colours: str = "RdBu_r",
) -> None:
    """A number of each site, for several dynamics side by side and times from top to bottom (Fig. 4 of the paper).

    Each of the n rows has a caption; ``maps`` has the numbers for each dynamics, by its name, shape (n, Lx, Ly). The
    first and last of the matplotlib ``colours`` are those of ``limits``.
    """
    width, height = np.ptp(_corners(lattice).reshape(-1, 2), axis=0)
    figure = Figure(figsize=(3.2 * len(maps), 1.5 + 2.4 * len(captions) * height / width))
    axes = figure.subplots(len(captions), len(maps), squeeze=False, sharex=True, sharey=True)
    for row, caption in enumerate(captions):
        for axis, (name, values) in zip(axes[row], maps.items(), strict=True):
            image = draw_cells(axis, lattice, values[row], limits, colours)
            axis.set_title(f"{name}, {caption}", fontsize=8)
            axis.label_outer()
    slack = _ROUNDING * (limits[1] - limits[0])
    beyond = any(((n < limits[0] - slack) | (n > limits[1] + slack)).any() for n in maps.values())
    figure.colorbar(image, ax=axes, label=label, shrink=0.6, extend="both" if beyond else "neither")
    save(figure, path)


def at_times(times: Array) -> list[str]:
    """Captions of times."""
    return [f"t = {time:.0f} ħ/t" for time in times]


def scale_in_places(axis: Axes) -> None:
    """Axes of a map of the lattice."""
    axis.set(aspect="equal", xlabel="x (lattice constants)", ylabel="y")


def draw_cells(axis: Axes, lattice: Lattice, values: Array, limits: tuple[float, float], colours: str) -> QuadMesh:
    """Draw a number of each site, shape (Lx, Ly), as the colour of a cell at its Cartesian place; see `site_maps`."""
    x, y = np.moveaxis(_corners(lattice), -1, 0)
    scale_in_places(axis)
    return axis.pcolormesh(x, y, values, cmap=colours, vmin=limits[0], vmax=limits[1], rasterized=True)


def _corners(lattice: Lattice) -> Array:
    """Cartesian corners of the sites' cells, shape (Lx + 1, Ly + 1, 2)."""
    return lattice.cartesian(np.moveaxis(np.indices((lattice.size[0] + 1, lattice.size[1] + 1)), 0, -1) - 0.5)


def zone_maps(lattice: Lattice, factors: Mapping[str, Array], path: Path) -> None:
    """Structure factors S(q), of `hpcspin.lattice.structure_factors`, in the Brillouin zone on one colour scale."""
    figure = Figure(figsize=(3.4 * len(factors) + 0.8, 3.4), layout="constrained")
    axes = figure.subplots(1, len(factors), squeeze=False)[0]
    most = max(float(values.max()) for values in factors.values())
    outline = zone_corners(lattice)
    for axis, (name, values) in zip(axes, factors.items(), strict=True):
        image = _zone(axis, lattice, values, outline, LogNorm(most * _DARKEST, most, clip=True))
        axis.set_title(name, fontsize=9)
    figure.colorbar(image, ax=axes, label=r"$S(\mathbf{q})$", shrink=0.8)
    save(figure, path)


def reciprocal_vectors(lattice: Lattice) -> Array:
    """Reciprocal vectors b_1 and b_2 as rows, a_i·b_j = 2 pi delta_ij, shape (2, 2)."""
    return np.asarray(2 * np.pi * np.linalg.inv(lattice.primitive_vectors).T)


def zone_corners(lattice: Lattice) -> Array:
    """Corners of the first Brillouin zone, in order around it, shape (corners, 2): a square, or a hexagon."""
    around = np.moveaxis(np.indices((5, 5)) - 2, 0, -1).reshape(-1, 2) @ reciprocal_vectors(lattice)
    cells = Voronoi(around)
    corners = cells.vertices[cells.regions[cells.point_region[len(around) // 2]]]
    return corners[np.argsort(np.arctan2(corners[:, 1], corners[:, 0]))]


def _zone(axis: Axes, lattice: Lattice, values: Array, outline: Array, scale: LogNorm) -> AxesImage:
    reach = np.abs(outline).max(axis=0)
    x, y = (np.linspace(-most, most, _PIXELS) for most in reach)
    places = np.stack(np.meshgrid(x, y), axis=-1)
    h, k = np.moveaxis(_nearest_wave_vectors(lattice, places), -1, 0)
    image = axis.imshow(
        values[h % lattice.size[0], k % lattice.size[1]],
        origin="lower",
        extent=(-reach[0], reach[0], -reach[1], reach[1]),
        cmap="magma",
        norm=scale,
    )
    (border,) = axis.fill(*outline.T, fill=False, edgecolor="black", linewidth=0.8)
    image.set_clip_path(border)
    axis.set(xlabel=r"$q_x$ (1 / lattice constant)", ylabel=r"$q_y$")
    return image


def _nearest_wave_vectors(lattice: Lattice, places: Array) -> NDArray[np.int64]:
    """Integers (h, k) of the wave vector (h / Lx, k / Ly) that is nearest to each place, shape (..., 2)."""
    basis = reciprocal_vectors(lattice) / np.array(lattice.size)[:, None]
    around = np.round(places @ np.linalg.inv(basis)).astype(int)[..., None, :] + np.argwhere(np.ones((3, 3))) - 1
    nearest = np.argmin(((around @ basis - places[..., None, :]) ** 2).sum(axis=-1), axis=-1)
    return np.take_along_axis(around, nearest[..., None, None], axis=-2)[..., 0, :]


def flow_maps(
    lattice: Lattice,
    offsets: Sequence[tuple[int, int]],
    spins: Array,
    flows: Mapping[str, Array],
    energies: Sequence[float],
    path: Path,
    reservoirs: Sequence[str] = (),
) -> None:
    """Particle and spin currents along the bonds, densities of states, and transmissions, side by side.

    The ``flows`` are ``bond_current``, ``bond_spin_current`` and, where there are energies, ``ldos`` and
    ``transmission`` of `Transport`; ``offsets`` are those of the bonds, ``reservoirs`` names. Below the particle
    current are the local bonds of the spins, shape (Lx, Ly, 3).
    """
    places, vectors = lattice.cartesian(lattice.sites), lattice.cartesian(np.asarray(offsets))
    width, height = np.ptp(places.reshape(-1, 2), axis=0) + 1
    chosen = np.unique(np.linspace(0, len(energies) - 1, _DENSITIES).round().astype(int)) if len(energies) else ()
    maps = 2 + len(chosen)
    count = maps + ("transmission" in flows)
    figure = Figure(figsize=(4.0 * count, 1.0 + 3.6 * height / width), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)[0]
    for axis in axes[:maps]:
        scale_in_places(axis)
    middles = places + vectors[:, None, None] / 2
    there = lattice.shift(offsets).T.reshape(middles.shape[:-1]) >= 0  # No bond leads beyond an open edge.
    arrows = (vectors[:, None, None] * flows["bond_current"][..., None])[there]
    _sites(figure, axes[0], places, bond_columns(lattice, spins), BONDS, "RdBu_r", (-1, 1))
    axes[0].quiver(*middles[there].T, *arrows.T, pivot="mid", width=0.003)
    most = np.abs(flows["bond_current"]).max()
    axes[0].set_title(rf"particle current, at most {most:.2g} $t/\hbar$", fontsize=9)
    strength = np.linalg.norm(flows["bond_spin_current"], axis=-1)[there]
    ends = np.stack([np.broadcast_to(places, middles.shape), places + vectors[:, None, None]], axis=-2)
    lines = LineCollection(list(ends[there]), array=strength, cmap="magma_r", linewidths=2)
    axes[1].add_collection(lines)
    low, high = ends[there].min(axis=(0, 1)) - 0.5, ends[there].max(axis=(0, 1)) + 0.5
    axes[1].set_title("spin current", fontsize=9)
    figure.colorbar(lines, ax=axes[1], label=r"spin current of a bond ($t$)", shrink=0.8)
    for axis, number in zip(axes[2:maps], chosen, strict=True):
        energy, values = energies[number], flows["ldos"][number]
        _sites(figure, axis, places, values, "states per site and $t$", "viridis", (0, float(values.max())))
        axis.set_title(rf"LDOS at $\epsilon$ = {energy:g} $t$", fontsize=9)
    for axis in axes[:maps]:
        axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    if "transmission" in flows:
        _transmissions(axes[-1], np.array(energies), flows["transmission"], reservoirs)
    save(figure, path)


def _transmissions(axis: Axes, energies: Array, values: Array, reservoirs: Sequence[str]) -> None:
    """Curves over the energy from each reservoir into each other one; values as in `Transport`."""
    order = np.argsort(energies)
    for out_of, into in permutations(range(len(reservoirs)), 2):
        name = plain(f"{reservoirs[out_of]} to {reservoirs[into]}")
        axis.semilogy(energies[order], values[order, into, out_of], ".-", linewidth=1, label=name)
    axis.set(xlabel=r"energy $\epsilon$ ($t$)", ylabel="transmission")
    axis.legend(frameon=False, fontsize=7)


def _sites(
    figure: Figure, axis: Axes, places: Array, values: Array, label: str, colours: str, ends: tuple[float, float]
) -> None:
    image: ScalarMappable = axis.scatter(
        places[..., 0], places[..., 1], c=values, cmap=colours, vmin=ends[0], vmax=ends[1], s=30, linewidths=0
    )
    figure.colorbar(image, ax=axis, label=label, shrink=0.8)
