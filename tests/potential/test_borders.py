"""Terms that cross the sides of blocks: with them a cut lattice has the bits of the whole one."""

from __future__ import annotations

import pytest
import torch
from force_fields import make_model, random_spins
from messages_in_process import MessagesInProcess

from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice
from hpcspin.parallel.domain import Domain
from hpcspin.parallel.world import World
from hpcspin.potential import Block, ForceField, PotentialField

OPEN, CLOSED = (False, True), (True, True)
CUTS = [
    pytest.param("square", (13, 9), OPEN, (3, 2), id="uneven, corners, an open edge"),
    pytest.param("square", (13, 9), (False, False), (2, 3), id="open on all sides"),
    pytest.param("square", (6, 12), OPEN, (3, 1), id="as thin as the reach"),
    pytest.param("square", (12, 5), CLOSED, (1, 2), id="neighbours on both sides"),
    pytest.param("square", (3, 12), CLOSED, (1, 3), id="spanning a period shorter than the neighbourhood"),
    pytest.param("triangular", (9, 13), CLOSED, (2, 2), id="triangular"),
    pytest.param("triangular", (9, 13), OPEN, (3, 3), id="triangular, corners"),
]


def blocks_of(model: ForceField, kind: str, size: tuple[int, int], periodic: tuple[bool, bool], cut: tuple[int, int]):
    lattice, ranks = make_lattice(kind, size, periodic), cut[0] * cut[1]
    for rank in range(ranks):
        domain = Domain(lattice, World(rank=rank, size=ranks), cut)
        columns = (domain.slices[0].start, size[0])
        yield domain, model.window(Block(domain.shape, (cut[0] == 1, cut[1] == 1), periodic, columns))


@pytest.mark.parametrize(("lattice", "size", "periodic", "cut"), CUTS)
@pytest.mark.parametrize("kind", ["pair", "conservative"])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_blocks_that_exchange_terms_have_the_bits_of_the_whole_lattice(
    monkeypatch, lattice, size, periodic, cut, kind, precision
):
    monkeypatch.setattr(MessagesInProcess, "sent", {})
    model = make_model(kind=kind, lattice=lattice, precision=precision, descriptor="densities", hidden=(16, 16))
    spins, bias = random_spins(1, size[0] * size[1], 12), torch.tensor([1.3], dtype=torch.float64)
    expected = model(spins, model.neighbourhood(make_lattice(lattice, size, periodic)), bias).field.reshape(*size, 3)
    grid = spins.reshape(*size, 3)
    for everything_there in (False, True):
        for domain, window in blocks_of(model, lattice, size, periodic, cut):
            around = domain.window(grid, model.halo).reshape(1, -1, 3)
            window.exchange = MessagesInProcess(domain, window.borders.shapes, torch.empty(0, dtype=model.dtype))
            interior = model.interior(around, window, bias)
            found = model(around, window, bias, interior).field.reshape(*domain.shape, 3)
            # To the first block of the first round nothing has come, and it shows that it needs the others.
            if everything_there or domain.world.rank == 0:
                assert torch.equal(found, expected[domain.slices]) == everything_there


def test_no_term_crosses_that_the_other_block_does_not_need():
    """Of a straight side, each slot sends as many columns as it reaches beyond it; a corner its rectangle."""
    model = make_model(kind="pair", radius=2.3)
    window = model.window(Block((10, 7), (False, False), (True, True)))
    x, y = model.offsets.T
    terms = {side: count for side, (count, _) in window.borders.shapes.items()}
    assert terms[1, 0] == sum(dx * (7 - abs(dy)) for dx, dy in zip(x, y, strict=True) if dx > 0)
    assert terms[0, -1] == sum(-dy * (10 - abs(dx)) for dx, dy in zip(x, y, strict=True) if dy < 0)
    assert terms[-1, 1] == sum(-dx * dy for dx, dy in zip(x, y, strict=True) if dx < 0 < dy)
    assert len(window.borders.shapes) == 8


def test_a_window_without_an_exchange_needs_a_wider_halo():
    model = make_model(kind="pair")
    window = model.window(Block((5, 6), (False, True), OPEN))
    with pytest.raises(HpcspinError, match=r"halo is too narrow.*give it 4 x 4 or an exchange with the other blocks"):
        model(random_spins(1, window.rows, 1), window, torch.ones(1))


def test_centres_that_act_on_their_own_spin_alone_exchange_nothing():
    model = make_model(kind="site")
    assert isinstance(model, PotentialField)
    assert model.window(Block((5, 6), (False, True), OPEN)).borders is None
