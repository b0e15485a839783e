"""Units of what a force field reads are those of its training data."""

from __future__ import annotations

import numpy as np
import torch

from hpcspin.lattice import make_lattice, make_texture
from hpcspin.parallel.world import World
from hpcspin.potential import Architecture, CovariantField, make_force_field
from hpcspin.training.dataset import Snapshots
from hpcspin.training.moments import normalise

CAVITY = {"exchange": 3.8, "energies": ((-3.2, 0.35), (-1.5, 0.5)), "width": 1.0, "sweeps": 3}


def test_cavity_functions_and_features_scatter_by_one() -> None:
    """Of lattices of two sizes: no mean, none along the spin, and a scatter of one, of each of the numbers."""
    shares = []
    for size, count in (((12, 6), 20), ((8, 5), 8)):
        lattice = make_lattice("square", size)
        spins = np.stack(
            [make_texture("wall", lattice, n, position=1 + n % 9, tilt=0.5).reshape(-1, 3) for n in range(count)]
        )
        moved = torch.from_numpy(spins).float()
        shares.append(
            Snapshots(
                moved,
                moved.roll(1, 1),
                torch.full((count,), 3.2),
                np.arange(count),
                np.zeros(count, int),
                count,
                lattice,
            )
        )
    layers = {"kind": "direct", "descriptor": "densities", "layers": (1, 1), "cavity": CAVITY}
    model = make_force_field(Architecture("square", 1.0, (8,), **layers))
    assert isinstance(model, CovariantField)
    assert model.cavity is not None
    normalise(model, shares, World(), torch.device("cpu"))
    sites, features = [], []
    for share in shares:
        near = model.neighbourhood(share.lattice)
        assert near.bonds is not None
        vectors, scalars = model.cavity(share.spins, near.bonds)
        along = (vectors[..., 1:] * share.spins[..., None]).sum(-2)
        parts = (scalars[..., 1:], along, vectors[..., 1:].square().sum(-2) / 3)
        sites.append(torch.stack([part.flatten(0, 1) for part in parts]))
        network = model.networks[0]
        seen = model.features(share.spins, near, share.bias, 0)
        features.append((seen - network.mean) * network.scale)
    a, along, square = torch.cat(sites, 1)
    for found, expected in ((a.mean(0), 0), (along.mean(0), 0), (a.std(0, correction=0), 1), (square.mean(0), 1)):
        torch.testing.assert_close(found, torch.full((4,), float(expected)), rtol=0, atol=2e-3)
    every = torch.cat(features)
    assert every.mean(0).abs().max() < 2e-2
    # Features that hardly scatter are not blown up.
    assert 0.5 < every.std(0).median() < 1.1
