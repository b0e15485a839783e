"""Blocks and halos: every site sees the neighbours it has in the whole lattice."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice
from hpcspin.parallel.domain import Domain, choose_blocks, most_ranks
from hpcspin.parallel.world import World

PERIODIC = list(itertools.product((False, True), repeat=2))


def field_of_numbers(size):
    return torch.as_tensor(np.random.default_rng(0).normal(size=(*size, 3)))


def expected(lattice, whole, rows, columns, halo):
    """The block with its halo, site by site from the lattice's own table of neighbours."""
    flat = torch.cat([whole.reshape(-1, 3), torch.zeros(1, 3, dtype=whole.dtype)])
    corner = rows.start * lattice.size[1] + columns.start
    nx, ny = rows.stop - rows.start, columns.stop - columns.start
    hx, hy = halo
    offsets = list(itertools.product(range(-hx, nx + hx), range(-hy, ny + hy)))
    return flat[lattice.shift(offsets)[corner]].reshape(nx + 2 * hx, ny + 2 * hy, 3)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(3, 7), st.integers(3, 7)),
    st.sampled_from(PERIODIC),
    st.tuples(st.integers(0, 9), st.integers(0, 9)),
    st.integers(1, 6),
    st.integers(0, 5),
)
def test_windows_of_any_cut_show_the_lattice(size, periodic, halo, ranks, rank):
    lattice = make_lattice("triangular", size, periodic)
    whole = field_of_numbers(size)
    try:
        blocks = choose_blocks(size, ranks, (0, 0))
    except HpcspinError:
        return
    domain = Domain(lattice, World(rank=rank % ranks, size=ranks), blocks)
    assert torch.equal(domain.window(whole, halo), expected(lattice, whole, *domain.slices, halo))


@pytest.mark.parametrize("periodic", PERIODIC)
@pytest.mark.parametrize("halo", [(0, 0), (1, 1), (3, 0), (0, 3), (2, 8), (12, 1)])
def test_a_lone_rank_wraps_onto_itself_even_beyond_its_own_width(periodic, halo):
    lattice = make_lattice("square", (5, 3), periodic)
    whole = field_of_numbers((5, 3))
    domain = Domain.cut(lattice, World(), halo)
    assert torch.equal(domain.extend(whole, halo), expected(lattice, whole, *domain.slices, halo))


@settings(max_examples=100, deadline=None)
@given(
    st.tuples(st.integers(3, 40), st.integers(3, 40)),
    st.integers(1, 12),
    st.tuples(st.integers(0, 4), st.integers(0, 4)),
)
def test_blocks_tile_the_lattice_and_none_is_thinner_than_the_halo(size, ranks, halo):
    try:
        blocks = choose_blocks(size, ranks, halo)
    except HpcspinError:
        return
    seen = np.zeros(size, dtype=int)
    for rank in range(ranks):
        domain = Domain(make_lattice("square", size), World(rank=rank, size=ranks), blocks)
        seen[domain.slices] += 1
        assert all(count == 1 or n >= width for count, n, width in zip(blocks, domain.shape, halo, strict=True))
        assert np.array_equal(domain.sites.ravel(), np.arange(seen.size).reshape(size)[domain.slices].ravel())
    assert np.all(seen == 1)


def test_too_many_ranks_are_refused_with_the_number_that_fits():
    with pytest.raises(HpcspinError, match="thinner than the halo of 3 x 3; use at most 6 ranks"):
        choose_blocks((10, 6), 7, (3, 3))
    assert choose_blocks((10, 6), 6, (3, 3)) == (3, 2)
    with pytest.raises(HpcspinError, match="do not divide"):
        Domain(make_lattice("square", (4, 4)), World(size=4), (1, 3))


def test_cuts_exchange_the_fewest_sites():
    assert choose_blocks((30, 24), 2, (1, 1)) == (2, 1)
    assert choose_blocks((24, 30), 2, (1, 1)) == (1, 2)
    assert choose_blocks((64, 64), 9, (1, 1)) == (3, 3)
    assert choose_blocks((30, 24), 2, (2, 1)) == choose_blocks((30, 24), 2, (2, 0)) == (1, 2)
    assert choose_blocks((64, 64), 4, (8, 2)) == (1, 4)


def test_only_the_width_along_an_axis_that_is_cut_counts():
    assert choose_blocks((30, 24), 2, (16, 8)) == (1, 2)
    assert choose_blocks((30, 24), 3, (16, 8)) == (1, 3)
    assert choose_blocks((30, 24), 3, (8, 16)) == (3, 1)
    with pytest.raises(HpcspinError, match="thinner than the halo of 16 x 8; use at most 3 ranks"):
        choose_blocks((30, 24), 4, (16, 8))


EXCHANGE = """
import itertools, sys
import numpy as np
import torch
from hpcspin.lattice import make_lattice
from hpcspin.parallel.domain import Domain
from hpcspin.parallel.world import World

world = World.detect()
assert world.size == int(sys.argv[1])
checked = 0


def cuts(domain):  # blocks and sites along each axis
    return list(zip(domain.blocks, domain.lattice.size))


def least_bytes(domain, halo):  # the distinct foreign sites in my halo
    numbers = torch.arange(1, domain.lattice.num_sites + 1).reshape(*domain.lattice.size, 1)
    seen = np.unique(domain.window(numbers, halo).numpy()) - 1
    return 3 * 8 * len(np.setdiff1d(seen[seen >= 0], domain.sites))


for periodic in itertools.product((False, True), repeat=2):
    lattice = make_lattice("triangular", (9, 7), periodic)
    whole = torch.arange(9 * 7 * 3, dtype=torch.float64).reshape(9, 7, 3) + 1
    for px in range(1, world.size + 1):
        if world.size % px:
            continue
        domain = Domain(lattice, world, (px, world.size // px))
        block = whole[domain.slices]
        # Along an axis that is not cut the halo may be wider than the lattice.
        widths = [(0, 1, 2, 3, 10) if count == 1 else range(1 + min(3, n // count)) for count, n in cuts(domain)]
        for halo in itertools.product(*widths):
            assert torch.equal(domain.extend(block, halo), domain.window(whole, halo)), (periodic, px, halo)
            assert torch.equal(domain.extend(2 * block, halo), 2 * domain.window(whole, halo))
            # Two ranks that meet on both sides send a site twice if both of its images are in the halo.
            thin = any(count == 2 and n // 2 < 2 * width for (count, n), width in zip(cuts(domain), halo))
            exchange = domain.exchange(block, halo)
            received = exchange.messages.received_bytes
            assert received == least_bytes(domain, halo) or thin, (periodic, px, halo)
            assert exchange.travels == (received > 0)
            checked += 1
        assert torch.equal(domain.whole(block), whole)
        joined = domain.gather(block)
        assert (joined is None) == (world.rank > 0)
        assert joined is None or (joined == whole.numpy()).all()
world.barrier()
assert checked >= 100
if world.rank == 0:
    print("all halos agree")
world.finish()
"""


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [3, 4])
def test_exchange_under_mpirun(mpirun, tmp_path, ranks):
    """Two ranks that are neighbours on both sides, ranks that are their own, corners, uneven blocks, no byte twice."""
    script = tmp_path / "exchange.py"
    script.write_text(EXCHANGE)
    result = mpirun(ranks, str(script), str(ranks), timeout=120)
    assert "all halos agree" in result.stdout, result.stderr


@pytest.mark.mpi
def test_exchange_under_torchrun(torchrun, tmp_path):
    script = tmp_path / "exchange.py"
    script.write_text(EXCHANGE)
    result = torchrun(2, str(script), "2", timeout=120)
    assert "all halos agree" in result.stdout, result.stderr


@settings(deadline=None)
@given(size=st.tuples(st.integers(1, 12), st.integers(1, 12)), halo=st.tuples(st.integers(0, 4), st.integers(0, 4)))
def test_most_ranks_fit_and_one_more_does_not(size, halo):
    most = most_ranks(size, halo)
    choose_blocks(size, most, halo)
    for more in range(most + 1, 2 * most + 2):
        with pytest.raises(HpcspinError):
            choose_blocks(size, more, halo)
