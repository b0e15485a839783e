"""The way back through layers in single precision on a CPU: fields as derivatives of E and G, by kernels in C."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hpcspin.potential.equations import sum_of_drives
from hpcspin.potential.host_layers import (
    ROOM,
    HostLayer,
    HostMatrix,
    HostStruct,
    RowData,
    host_kernels,
    host_network,
    padded,
    wide,
)
from hpcspin.potential.host_library import loaded, share_out

if TYPE_CHECKING:
    from hpcspin.potential.layers import Layer


class HostAdjoint(HostLayer):
    """A layer's weights as the kernels read them, there and back.

    Parameters
    ----------
    layer
        The layer, in single precision.
    """

    @torch.no_grad()
    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        struct, (matrices, _) = self._struct, host_network(layer)
        features = len(layer.network.mean)
        # The way back ends in features, wider perhaps than any layer of the network.
        struct.widest = max(struct.widest, padded(features) + padded(1))
        self._scratch = int(loaded().hpcspin_layer_scratch(self._address))
        back = [matrices[0][:features].T, *(matrix.T for matrix in matrices[1:])]
        networks = (HostMatrix * len(back))(*(self._matrix(wide(matrix)) for matrix in reversed(back)))
        self._kept.append(networks)
        self._back = _Adjoint(
            mixtures=self._matrix(np.ascontiguousarray(self._mixed.T)),
            network=ctypes.addressof(networks),
            densities=1 + layer.densities,
        )
        # What the slots of a row are given back: transposed kernels, through the inverse table.
        kernels = host_kernels(layer.maps().kernels, layer.reads.vectors)[:, :, : 1 + layer.densities]
        self._vectors, self._scalars = layer.reads.vectors, layer.reads.scalars
        transposed = np.zeros((len(kernels), kernels.shape[2], padded(self._vectors)), np.float32)
        transposed[:, :, : self._vectors] = kernels.transpose(0, 2, 1)
        self._sums = HostStruct(
            slots=len(kernels),
            vectors=kernels.shape[2],
            densities=transposed.shape[2],
            kernels=self._keep(transposed),
        )
        if self._scalars:
            weights = layer.maps().scalars.unflatten(0, (-1, self._scalars)).numpy()
            given = np.zeros((len(weights), struct.told, padded(self._scalars)), np.float32)
            given[:, :, : self._scalars] = weights.transpose(0, 2, 1)
            self._sums.scalars, self._sums.scalar_sums = struct.told, given.shape[2]
            self._sums.scalar_kernels = self._keep(given)

    def back(
        self, data: RowData, tables: HostTables, inputs: Tensor, by: RowData, threads: int, made: Tensor | None = None
    ) -> RowData:
        """Derivatives of some potentials by what is data before the layer, from those by what it makes.

        Parameters
        ----------
        data, inputs
            As of the layer.
        tables
            Of its centres.
        by
            Derivatives by all rows of the result: vectors, shape (potentials, rows, 3, 1 + made vectors), those by the
            spin not read, and scalars, shape (potentials, rows, made scalars).
        threads
            Most threads.
        made
            Receives the scalars that the layer makes, shape (rows, made scalars), where they are asked for.

        Returns
        -------
        RowData
            Shapes (potentials, rows, 3, vectors), the spin first, and (potentials, rows, scalars).
        """
        kernel, centres, rows = loaded(), tables.centres, len(data.vectors) - ROOM
        potentials, density = len(by.vectors), self._back.densities
        by_densities = torch.zeros(potentials, centres + 1, 3, density)
        by_sums = torch.zeros(potentials, centres + 1, self._struct.told if self._scalars else 0)
        by_own = torch.empty(potentials, centres + 1, self._scalars)
        layer, back = ctypes.addressof(self._struct), ctypes.addressof(self._back)
        reads = [part.data_ptr() for part in (*data, tables.forward, inputs)]
        writes = [part.data_ptr() for part in (*by, by_densities, by_sums, by_own)]
        room = int(kernel.hpcspin_adjoint_scratch(layer))

        def descend(first: int, last: int) -> None:
            scratch = torch.empty(room)
            kernel.hpcspin_layer_adjoint(
                layer, back, *reads, first, last, potentials, rows, centres + 1, *writes,
                None if made is None else made.data_ptr(), scratch.data_ptr(),
            )  # fmt: skip

        share_out(descend, centres, threads)
        sums, width, scalars = self._sums, self._sums.densities, self._sums.scalar_sums
        given = RowData(torch.empty(potentials, rows, 3, width), torch.empty(potentials, rows, scalars))

        def gather(number: int, first: int, last: int) -> None:
            scratch = torch.empty(12 * (3 * width + scalars))
            parts = by_densities[number], by_sums[number], tables.back
            out = given.vectors[number], given.scalars[number]
            kernel.hpcspin_sums(
                ctypes.addressof(sums), *(part.data_ptr() for part in parts), first, last,
                *(part.data_ptr() for part in out), scratch.data_ptr(),
            )  # fmt: skip

        for number in range(potentials):
            share_out(lambda first, last, number=number: gather(number, first, last), rows, threads)  # type: ignore[misc]
        vectors, told = given.vectors[..., : self._vectors], given.scalars[..., : self._scalars]
        if self._scalars:
            told = told.index_add(1, tables.rows, by_own[:, :centres])
        return RowData(vectors, told)


class HostTables(NamedTuple):
    """Tables of the centres of a layer, there and back, as the kernels read them.

    Attributes
    ----------
    centres : int
        How many.
    rows : Tensor
        Their rows.
    forward, back : Tensor
        Rows in the slots of the centres, and centres in whose slots the rows are: int32, with empty ones at the end.
    """

    centres: int
    rows: Tensor
    forward: Tensor
    back: Tensor


def derivatives_on_host(
    layers: Sequence[HostAdjoint],
    tables: Sequence[HostTables],
    data: RowData,
    inputs: Tensor,
    factors: Tensor,
    threads: int,
) -> tuple[Tensor, Tensor]:
    """Potentials of each row, and the derivatives of their sums by each spin.

    Parameters
    ----------
    layers
        One after the other.
    tables
        Of their centres.
    data
        Spins, and where there are some.
    inputs
        The networks' other inputs, shape (centres, inputs).
    factors
        Of ε, and of each χ: with which they are multiplied in E and in G, shape (1 + drives,).
    threads
        Most threads.

    Returns
    -------
    tuple of Tensor
        ε and each χ, without the factors, shape (rows, 1 + drives), and the derivatives of E, or of E and G, shape
        (potentials, rows, 3).
    """
    states, last = [data], len(layers) - 1
    for number, (layer, of) in enumerate(zip(layers[:-1], tables[:-1], strict=True)):
        states.append(layer(states[-1], of.forward, inputs, of.centres, number > 0, threads))
    rows, seeds = len(data.vectors) - ROOM, sum_of_drives(torch.diag(factors))
    local, by_spin = torch.zeros(rows, len(factors)), torch.zeros(len(seeds), rows, 3)
    by = RowData(torch.zeros(len(seeds), rows, 3, 1), seeds[:, None].repeat(1, rows, 1))
    for number in range(last, -1, -1):
        found = layers[number].back(
            states[number], tables[number], inputs, by, threads, local if number == last else None
        )
        by_spin += found.vectors[..., 0]
        if 0 < number < last:
            # The layer has added to what was there.
            found.vectors[..., 1:] += by.vectors[..., 1:]
            found = RowData(found.vectors, found.scalars + by.scalars)
        by = RowData(*(part.contiguous() for part in found))
    return local, by_spin


class _Adjoint(ctypes.Structure):
    _fields_ = (("mixtures", HostMatrix), ("network", ctypes.c_void_p), ("densities", ctypes.c_int32))
