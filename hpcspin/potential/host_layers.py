"""Layers in single precision on a CPU, by a kernel in C.

PyTorch makes of a layer some seventy operations, each of which writes to memory what the
next one reads; the kernel takes a dozen centres through all of it in the first cache.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hpcspin.potential.host_library import loaded, pointer, share_out

if TYPE_CHECKING:
    from hpcspin.potential.layers import Layer

Floats = NDArray[np.float32]

EMPTY = 12
"""Empty centres that must follow the last one."""


class Known(NamedTuple):
    """Vectors (rows + 1, 3, vectors), the spin first, and scalars (rows + 1, scalars); zeros in the last row."""

    vectors: Floats
    scalars: Floats


class _Matrix(ctypes.Structure):
    _fields_ = (
        ("numbers", ctypes.c_void_p),
        ("from_", ctypes.c_void_p),
        ("to", ctypes.c_void_p),
        ("at", ctypes.c_void_p),
        ("pairs", ctypes.c_int32),
    )


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int32) for name in ("slots", "vectors", "scalars", "own_scalars")),
        *((name, ctypes.c_int32) for name in ("densities", "groups", "trivial", "products", "sums")),
        *((name, ctypes.c_int32) for name in ("made_vectors", "made_scalars", "inputs", "hidden_layers")),
        *((name, ctypes.c_void_p) for name in ("feature_of", "kernels", "scalar_kernels")),
        ("mixtures", _Matrix),
        ("network", ctypes.c_void_p),
        ("biases", ctypes.c_void_p),
        *((name, ctypes.c_int32) for name in ("features", "widest", "padded_scalars", "product_features")),
    )


def _lanes() -> int:
    """Numbers of a vector of the processor that the kernel was compiled for."""
    return int(loaded().hpcspin_lanes())


class _Places(NamedTuple):
    """Where each part of the features lies, padded to whole vectors.

    Attributes
    ----------
    order : ndarray
        Place of each input of the network, in its own order.
    feature_of : ndarray
        Of each row of each irrep, where its products are added, counted from the first ones.
    trivial, products, product_features, scalars : int
        Length of the part of S·A, of the products of a row, of all products of a kind, of the sums of scalars.
    """

    order: NDArray[np.int64]
    feature_of: NDArray[np.int32]
    trivial: int
    products: int
    product_features: int
    scalars: int


class HostLayer:
    """A layer's weights as the kernel reads them.

    Parameters
    ----------
    layer
        The layer, in single precision.
    """

    @torch.no_grad()
    def __init__(self, layer: Layer) -> None:
        self._kept: list[Any] = []
        self._writes = layer.writes
        maps, places = layer.maps(), _places(layer)
        kernels, sums = _kernels(maps.kernels, layer.reads.vectors), _padded(layer.writes.vectors, _lanes())
        matrices, biases = _network(layer, places.order, sums)
        networks = (_Matrix * len(matrices))(*map(self._matrix, matrices))
        pointers = (ctypes.c_void_p * len(biases))(*map(self._keep, biases))
        self._kept += [networks, pointers]
        self._struct = _Layer(
            slots=len(kernels),
            vectors=layer.reads.vectors,
            scalars=layer.reads.scalars or 1,  # The first layer reads where there are spins.
            own_scalars=bool(layer.reads.scalars),
            densities=kernels.shape[2],
            groups=sum(layer.dimensions),
            trivial=places.trivial,
            products=places.products,
            sums=sums,
            made_vectors=layer.writes.vectors,
            made_scalars=layer.writes.scalars,
            inputs=_inputs(layer),
            hidden_layers=len(biases),
            feature_of=self._keep(places.feature_of),
            kernels=self._keep(kernels),
            scalar_kernels=self._keep(_wide(_array(maps.scalars), places.scalars)),
            mixtures=self._matrix(_mixtures(_array(maps.mixtures), layer, places.products, sums, kernels.shape[2])),
            network=ctypes.addressof(networks),
            biases=ctypes.addressof(pointers),
            features=len(matrices[0]),
            widest=max(matrix.shape[1] for matrix in matrices),
            padded_scalars=places.scalars,
            product_features=places.product_features,
        )

    def __call__(
        self, known: Known, table: NDArray[np.int32], inputs: Floats, centres: int, adds: bool, threads: int
    ) -> Known:
        """What is known after the layer of all rows, zero where there is no centre.

        Parameters
        ----------
        known
            Before the layer; of the first one the scalars say where a spin is.
        table
            Rows in the slots of all centres and of `EMPTY` ones after them, shape (centres + EMPTY, slots).
        inputs
            The network's other inputs, shape (centres, inputs).
        centres
            How many of them, the first ones.
        adds
            Whether to what is known already.
        threads
            Most threads.
        """
        kernel, rows = loaded(), len(known.vectors)
        made = Known(
            np.zeros((rows, 3, 1 + self._writes.vectors), np.float32),
            np.zeros((rows, self._writes.scalars), np.float32),
        )
        made.vectors[:, :, 0] = known.vectors[:, :, 0]
        arrays = (known.vectors, known.scalars, table, inputs)

        def work(first: int, last: int) -> None:
            scratch = np.empty(kernel.hpcspin_layer_scratch(ctypes.byref(self._struct)), np.float32)
            kernel.hpcspin_layer(
                ctypes.byref(self._struct),
                *(pointer(array) for array in arrays),
                ctypes.c_int64(first),
                ctypes.c_int64(last),
                ctypes.c_int32(adds),
                *(pointer(array) for array in (*made, scratch)),
            )

        share_out(work, centres, threads)
        return made

    def _keep(self, array: NDArray[Any]) -> int:
        array = np.ascontiguousarray(array)
        self._kept.append(array)
        return array.ctypes.data

    def _matrix(self, matrix: Floats) -> _Matrix:
        """A matrix in pairs of vectors of columns, each between the rows where it is not zero."""
        numbers, ranges, at = [], [], [0]
        for columns in np.split(matrix, matrix.shape[1] // (2 * _lanes()), axis=1):
            filled = np.flatnonzero(columns.any(1))
            first, last = (int(filled[0]), int(filled[-1]) + 1) if len(filled) else (0, 0)
            numbers.append(columns[first:last].ravel())
            ranges.append((first, last))
            at.append(at[-1] + numbers[-1].size)
        first_rows, last_rows = (np.array(column, np.int32) for column in zip(*ranges, strict=True))
        return _Matrix(
            self._keep(np.concatenate(numbers)),
            self._keep(first_rows),
            self._keep(last_rows),
            self._keep(np.array(at[:-1], np.int32)),
            len(ranges),
        )


def _places(layer: Layer) -> _Places:
    shares = [rows // dimension for rows, dimension in zip(layer.rows, layer.dimensions, strict=True)]
    starts = np.cumsum([0, *(_padded(share, _lanes()) for share in shares)])
    products = _padded(max(shares), _lanes())
    # Products of a narrow irrep are followed by zeros up to the widest one's, which need room after the last one.
    product_features = int(starts[-2]) + products
    trivial = _padded(layer.trivial, _lanes())
    rest = trivial + 2 * product_features
    sums = layer.reads.scalars or layer.presence_counts.shape[1]
    scalars = _padded(sums, _lanes())
    parts = [
        1 + np.arange(layer.trivial - 1),
        *(
            trivial + kind * product_features + start + np.arange(share)
            for kind in (0, 1)
            for start, share in zip(starts, shares, strict=False)
        ),
        rest + np.arange(sums),
        rest + scalars + np.arange(layer.reads.scalars + _inputs(layer)),
    ]
    feature_of = np.repeat(starts[:-1], layer.dimensions).astype(np.int32)
    return _Places(np.concatenate(parts), feature_of, trivial, products, product_features, scalars)


def _kernels(kernels: Tensor, vectors: int) -> Floats:
    """Kernels of the densities, shape (slots, vectors, 1 + densities and zeros), the first of which is the spin."""
    given = _array(kernels).reshape(-1, vectors, kernels.shape[1])
    packed = np.zeros((*given.shape[:2], _padded(1 + given.shape[2], 2 * _lanes())), np.float32)
    packed[:, :, 1 : 1 + given.shape[2]] = given
    packed[0, 0, 0] = 1
    return packed


def _mixtures(maps: Floats, layer: Layer, products: int, sums: int, densities: int) -> Floats:
    """P, Q, P', Q' of each row of each irrep, and then both sums of densities: padded columns, padded rows."""
    *sides, vectors = np.split(maps, sum(layer.rows) * np.arange(1, 5), axis=1)
    starts = np.cumsum([0, *layer.rows])
    parts = [
        _wide(side[:, start + row : start + count : dimension], products)
        for start, count, dimension in zip(starts, layer.rows, layer.dimensions, strict=False)
        for row in range(dimension)
        for side in sides
    ]
    parts += [_wide(part, sums) for part in np.split(vectors, 2, axis=1)]
    joined = np.concatenate(parts, axis=1)
    return np.pad(_wide(joined, _padded(joined.shape[1], 2 * _lanes())), ((0, densities - len(joined)), (0, 0)))


def _network(layer: Layer, order: NDArray[np.int64], sums: int) -> tuple[list[Floats], list[Floats]]:
    """Padded matrices and biases of the network's layers, the normalisation of the features in the first of them."""
    linears = [linear for linear in layer.network.layers if isinstance(linear, nn.Linear)]
    weights = [_array(linear.weight).T for linear in linears]
    biases = [_array(linear.bias) for linear in linears[:-1]]
    mean, scale = _array(layer.network.mean), _array(layer.network.scale)
    scaled = weights[0].copy()
    scaled[: len(mean)] *= scale[:, None]
    # In double precision: the mean is not subtracted from each feature, as elsewhere.
    biases[0] = (biases[0] - mean.astype(np.float64) @ scaled[: len(mean)]).astype(np.float32)
    first = np.zeros((_padded(int(order.max()) + 1, _lanes()), scaled.shape[1]), np.float32)
    first[order] = scaled
    straight, turned, told = np.split(weights[-1], layer.writes.vectors * np.arange(1, 3), axis=1)
    weights = [first, *weights[1:-1], np.concatenate([_wide(straight, sums), _wide(turned, sums), told], axis=1)]
    widths = [_padded(weight.shape[1], 2 * _lanes()) for weight in weights]
    matrices = [
        np.pad(_wide(weight, width), ((0, before - len(weight)), (0, 0)))
        for weight, width, before in zip(weights, widths, [len(first), *widths], strict=False)
    ]
    return matrices, [_wide(bias[None], width)[0] for bias, width in zip(biases, widths, strict=False)]


def _inputs(layer: Layer) -> int:
    """Number of the network's inputs that no spin decides."""
    first = layer.network.layers[0]
    assert isinstance(first, nn.Linear)
    return first.in_features - len(layer.network.mean)


def _padded(number: int, to: int) -> int:
    return -(-number // to) * to


def _wide(matrix: Floats, width: int) -> Floats:
    return np.pad(matrix, ((0, 0), (0, width - matrix.shape[1])))


def _array(tensor: Tensor) -> Floats:
    return tensor.detach().numpy()
