"""A figure of the currents through a lattice of electrons, and of their density of states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from hpcspin.drawing.lattice_figures import BONDS, Array
from hpcspin.drawing.style import save
from hpcspin.lattice import Lattice, bond_columns


def flow_maps(
    lattice: Lattice,
    offsets: Sequence[tuple[int, int]],
    spins: Array,
    flows: Mapping[str, Array],
    energies: Sequence[float],
    path: Path,
) -> None:
    """Particle and spin currents along the bonds, and the density of states at each energy, side by side.

    The ``flows`` are ``bond_current``, ``bond_spin_current`` and, where there are energies, ``ldos`` of `Transport`;
    ``offsets`` are those of the directions of bonds. Below the particle current are the local bonds of the spins, shape
    (Lx, Ly, 3).
    """
    places, vectors = lattice.cartesian(lattice.sites), lattice.cartesian(np.asarray(offsets))
    width, height = np.ptp(places.reshape(-1, 2), axis=0) + 1
    count = 2 + len(energies)
    figure = Figure(figsize=(4.0 * count, 1.0 + 3.6 * height / width), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)[0]
    for axis in axes:
        axis.set_aspect("equal")
        axis.set_axis_off()
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
    axes[1].autoscale()
    axes[1].set_title("spin current", fontsize=9)
    figure.colorbar(lines, ax=axes[1], label=r"spin current of a bond ($t$)", shrink=0.8)
    for axis, energy, values in zip(axes[2:], energies, flows.get("ldos", ()), strict=True):
        _sites(figure, axis, places, values, "states per site and $t$", "viridis", (0, float(values.max())))
        axis.set_title(rf"LDOS at $\epsilon$ = {energy:g} $t$", fontsize=9)
    save(figure, path)


def _sites(
    figure: Figure, axis: Axes, places: Array, values: Array, label: str, colours: str, ends: tuple[float, float]
) -> None:
    image: ScalarMappable = axis.scatter(
        places[..., 0], places[..., 1], c=values, cmap=colours, vmin=ends[0], vmax=ends[1], s=30, linewidths=0
    )
    figure.colorbar(image, ax=axis, label=label, shrink=0.8)
