"""Driven lattices for the tests of the electrons."""

from __future__ import annotations

from typing import Any

import numpy as np

from hpcspin.electrons import DrivenLattice, Reservoir
from hpcspin.lattice import make_lattice


def from_reference(content: dict[str, Any]) -> DrivenLattice:
    """The driven lattice of a file of exact steady states."""
    meta = content["meta"]
    size = (meta["lx"], meta["ly"])
    column = np.arange(size[0])[:, None] + np.zeros(size[1])
    masks = {"left": column == 0, "right": column == size[0] - 1, "bath": column >= 0}
    reservoirs = tuple(
        Reservoir(
            name,
            mask,
            meta[f"gamma_{name}"],
            meta[f"mu_{name}"],
            tuple(meta["left_polarization"]) if name == "left" else (0.0, 0.0, 0.0),
        )
        for name, mask in masks.items()
    )
    lattice = make_lattice(meta["lattice"], size, (False, meta["periodic_y"]))
    return DrivenLattice(lattice, meta["t"], meta["J"], meta["T"], reservoirs)
