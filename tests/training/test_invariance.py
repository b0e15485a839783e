"""Why no snapshot need be turned, mirrored or moved to be learned from again: loss and gradient stay the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch import Tensor

from hpcspin.lattice import make_lattice, perpendicular
from hpcspin.potential import Architecture, make_force_field

LATTICE = make_lattice("square", (6, 5))


def draw(seed: int) -> tuple[Tensor, Tensor]:
    """A snapshot of random spins and fields, shapes (1, sites, 3)."""
    generator = torch.Generator().manual_seed(seed)
    spins, field = torch.randn((2, 1, LATTICE.num_sites, 3), generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(spins, dim=-1), field


def gradient(settings: dict[str, str], spins: Tensor, field: Tensor) -> Tensor:
    """Loss and its derivative by all weights."""
    torch.manual_seed(3)
    model = make_force_field(Architecture("square", 2.0, (8, 8), precision="float64", **settings)).train()
    predicted = model(spins, model.neighbourhood(LATTICE), torch.ones(1)).field
    loss = perpendicular(spins, predicted - field).square().mean()
    parts = torch.autograd.grad(loss, list(model.parameters()))
    return torch.cat([loss[None], *(part.flatten() for part in parts)])


def rotated(vectors: Tensor, seed: int) -> Tensor:
    matrix = Rotation.random(random_state=seed).as_matrix()
    return vectors @ torch.from_numpy(matrix).T


def moved(vectors: Tensor, seed: int) -> Tensor:
    return vectors.unflatten(1, LATTICE.size).roll(seed % 4 + 1, 2).flatten(1, 2)


def mirrored(vectors: Tensor, seed: int) -> Tensor:
    return vectors.unflatten(1, LATTICE.size).flip(2).flatten(1, 2)


@pytest.mark.parametrize(
    "settings",
    [
        *({"kind": kind, "descriptor": name} for kind in ("pair", "site") for name in ("bonds", "densities")),
        {"kind": "direct"},
    ],
    ids=lambda settings: " ".join(settings.values()),
)
@pytest.mark.parametrize("operation", [rotated, moved, mirrored])
def test_the_image_of_a_snapshot_teaches_nothing_new(settings, operation):
    """Rotation of all spins together, translation along y, and the y mirror, under which spins are no vectors."""
    spins, field = draw(1)
    same = gradient(settings, operation(spins, 5), operation(field, 5))
    torch.testing.assert_close(same, gradient(settings, spins, field), rtol=1e-9, atol=1e-12)


def test_an_image_that_is_no_symmetry_teaches_something():
    """The x mirror exchanges the electrodes: under bias it is none."""
    spins, field = draw(1)
    flipped = [vectors.unflatten(1, LATTICE.size).flip(1).flatten(1, 2) for vectors in (spins, field)]
    difference = gradient({"kind": "pair"}, *flipped) - gradient({"kind": "pair"}, spins, field)
    assert difference.abs().max() > 1e-6


@given(seed=st.integers(0, 10**6))
@limits(max_examples=30, deadline=None)
def test_a_loss_of_torques_is_that_of_perpendicular_fields(seed):
    """|S x (H - H')| = |(H - H')_perp| for unit spins."""
    spins, wrong = draw(seed)
    torques = torch.linalg.cross(spins, wrong).square().sum(-1)
    np.testing.assert_allclose(torques, perpendicular(spins, wrong).square().sum(-1), rtol=1e-12, atol=1e-14)
