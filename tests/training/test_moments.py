"""Units of what a force field reads are those of its training data."""

from __future__ import annotations

import numpy as np
import torch

from hpcspin.lattice import make_lattice, make_texture
from hpcspin.parallel.world import World
from hpcspin.potential import Architecture, make_force_field
from hpcspin.training.dataset import Snapshots
from hpcspin.training.moments import normalise


def test_features_have_no_mean_and_scatter_by_one() -> None:
    """Of both layers, over lattices of two sizes."""
    shares = []
    for size, count in (((12, 6), 20), ((8, 4), 8)):
        lattice = make_lattice("square", size)
        spins = np.stack(
            [
                make_texture("wall", lattice, n, position=n % (size[0] - 1), tilt=0.5).reshape(-1, 3)
                for n in range(count)
            ]
        )
        moved = torch.from_numpy(spins).float()
        bias = torch.full((count,), 3.2)
        places = np.arange(count), np.zeros(count, int)
        shares.append(Snapshots(moved, moved.roll(1, 1), bias, bias.double(), *places, count, lattice))
    torch.manual_seed(1)
    model = make_force_field(Architecture("square", 1.0, (8,), kind="direct", layers=(1, 1)))
    normalise(model, shares, World(), torch.device("cpu"))
    for number, network in enumerate(model.networks):
        seen = [model.features(share.spins, model.neighbourhood(share.lattice), share.bias, number) for share in shares]
        every = (torch.cat(seen) - network.mean) * network.scale
        assert every.mean(0).abs().max() < 2e-2
        # Features that hardly scatter are not blown up.
        assert 0.5 < every.std(0).median() < 1.1
