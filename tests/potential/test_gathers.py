"""Static gathers and segment sums: right to second order, on both backends."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcspin.errors import HpcspinError
from hpcspin.potential import segment_backend
from hpcspin.potential.gather import StaticGather, packed_inverse, slot_inverse
from hpcspin.potential.segments import BACKENDS, SegmentSum
from hpcspin.potential.tiles import product

backends = pytest.mark.parametrize(
    "backend",
    [
        pytest.param(
            name,
            marks=pytest.mark.skipif(
                name == BACKENDS[0] and segment_backend() != BACKENDS[0],
                reason="torch-scatter is not installed (pip install 'hpcspin[scatter]', see launch/test.sh)",
            ),
        )
        for name in BACKENDS
    ],
)


def ragged(seed):
    return np.random.default_rng(seed).integers(1, 4, 6)


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@backends
@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_segments_are_sums_of_slices(backend, seed):
    lengths = ragged(seed)
    x = draw(int(lengths.sum()), 5, seed=seed)
    expected = torch.stack([part.sum(0) for part in x.split(lengths.tolist())])
    torch.testing.assert_close(SegmentSum(lengths, backend)(x), expected)


@backends
def test_segments_are_differentiable_twice(backend):
    lengths = ragged(3)
    segments, x = SegmentSum(lengths, backend), draw(int(lengths.sum()), 2).requires_grad_()
    function = lambda x: segments(x * x) ** 2  # noqa: E731
    assert torch.autograd.gradcheck(function, x)
    assert torch.autograd.gradgradcheck(function, x)


@pytest.mark.skipif(segment_backend() != BACKENDS[0], reason="torch-scatter is not installed")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_backends_have_the_same_bits(dtype):
    lengths = np.array([1, 2, 2, 1, 2])
    x = draw(8, 7).to(dtype)
    one, other = (SegmentSum(lengths, backend)(x) for backend in BACKENDS)
    assert torch.equal(one, other)


def test_without_segments_there_is_nothing_to_sum():
    for backend in BACKENDS[1:] if segment_backend() != BACKENDS[0] else BACKENDS:
        assert SegmentSum(np.array([], dtype=np.int64), backend)(torch.empty(0, 4)).shape == (0, 4)


def table(seed):
    """Translations of a ring with a gap, as a neighbour table."""
    rng = np.random.default_rng(seed)
    columns = [(np.arange(6) + step) % 6 for step in (0, 1, 3)]
    result = np.stack(columns, -1)
    result[rng.integers(0, 6), rng.integers(0, 3)] = -1
    return result


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_transpose_of_a_neighbour_gather_is_its_adjoint(seed):
    neighbours = table(seed)
    gather = StaticGather(neighbours.ravel(), slot_inverse(neighbours, 6))
    x, y = draw(6, 3, seed=seed), draw(18, 3, seed=seed + 1)
    torch.testing.assert_close((gather(x) * y).sum(), (x * gather.transpose(y)).sum())
    assert torch.equal(gather(x)[neighbours.ravel() < 0], torch.zeros(1, 3, dtype=torch.float64))


@pytest.mark.parametrize("inverse_of", [slot_inverse, lambda table, length: packed_inverse(table.ravel(), length)])
def test_gathers_are_differentiable_twice(inverse_of):
    neighbours = table(5)
    gather = StaticGather(neighbours.ravel(), inverse_of(neighbours, 6))
    x = draw(6, 6).requires_grad_()
    function = lambda x: gather(x * x) ** 2  # noqa: E731
    assert torch.autograd.gradcheck(function, x)
    assert torch.autograd.gradgradcheck(function, x)


def test_a_row_that_stands_twice_in_a_slot_is_refused():
    with pytest.raises(HpcspinError, match="neighbour 0 of two centres"):
        slot_inverse(np.array([[1, 0], [1, 2]]), 3)


def test_tiled_products_are_products():
    matrix, x = draw(4, 300), draw(300, 3, 14)
    torch.testing.assert_close(product(matrix, x, 7), torch.einsum("mk,kcn->mcn", matrix, x))
