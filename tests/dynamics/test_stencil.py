"""Sums over neighbours, in pieces that fit a cache, against dense algebra."""

import pytest
import torch

from hpcspin.dynamics import classical
from hpcspin.lattice import make_lattice
from hpcspin.parallel.domain import Domain
from hpcspin.parallel.world import World

OFFSETS = {
    "square": [(1, 0), (-1, 0), (0, 1), (0, -1)],
    "third shell": [(2, 0), (-2, 0), (0, 2), (0, -2), (2, -1)],
    "forward difference's sum": [(0, 0), (1, 0)],
}


@pytest.mark.parametrize("cached", [1, 1 << 10, 1 << 19])
@pytest.mark.parametrize("name", OFFSETS)
def test_sum_is_the_lattices_adjacency_matrix_times_the_vectors(monkeypatch, name, cached):
    """Whatever is kept in the cache, down to a row at a time; a last piece that is shorter than the others."""
    monkeypatch.setitem(classical._CACHED, "cpu", cached)
    lattice = make_lattice("square", (11, 6), (False, True))
    vectors = torch.randint(-50, 50, (66, 3), generator=torch.Generator().manual_seed(1)).double()
    neighbours = torch.as_tensor(lattice.shift(OFFSETS[name]))
    adjacency = torch.zeros(66, 67, dtype=torch.float64)
    for slot in range(neighbours.shape[1]):
        adjacency[torch.arange(66), neighbours[:, slot]] += 1
    expected = (0.5 * adjacency[:, :66] @ vectors).reshape(11, 6, 3)
    extended = Domain(lattice, World(), (1, 1)).extend(vectors.reshape(11, 6, 3), (2, 3))
    assert torch.equal(classical.neighbour_sum(extended, (2, 3), OFFSETS[name], 0.5), expected)
