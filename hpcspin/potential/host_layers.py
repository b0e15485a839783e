"""Evaluation of layers on a CPU by a kernel in C.

PyTorch evaluates a layer in some seventy operations, each of which writes to memory what the
next one reads; the kernel takes a dozen centres through all of them in the first-level cache.
"""

from __future__ import annotations

import ctypes
import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcspin.potential.host_copies import (
    Copies,
    Floats,
    HostCopies,
    HostMatrix,
    MatrixColumns,
    copies_of_scalars,
    copies_of_vectors,
)
from hpcspin.potential.host_library import loaded, share_out

if TYPE_CHECKING:
    from hpcspin.potential.layers import Layer
    from hpcspin.potential.network import Network

EMPTY = 12
"""Number of empty centres that must follow the last one."""

ROOM = 16
"""Number of rows that must follow the last one, since the kernels read whole vectors of the processor."""

_SHARED = 1.1
"""Time of two strips of one vector over that of one strip of two."""

_PRECISIONS = {np.dtype(np.float32): torch.float32, np.dtype(np.float64): torch.float64}


class RowData(NamedTuple):
    """Vectors (rows + ROOM, 3, vectors), the spin first, and scalars (rows + ROOM, scalars); zeros after the rows.

    A last layer that writes no scalars returns only the sum of its vectors.
    """

    vectors: Tensor
    scalars: Tensor


class HostStruct(ctypes.Structure):
    """The struct ``layer`` of the kernels."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("slots", "vectors", "scalars", "own_scalars")),
        *((name, ctypes.c_int32) for name in ("densities", "scalar_sums")),
        *((name, ctypes.c_int32) for name in ("trivial", "irreps", "products", "scalar_features", "triples")),
        *((name, ctypes.c_void_p) for name in ("shares", "dimensions", "places")),
        *((name, ctypes.c_int32) for name in ("out_vectors", "out_scalars", "inputs", "hidden_layers")),
        *((name, ctypes.c_void_p) for name in ("kernels", "scalar_kernels")),
        ("vector_copies", HostCopies),
        ("scalar_copies", HostCopies),
        ("mixtures", HostMatrix),
        ("network", ctypes.c_void_p),
        ("biases", ctypes.c_void_p),
        *((name, ctypes.c_int32) for name in ("features", "widest")),
    )


@functools.cache
def _lanes(dtype: np.dtype[Any]) -> int:
    """How many numbers of a precision fit in a vector of the processor that the kernel was compiled for."""
    return int(loaded(_PRECISIONS[dtype]).hpcspin_lanes())


class HostLayer:
    """The weights of a layer, in their precision, in the layout of the kernel."""

    @torch.no_grad()
    def __init__(self, layer: Layer) -> None:
        self._kept: list[Any] = []
        self._writes = layer.writes
        maps = layer.maps()
        self._dtype, self._kernel = maps.kernels.dtype, loaded(maps.kernels.dtype)
        matrices, biases = host_network(layer)
        lanes = _lanes(matrices[0].dtype)
        self._columns = columns = MatrixColumns.of_layer(layer, lanes)
        kernels, scalars = host_kernels(layer, maps.kernels, columns), wide(_array(maps.scalars))
        shares = products_of(layer)
        triples = 0 if is_even(layer) else sum(shares)
        self._mixed = _mixtures(_array(maps.mixtures), layer, columns)
        networks = (HostMatrix * len(matrices))(*map(self._matrix, matrices))
        pointers = (ctypes.c_void_p * len(biases))(*map(self._keep, biases))
        self._kept += [networks, pointers]
        self._struct = HostStruct(
            slots=len(kernels),
            vectors=layer.reads.vectors,
            scalars=layer.reads.scalars or 1,  # The first layer reads where spins are.
            own_scalars=bool(layer.reads.scalars),
            densities=kernels.shape[2],
            scalar_sums=scalars.shape[1],
            trivial=layer.trivial - 1,
            irreps=len(shares),
            products=sum(shares),
            scalar_features=maps.scalars.shape[1],
            triples=triples,
            shares=self._keep(np.array(shares, np.int32)),
            dimensions=self._keep(np.array(layer.dimensions, np.int32)),
            places=self._keep(places_of_mixtures(layer)),
            out_vectors=layer.writes.vectors,
            out_scalars=layer.writes.scalars,
            inputs=len(matrices[0]) + sum(shares) - triples - len(layer.network.mean),
            hidden_layers=len(biases),
            kernels=self._keep(kernels),
            scalar_kernels=self._keep(scalars),
            mixtures=self._matrix(self._mixed),
            network=ctypes.addressof(networks),
            biases=ctypes.addressof(pointers),
            features=len(matrices[0]) + lanes,
            widest=max(matrix.shape[1] for matrix in matrices) + lanes,
        )
        self._copies = copies_of_vectors(layer, columns), copies_of_scalars(layer, scalars.shape[1])
        for struct, copies in zip(copies_in(self._struct), self._copies, strict=True):
            if copies is not None:
                self._keep_copies(struct, copies, copies.weights.reshape(len(copies.weights), -1))
        self._address = ctypes.addressof(self._struct)
        self._scratch = int(self._kernel.hpcspin_layer_scratch(self._address))

    def __call__(
        self, data: RowData, table: Tensor, inputs: Tensor, centres: int, adds: bool, kept: Tensor | None = None
    ) -> RowData:
        """Output of the layer for all rows, zero where there is no centre.

        ``table`` has the rows in the slots of all centres and of `EMPTY` ones after them, int32, shape (centres +
        EMPTY, slots), and ``inputs`` the network's other inputs, shape (centres, inputs). ``adds`` says whether the
        layer adds its output to its input; ``kept`` receives the intermediate results that `HostAdjoint.back` reads.
        """
        rows, (vectors, scalars) = len(data.vectors), self._writes
        shapes = (rows, 3, 1 + vectors if scalars else 1), (rows, scalars)
        output = RowData(*(torch.zeros(shape, dtype=self._dtype) for shape in shapes))
        projections = self.projections(data)
        reads = [part.data_ptr() for part in (*data, *projections, table, inputs)]
        writes = [part.data_ptr() for part in output]

        def work(first: int, last: int) -> None:
            scratch = torch.empty(self._scratch, dtype=self._dtype)
            self._kernel.hpcspin_layer(
                self._address, *reads, first, last, adds, *writes,
                None if kept is None else kept.data_ptr(), centres + EMPTY, scratch.data_ptr(),
            )  # fmt: skip

        share_out(work, centres)
        return output

    def projections(self, data: RowData) -> RowData:
        """What sums over neighbours read: products with the weights of `Copies`, or vectors and scalars themselves."""
        copies = zip(data, copies_in(self._struct), strict=True)
        return RowData(*(self._projected(part, struct) if struct.count else part for part, struct in copies))

    def _projected(self, part: Tensor, struct: HostCopies) -> Tensor:
        rows, each, length = len(part) - ROOM + 1, part[0].numel() // part.shape[-1], part.shape[-1]
        out = torch.empty((rows + EMPTY) * each, struct.count * struct.columns, dtype=self._dtype)
        reads, writes = (ctypes.addressof(struct), part.data_ptr(), length), out.data_ptr()
        project = self._kernel.hpcspin_project
        share_out(lambda first, last: project(*reads, each * first, each * last, writes), rows)
        return out

    def _keep_copies(self, struct: HostCopies, copies: Copies, weights: Floats) -> None:
        struct.count, struct.columns = copies.weights.shape[1:]
        struct.doubles = 2 * struct.columns - copies.basis.shape[1]
        struct.starts = self._keep(np.cumsum([0, *map(len, copies.slots)], dtype=np.int32))
        struct.members = self._keep(np.concatenate(copies.slots).astype(np.int32))
        struct.basis, struct.weights = self._keep(copies.basis), self._matrix(weights)

    def _keep(self, array: NDArray[Any]) -> int:
        array = np.ascontiguousarray(array)
        self._kept.append(array)
        return array.ctypes.data

    def _matrix(self, matrix: Floats) -> HostMatrix:
        """Store a matrix in strips of one or two vectors of columns, each without outer rows of zeros."""
        lanes = _lanes(matrix.dtype)
        filled = [_filled(columns) for columns in np.split(matrix, range(lanes, matrix.shape[1], lanes), axis=1)]
        numbers, ranges, at, starts = [], [], [0], [0]
        while starts[-1] < len(filled):
            first = starts[-1]
            both = [rows for pair in filled[first : first + 2] for rows in pair]
            joined = min(both), max(both)
            # Two vectors share the loads of what they are multiplied by, which saves a tenth.
            alone = sum(stop - start for start, stop in filled[first : first + 2])
            paired = first + 1 < len(filled) and 2 * (joined[1] - joined[0]) <= _SHARED * alone
            start, stop = joined if paired else filled[first]
            starts.append(first + 1 + paired)
            numbers.append(matrix[start:stop, first * lanes : starts[-1] * lanes].ravel())
            ranges.append((start, stop))
            at.append(at[-1] + numbers[-1].size)
        first_rows, last_rows = (np.array(column, np.int32) for column in zip(*ranges, strict=True))
        return HostMatrix(
            self._keep(np.concatenate(numbers)),
            self._keep(np.array(starts, np.int32)),
            self._keep(first_rows),
            self._keep(last_rows),
            self._keep(np.array(at[:-1], np.int32)),
            len(ranges),
            len(filled),
        )


def _filled(columns: Floats) -> tuple[int, int]:
    """The rows of a matrix between the first and last that are not zero."""
    filled = np.flatnonzero(columns.any(1))
    return (int(filled[0]), int(filled[-1]) + 1) if len(filled) else (0, 0)


def copies_in(struct: HostStruct) -> tuple[HostCopies, HostCopies]:
    """The copies of vectors and of scalars."""
    return struct.vector_copies, struct.scalar_copies


def is_even(layer: Layer) -> bool:
    """Whether the layer's scalars are unchanged under S -> -S; it then has no triple products."""
    return len(layer.mixtures) == 2 * len(layer.dimensions)


def products_of(layer: Layer) -> list[int]:
    """Number of scalar products of mixtures of each irrep, which is also that of triple products."""
    return [rows // dimension for rows, dimension in zip(layer.rows, layer.dimensions, strict=True)]


def host_kernels(layer: Layer, kernels: Tensor, columns: MatrixColumns) -> Floats:
    """Kernels of the densities, the first of which is the spin, shape (slots, vectors, all columns)."""
    by_slot = _array(kernels).reshape(-1, layer.reads.vectors, kernels.shape[1])
    packed = np.zeros((*by_slot.shape[:2], columns.total), by_slot.dtype)
    packed[:, :, columns.places[1:]] = by_slot
    packed[0, 0, 0] = 1
    return packed


def _mixtures(maps: Floats, layer: Layer, columns: MatrixColumns) -> Floats:
    """Both sums of densities, and P, Q and, if not even, P', Q' of the first row of each irrep, then of second rows."""
    *sides, vectors = np.split(maps, sum(layer.rows) * np.arange(1, 5), axis=1)
    starts = np.cumsum([0, *layer.rows])
    parts = [
        side[:, starts[irrep] + row : starts[irrep + 1] : layer.dimensions[irrep]]
        for irrep, row in _rows(layer)
        for side in sides[: 2 if is_even(layer) else 4]
    ]
    joined = np.concatenate([vectors, *parts], axis=1)
    packed = np.zeros((columns.total, joined.shape[1]), joined.dtype)
    packed[columns.places] = joined
    return wide(packed)


def _rows(layer: Layer) -> list[tuple[int, int]]:
    """Irrep and row of the mixtures, in the order of the kernel."""
    return [(n, row) for row in range(2) for n, dimension in enumerate(layer.dimensions) if row < dimension]


def places_of_mixtures(layer: Layer) -> NDArray[np.int32]:
    """First mixture of each row of each irrep, shape (irreps, 2)."""
    shares, place = products_of(layer), 2 * layer.writes.vectors
    places = np.zeros((len(shares), 2), np.int32)
    for irrep, row in _rows(layer):
        places[irrep, row] = place
        place += (2 if is_even(layer) else 4) * shares[irrep]
    return places


def host_network(layer: Layer) -> tuple[list[Floats], list[Floats]]:
    """`folded` network of a layer, padded with zeros to whole vectors, without triple products that vanish."""
    weights, biases = folded(layer.network)
    if is_even(layer):
        first, products = layer.trivial - 1, sum(products_of(layer))
        weights[0] = np.delete(weights[0], slice(first + products, first + 2 * products), 0)
    return [wide(weight) for weight in weights], [wide(bias[None])[0] for bias in biases]


def folded(network: Network) -> tuple[list[Floats], list[Floats]]:
    """Matrices, applied from the right, and biases of the layers; the first include the features' normalisation."""
    weights = [_array(linear.weight).T for linear in network.layers]
    biases = [_array(linear.bias) for linear in network.layers[:-1]]
    mean, scale = _array(network.mean), _array(network.scale)
    weights[0] = weights[0].copy()
    weights[0][: len(mean)] *= scale[:, None]
    # In double precision, since here the mean is not subtracted from each feature first.
    biases[0] = (biases[0] - mean.astype(np.float64) @ weights[0][: len(mean)]).astype(mean.dtype)
    return weights, biases


def padded(number: int, dtype: np.dtype[Any]) -> int:
    """Number of columns, rounded up to whole vectors of a precision."""
    return -(-number // _lanes(dtype)) * _lanes(dtype)


def wide(matrix: Floats) -> Floats:
    """Pad the last axis with zeros to whole vectors."""
    return np.pad(matrix, [(0, 0)] * (matrix.ndim - 1) + [(0, -matrix.shape[-1] % _lanes(matrix.dtype))])


def _array(tensor: Tensor) -> Floats:
    return tensor.detach().numpy()
