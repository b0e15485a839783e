"""Laws of conservative force fields with a full point group, on lattices that are periodic in both directions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from force_fields import make_model, random_spins, rotation, site_permutation
from messages_in_process import MessagesInProcess
from torch import Tensor

from hpcspin.lattice import Lattice, make_lattice
from hpcspin.parallel.domain import Domain
from hpcspin.parallel.world import World
from hpcspin.potential import Block, ForceField, host_library

CONSERVATIVE = {"kind": "conservative", "symmetry": "full"}
BISPECTRUM = {**CONSERVATIVE, "descriptor": "bispectrum", "time_reversal": "even", "hidden": (16, 16)}
LAYERS = {**CONSERVATIVE, "layers": (1, 1), "channels": 3, "radius": 1.5}
NAMES = ["bispectrum", "layers"]
every_kind = pytest.mark.parametrize("changes", [BISPECTRUM, LAYERS], ids=NAMES)
both_lattices = pytest.mark.parametrize("kind", ["square", "triangular"])
BIAS = torch.zeros(1, dtype=torch.float64)


def field(model: ForceField, lattice: Lattice, spins: Tensor) -> Tensor:
    found: Tensor = model(spins, model.neighbourhood(lattice), BIAS.expand(len(spins))).field
    return found


@both_lattices
@every_kind
@pytest.mark.parametrize("size", [(7, 6), (4, 3)], ids=["wide", "shorter than the neighbourhood"])
def test_the_field_is_the_derivative_of_the_energy(kind: str, changes: dict[str, Any], size: tuple[int, int]) -> None:
    """By central differences along every component of every spin."""
    lattice, step = make_lattice(kind, size, (True, True)), 1e-5
    model, spins = make_model(lattice=kind, **changes), random_spins(1, lattice.num_sites, 1)
    moves = step * torch.eye(spins.numel(), dtype=torch.float64).reshape(-1, *spins.shape[1:])
    table, bias = model.neighbourhood(lattice), BIAS.expand(len(moves))
    slopes = (model(spins + moves, table, bias).energy - model(spins - moves, table, bias).energy) / (2 * step)
    found = field(model, lattice, spins)
    torch.testing.assert_close(found.flatten(), -slopes, rtol=0, atol=1e-8)
    assert found.norm(dim=-1).min() > 1e-4


@both_lattices
@every_kind
def test_fields_and_energies_follow_the_space_group_and_rotations_of_all_spins(
    kind: str, changes: dict[str, Any]
) -> None:
    lattice = make_lattice(kind, (6, 6), (True, True))
    model, spins = make_model(lattice=kind, **changes), random_spins(1, 36, 2)
    table, turn = model.neighbourhood(lattice), rotation(3)
    still = model(spins, table, BIAS)
    shifts = [np.roll(np.arange(36).reshape(6, 6), shift, (0, 1)).ravel() for shift in ((1, 0), (0, 2), (3, -1))]
    for image in [*(site_permutation(lattice, operation) for operation in lattice.point_group), *shifts]:
        moved, expected = torch.empty_like(spins), torch.empty_like(spins)
        moved[:, image], expected[:, image] = spins @ turn.T, still.field @ turn.T
        found = model(moved, table, BIAS)
        torch.testing.assert_close(found.field, expected, rtol=0, atol=1e-11)
        torch.testing.assert_close(found.energy, still.energy, rtol=0, atol=1e-11)


@both_lattices
def test_spins_that_all_turn_back_turn_the_field_of_even_features_back(kind: str) -> None:
    lattice = make_lattice(kind, (6, 5), (True, True))
    model, spins = make_model(lattice=kind, **BISPECTRUM), random_spins(1, 30, 4)
    assert torch.equal(field(model, lattice, -spins), -field(model, lattice, spins))


@pytest.mark.skipif(host_library.library(torch.float32) is None, reason="there is no C compiler, or it fails")
@both_lattices
@pytest.mark.parametrize("size", [(9, 8), (4, 3)], ids=["wide", "shorter than the neighbourhood"])
def test_kernels_in_c_have_the_fields_and_energies_of_double_precision(kind: str, size: tuple[int, int]) -> None:
    lattice = make_lattice(kind, size, (True, True))
    quick = make_model(lattice=kind, **LAYERS, precision="float32")
    exact = make_model(lattice=kind, **LAYERS)
    exact.load_state_dict(quick.state_dict())
    spins = random_spins(2, lattice.num_sites, 5)
    one, other = (model(spins, model.neighbourhood(lattice), BIAS.expand(2)) for model in (quick, exact))
    assert (one.field - other.field).abs().max() < 2e-5 * other.field.square().mean().sqrt()
    torch.testing.assert_close(one.energy.double(), other.energy, rtol=0, atol=1e-5 * lattice.num_sites**0.5)


@both_lattices
@every_kind
@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("cut", [(2, 1), (1, 2), (2, 2)], ids=str)
def test_blocks_have_the_bits_of_the_whole_lattice(
    kind: str, changes: dict[str, Any], precision: str, cut: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every block of a cut, with the terms that blocks send each other where the force field asks for them."""
    size = (19, 18)
    lattice, ranks = make_lattice(kind, size, (True, True)), cut[0] * cut[1]
    model, grid = make_model(lattice=kind, **changes, precision=precision), random_spins(1, 342, 6).reshape(*size, 3)
    expected = field(model, lattice, grid.reshape(1, -1, 3)).reshape(*size, 3)
    monkeypatch.setattr(MessagesInProcess, "sent", {})
    # What a block lacks in the first round, others have sent before the second.
    for last in (False, True):
        for rank in range(ranks):
            domain = Domain(lattice, World(rank=rank, size=ranks), cut)
            window = model.window(Block(domain.shape, (cut[0] == 1, cut[1] == 1), lattice.periodic))
            around = domain.window(grid, model.halo).reshape(1, -1, 3)
            if window.borders:
                window.exchange = MessagesInProcess(domain, window.borders.shapes, torch.empty(0, dtype=model.dtype))
            interior = model.interior(around, window, BIAS)
            found = model(around, window, BIAS, interior).field.reshape(*domain.shape, 3)
            if last:
                assert torch.equal(found, expected[domain.slices])
