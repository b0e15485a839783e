"""A learned field computes the interior of a block before the halo is there, and not a bit changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from messages_in_process import MessagesInProcess

from hpcspin.assembly import learned
from hpcspin.assembly.learned import LearnedField
from hpcspin.dynamics.fields import Overlapped
from hpcspin.lattice import make_lattice
from hpcspin.parallel.domain import Domain
from hpcspin.parallel.world import World
from hpcspin.potential import Architecture, Committee, ForceField, make_force_field
from hpcspin.potential.tiles import GROUP, TILE

LATTICE = make_lattice("square", (20, 24), (False, True))
CASES: dict[str, dict[str, Any]] = {
    "pair": {"kind": "pair", "descriptor": "densities"},
    "conservative": {"kind": "conservative", "descriptor": "densities", "precision": "float64"},
    "site": {"kind": "site", "descriptor": "bonds"},
    "direct": {"kind": "direct"},
    "electrodes": {"kind": "pair", "descriptor": "densities", "electrode_range": 3.0},
    "layers": {"kind": "direct", "layers": (1, 3)},
}


def make_model(seed: int, **settings: Any) -> ForceField:
    torch.manual_seed(seed)
    model = make_force_field(Architecture("square", 2.0, (16, 16), **settings))
    for network in model.networks:
        features = network.mean.shape
        network.normalise(0.3 * torch.randn(features), 0.1 + torch.rand(features))
    return model.eval()


def field_of(case: str) -> LearnedField:
    if case == "committee":
        return LearnedField(Committee([make_model(seed, kind="pair") for seed in (1, 2)]).eval(), 1.3)
    return LearnedField(make_model(1, **CASES[case]), 1.3)


@pytest.mark.parametrize("case", [*CASES, "committee"])
@pytest.mark.parametrize("blocks", [(2, 2), (1, 2)])
def test_the_interior_reads_no_halo_and_the_rest_changes_no_bit(
    case: str, blocks: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TILE, "cpu", 32)
    monkeypatch.setattr(learned, "NeighbourMessages", MessagesInProcess)
    monkeypatch.setattr(MessagesInProcess, "sent", {})
    torch.manual_seed(3)
    spins = torch.nn.functional.normalize(torch.randn((*LATTICE.size, 3), dtype=torch.float64), dim=-1)
    field = field_of(case)
    alone = Domain(LATTICE, World(), (1, 1))
    expected = field.bind(alone)(alone.window(spins, field.halo), 0.0)
    ranks = blocks[0] * blocks[1]
    for known in (False, True):  # what other blocks have sent
        for rank in range(ranks):
            domain = Domain(LATTICE, World(rank=rank, size=ranks), blocks)
            bound = field.bind(domain)
            assert isinstance(bound, Overlapped)
            complete = domain.window(spins, field.halo)
            inside = tuple(slice(width, width + length) for width, length in zip(field.halo, domain.shape, strict=True))
            under_way = torch.full_like(complete, torch.nan)
            under_way[inside] = complete[inside]
            bound.compute_interior(under_way, 0.0)
            found = bound(complete, 0.0)
            assert not known or torch.equal(found, expected[domain.slices])
    assert torch.equal(bound(complete, 0.0), expected[domain.slices])  # Nothing is kept from one call to the next.


@pytest.mark.parametrize(("case", "together", "share"), [("pair", 1, 2), ("pair", 8, 1), ("site", 1, 1)])
def test_the_inside_of_a_block_goes_ahead(
    case: str, together: int, share: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All centres but those within one reach of a cut edge, in whole tiles; half of them if terms are to travel.

    Of a block too small for two groups of tiles all of them: smaller groups would cost more than the wait.
    """
    monkeypatch.setitem(TILE, "cpu", 32)
    monkeypatch.setitem(GROUP, "cpu", together)
    monkeypatch.setattr(learned, "NeighbourMessages", MessagesInProcess)
    field, model = field_of(case), make_model(1, **CASES[case])
    domain = Domain(LATTICE, World(rank=1, size=2), (2, 1))
    spins = torch.ones((1, (10 + 2 * field.halo[0]) * (24 + 2 * field.halo[1]), 3))
    bound = field.bind(domain)
    interior = model.interior(spins, bound._table, torch.ones(1))
    inner = (10 - 2 * model.reach) * 24
    assert sum(local.shape[-1] for local, _ in interior) == inner // TILE["cpu"] // share * TILE["cpu"] > 0
