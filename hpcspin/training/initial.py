"""The force field that a training begins with: random weights, or those of a saved one, in the units of the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World
from hpcspin.potential import Architecture, ForceField, make_force_field
from hpcspin.storage import POLARIZATIONS
from hpcspin.training.dataset import Snapshots


def with_units(architecture: Architecture, train: Sequence[Snapshots], world: World) -> Architecture:
    """The architecture with the units of what drives the electrons in the training data."""
    given = torch.cat([share.bias for share in train]).double()
    if architecture.drive == "chemical_potential":
        sums = world.sum(np.array([len(given), float(given[:, 1].sum())]))
        lowest, highest = (
            float(end(world.allgather(float(end(given[:, 0].numpy(), initial=start)))))
            for end, start in ((np.min, np.inf), (np.max, -np.inf))
        )
        return architecture.changed(grand_potential=[lowest, highest, float(sums[1] / sums[0])])
    drives = given.shape[1] - (POLARIZATIONS if architecture.drive == "polarized" else 0)
    largest = max(world.allgather(float(given[:, :drives].abs().max()) if len(given) else 0.0))
    return architecture.changed(bias_reference=largest or 1.0, drives=drives)


def new_model(architecture: Architecture, seed: int) -> ForceField:
    """A force field with random weights, the same on all ranks."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make_force_field(architecture)


def continued(model: ForceField, architecture: Architecture) -> ForceField:
    """A saved force field to be trained further, in its own unit of bias."""
    initial = model.architecture
    kept: dict[str, Any] = {"bias_reference": initial.bias_reference, "drives": initial.drives}
    if initial.grand_potential and architecture.grand_potential:
        kept["grand_potential"] = initial.grand_potential
    wanted = architecture.changed(**kept).as_dict()
    differing = [name for name, value in initial.as_dict().items() if wanted.get(name) != value]
    if not differing:
        return model.train()
    raise HpcspinError(
        f"training.start: the model has another {', '.join(differing)} than the section potential; "
        "take over its values, or train without a start"
    )
