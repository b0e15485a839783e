"""Random spins, small models, and lattice operations as permutations of sites."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcspin.lattice import Lattice
from hpcspin.potential import Architecture, ForceField, make_force_field


def random_spins(count: int, sites: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Unit vectors, shape (count, sites, 3)."""
    draw = torch.randn((count, sites, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(draw, dim=-1).to(dtype)


def make_model(seed: int = 0, **changes: Any) -> ForceField:
    """A small double-precision model with random weights and a random normalisation."""
    settings: dict[str, Any] = {
        "lattice": "square",
        "radius": 2.0,
        "hidden": (8, 8),
        "precision": "float64",
        "bias_reference": 2.0,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = make_force_field(Architecture(**{**settings, **changes}))
        for network in model.networks:
            features = network.mean.shape
            network.normalise(0.3 * torch.randn(features), 0.1 + torch.rand(features))
    return model.eval()


def rotation(seed: int) -> Tensor:
    """A random proper rotation of spin space."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))
    return torch.from_numpy(q * np.sign(np.linalg.det(q)))


def site_permutation(lattice: Lattice, operation: NDArray[np.int64]) -> NDArray[np.int64]:
    """Site to which an operation about site (0, 0) of a doubly periodic lattice carries each site."""
    sites = np.indices(lattice.size).reshape(2, -1)
    moved = (operation @ sites) % np.array(lattice.size)[:, None]
    return moved[0] * lattice.size[1] + moved[1]


def carried(lattice: Lattice, operation: NDArray[np.int64], *arrays: Tensor) -> list[Tensor]:
    """Arrays of shape (batch, sites, ...) with every site where an operation carries it."""
    source = np.argsort(site_permutation(lattice, operation))
    return [array[:, source] for array in arrays]


def perpendicular(spins: Tensor, field: Tensor) -> Tensor:
    """Part of a field that exerts a torque."""
    return field - spins * (spins * field).sum(-1, keepdim=True)
