"""The initial force field of a training: random weights in the units of the data, or a saved force field."""

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

_ELECTRODES = 2


def with_units(architecture: Architecture, train: Sequence[Snapshots], world: World) -> Architecture:
    """The architecture with the units of the voltages, or of the drive, in the training data."""
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
    """A saved force field whose training continues, in its own units.

    One of ``drive: bias`` can continue `with_potentials`, and one of ``time_reversal: broken`` as ``driven``.
    """
    if (model.architecture.drive, architecture.drive, architecture.drives) == ("bias", "potentials", _ELECTRODES):
        model = with_potentials(model)
    if (model.architecture.settings.time_reversal, architecture.settings.time_reversal) == ("broken", "driven"):
        model.architecture = model.architecture.changed(time_reversal="driven")  # With the same weights.
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


@torch.no_grad()
def with_potentials(model: ForceField) -> ForceField:
    """The same force field of layers with the potentials φ_1, φ_2 of two electrodes as input, and the bias φ_2 - φ_1.

    It equals the model of ``drive: bias`` if the second electrode has the higher potential and the bath lies between.
    """
    wider = make_force_field(model.architecture.changed(drive="potentials", drives=_ELECTRODES))
    weights = model.state_dict()
    wider.envelope, wider.energy_offset = model.envelope, model.energy_offset
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for network in model.networks:
        first, features = network.layers[0].weight, len(network.mean)
        seen, bias, others = first.split([features, 1, first.shape[1] - features - 1], 1)
        weights[names[id(first)]] = torch.cat([seen, -bias, bias, others], 1)
    if model.architecture.settings.kind == "pair":
        last = model.networks[-1].layers[-1].weight
        energy, toroidal = last.split(1)
        weights[names[id(last)]] = torch.cat([energy, -toroidal, toroidal])
    wider.load_state_dict(weights)
    return wider
