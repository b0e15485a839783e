"""Static gathers and segment sums: right to second order, on both backends."""

from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcspin.errors import HpcspinError
from hpcspin.potential import gather as gathers
from hpcspin.potential import segment_backend
from hpcspin.potential.gather import BACKENDS, SlotGather, StaticGather, slot_inverse, with_zero
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


def segments(lengths, backend):
    """Sums over contiguous segments of these lengths."""
    with patch.object(gathers, "segment_backend", lambda: backend):
        return StaticGather(np.repeat(np.arange(len(lengths)), lengths), len(lengths)).adjoint


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@backends
@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_segments_are_sums_of_slices(backend, seed):
    lengths = ragged(seed)
    x = draw(int(lengths.sum()), 5, seed=seed)
    expected = torch.stack([part.sum(0) for part in x.split(lengths.tolist())])
    torch.testing.assert_close(segments(lengths, backend)(x), expected)


@backends
def test_segments_are_differentiable_twice(backend):
    lengths = ragged(3)
    total, x = segments(lengths, backend), draw(int(lengths.sum()), 2).requires_grad_()
    function = lambda x: total(x * x) ** 2  # noqa: E731
    assert torch.autograd.gradcheck(function, x)
    assert torch.autograd.gradgradcheck(function, x)


@pytest.mark.skipif(segment_backend() != BACKENDS[0], reason="torch-scatter is not installed")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_backends_have_the_same_bits(dtype):
    lengths = np.array([1, 2, 2, 1, 2])
    x = draw(8, 7).to(dtype)
    one, other = (segments(lengths, backend)(x) for backend in BACKENDS)
    assert torch.equal(one, other)


def test_without_segments_there_is_nothing_to_sum():
    for backend in BACKENDS[1:] if segment_backend() != BACKENDS[0] else BACKENDS:
        assert segments(np.array([], dtype=np.int64), backend)(torch.empty(0, 4)).shape == (0, 4)


def table(seed):
    """Translations of a ring with a gap, as a neighbour table."""
    rng = np.random.default_rng(seed)
    columns = [(np.arange(6) + step) % 6 for step in (0, 1, 3)]
    result = np.stack(columns, -1)
    result[rng.integers(0, 6), rng.integers(0, 3)] = -1
    return result


def rows_in_slots(neighbours):
    """A table as a gather takes it: by slot, 6 for what is missing, an empty centre after all."""
    by_slot = np.pad(np.where(neighbours >= 0, neighbours, 6).T, ((0, 0), (0, 1)), constant_values=6)
    return torch.from_numpy(by_slot).to(torch.int32)


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_sums_over_slots_are_the_adjoint_of_the_gather(seed):
    neighbours = table(seed)
    gather = SlotGather(rows_in_slots(neighbours), 6)
    x, y = draw(6, 3, seed=seed), draw(3, 3, 7, seed=seed + 1)
    y[..., -1] = 0
    gathered = gather.gather(with_zero(x))
    torch.testing.assert_close((gathered * y).sum(), (x * gather.adjoint(y)).sum())
    for centre, slot in np.ndindex(neighbours.shape):
        row = neighbours[centre, slot]
        assert torch.equal(gathered[slot, :, centre], x[row] if row >= 0 else torch.zeros(3, dtype=torch.float64))
    assert torch.equal(gather.gather(with_zero(x), slice(2, 5)), gathered[..., 2:5])


@pytest.mark.parametrize("at_once", [1, 4, 6])
def test_sums_over_slots_do_not_depend_on_how_many_spins_are_taken_at_once(at_once, monkeypatch):
    gather, y = SlotGather(rows_in_slots(table(4)), 6), draw(3, 2, 7)
    expected = gather.adjoint(y)
    monkeypatch.setitem(gathers._AT_ONCE, "cpu", at_once)
    assert torch.equal(gather.adjoint(y), expected)


def test_gathers_are_differentiable_twice():
    neighbours = table(5)
    static = StaticGather(neighbours[neighbours >= 0], 6)
    by_slot = SlotGather(rows_in_slots(neighbours), 6)
    for function, x in (
        (lambda x: static(x * x) ** 2, draw(6, 6)),
        (lambda x: by_slot.adjoint(torch.nn.functional.pad(x * x, (0, 1))) ** 2, draw(3, 2, 6)),
    ):
        assert torch.autograd.gradcheck(function, x.requires_grad_())
        assert torch.autograd.gradgradcheck(function, x)


def test_a_row_that_stands_twice_in_a_slot_is_refused():
    with pytest.raises(HpcspinError, match="neighbour 0 of two centres"):
        slot_inverse(torch.tensor([[1, 1], [0, 2]], dtype=torch.int32), 3)


def test_tiled_products_are_products():
    matrix, x = draw(4, 300), draw(300, 3, 14)
    torch.testing.assert_close(product(matrix, x, 7), torch.einsum("mk,kcn->mcn", matrix, x))
