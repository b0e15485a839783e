"""Weights of a site times basis functions of the symmetry are the kernels of a layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from force_fields import make_model

from hpcspin.potential.host_copies import MatrixColumns, copies_of_scalars, copies_of_vectors
from hpcspin.potential.layers import Layer


def second_layer(**changes: Any) -> Layer:
    model = make_model(kind="conservative", layers=(1, 1), channels=12, **changes)
    layer = model.layers[1]  # type: ignore[index]
    assert isinstance(layer, Layer)
    return layer


# Orbits of 4, 6, 8 and 12 neighbours; in those of 8 and 12 the two-dimensional irreps occur twice.
@pytest.mark.parametrize("lanes", [4, 16])
@pytest.mark.parametrize(
    ("lattice", "radius"), [("square", 1.5), ("square", 2.3), ("triangular", 2.3), ("triangular", 2.7)]
)
def test_their_product_is_the_kernels(lattice: str, radius: float, lanes: int) -> None:
    layer = second_layer(lattice=lattice, radius=radius, symmetry="full")
    columns = MatrixColumns.of_layer(layer, lanes)
    copies = copies_of_vectors(layer, columns)
    assert copies is not None
    apart = columns.first - columns.doubles
    kernels = np.zeros((layer.basis0.shape[-1], layer.reads.vectors, columns.total))
    start = 0
    for number, slots in enumerate(copies.slots):
        both = np.concatenate([copies.weights[:, number], copies.weights[:, number, columns.doubles :]], 1)
        kernels[slots] += copies.basis[start : (start := start + len(slots)), None] * both
    assert columns.total == columns.first + apart
    assert columns.first % lanes == columns.doubles % lanes == 0
    expected = layer.maps().kernels.detach().numpy().reshape(len(kernels), layer.reads.vectors, -1)
    np.testing.assert_allclose(kernels[:, :, columns.places[1:]], expected, rtol=0, atol=1e-14)
    spin = np.zeros(kernels.shape[:2])
    spin[0, 0] = 1
    np.testing.assert_array_equal(kernels[:, :, 0], spin)
    unused = np.setdiff1d(np.arange(columns.total), columns.places)
    assert not kernels[:, :, unused].any()


def test_sums_of_scalars_have_them_too() -> None:
    layer = second_layer(lattice="triangular", radius=2.3, symmetry="full")
    copies = copies_of_scalars(layer, 32)
    assert copies is not None
    expected = layer.maps().scalars.detach().numpy().reshape(19, layer.reads.scalars, -1)
    kernels, start = np.zeros((19, layer.reads.scalars, 32)), 0
    for number, slots in enumerate(copies.slots):
        kernels[slots] += copies.basis[start : (start := start + len(slots)), None] * copies.weights[:, number]
    np.testing.assert_allclose(kernels[:, :, : expected.shape[2]], expected, rtol=0, atol=1e-14)


def test_under_a_voltage_they_would_save_nothing() -> None:
    """With the mirror alone, nearly every pair of neighbours is an orbit of its own."""
    layer = second_layer(lattice="square", radius=2.3, symmetry="bias")
    assert copies_of_vectors(layer, MatrixColumns.of_layer(layer, 16)) is None
    assert copies_of_scalars(layer, 16) is None
