"""Reverse sweep through layers on a CPU: fields as derivatives of E and G, by kernels in C."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hpcspin.potential.equations import sum_of_terms
from hpcspin.potential.host_copies import HostMatrix
from hpcspin.potential.host_layers import (
    EMPTY,
    ROOM,
    HostLayer,
    HostStruct,
    RowData,
    copies_in,
    host_kernels,
    host_network,
    padded,
    wide,
)
from hpcspin.potential.host_library import BLOCK, share_out

if TYPE_CHECKING:
    from hpcspin.potential.layers import Layer

KEPT = 1 << 16
"""Most centres for which layers keep intermediate results for the reverse sweep, some kilobytes each and layer."""


class HostAdjoint(HostLayer):
    """The weights of a layer, in their precision, in the layout of the kernels of both sweeps."""

    @torch.no_grad()
    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        struct, kernel, (matrices, _) = self._struct, self._kernel, host_network(layer)
        features = len(matrices[0]) - struct.inputs
        # The reverse sweep ends in the features, which may be wider than any layer of the network.
        struct.widest = max(struct.widest, sum(padded(count, matrices[0].dtype) for count in (features, 1)))
        self._scratch = int(kernel.hpcspin_layer_scratch(self._address))
        back = [matrices[0][:features].T, *(matrix.T for matrix in matrices[1:])]
        networks = (HostMatrix * len(back))(*(self._matrix(wide(matrix)) for matrix in reversed(back)))
        self._kept.append(networks)
        self._record, self._back_scratch = (
            int(count(self._address)) for count in (kernel.hpcspin_record, kernel.hpcspin_adjoint_scratch)
        )
        self._vectors, self._scalars = layer.reads.vectors, layer.reads.scalars
        self._sums = self._transposed_sums(layer)
        self._back = _Adjoint(
            mixtures=self._matrix(np.ascontiguousarray(self._mixed.T)),
            network=ctypes.addressof(networks),
            densities=self._sums.vectors,
            sums=self._sums.scalars,
        )

    def _transposed_sums(self, layer: Layer) -> HostStruct:
        """Sums from derivatives by densities to those by a row of the input, over the slots of the inverse table."""
        kernels, columns = host_kernels(layer, layer.maps().kernels, self._columns), self._columns
        if not self._scalars:
            return HostStruct(slots=len(kernels), vectors=columns.total, densities=1, kernels=self._keep(kernels))
        vectors, scalars = self._copies
        densities = columns.total if vectors else int(columns.places.max()) + 1
        kernels = wide(kernels[:, :, :densities].transpose(0, 2, 1))
        scalar_kernels = wide(layer.maps().scalars.unflatten(0, (-1, self._scalars)).transpose(1, 2).numpy())
        sums = HostStruct(
            slots=len(kernels),
            vectors=densities,
            densities=kernels.shape[2],
            kernels=self._keep(kernels),
            scalars=self._struct.scalar_copies.columns if scalars else self._struct.scalar_features,
            scalar_sums=scalar_kernels.shape[2],
            scalar_kernels=self._keep(scalar_kernels),
        )
        for target, copies in zip(copies_in(sums), self._copies, strict=True):
            if copies:
                self._keep_copies(target, copies, wide(copies.weights.reshape(len(copies.weights), -1).T))
        return sums

    def memory(self, centres: int) -> Tensor | None:
        """Memory for the results of so many centres that `back` reads; None if too large, so that `back` recomputes."""
        return self._empty((centres + EMPTY) * self._record) if centres <= KEPT else None

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=self._dtype)

    def back(
        self,
        data: RowData,
        tables: HostTables,
        inputs: Tensor,
        by: RowData,
        kept: Tensor | None,
        new_scalars: Tensor | None,
    ) -> RowData:
        """Derivatives of potentials by the input of the layer, from those ``by`` its output, (potentials, rows, ...).

        ``data`` and ``inputs`` are those of the layer, ``tables`` those of its centres. The vectors, (...,
        3, vectors), include the spin, which is not read in ``by``. ``kept`` are the intermediate results that the layer
        has kept, if any; else ``new_scalars`` receives the scalars that it computes, shape (rows, new scalars).
        """
        kernel, centres, rows = self._kernel, tables.centres, len(data.vectors) - ROOM
        potentials, density = len(by.vectors), self._back.densities
        room = centres + EMPTY
        by_densities = self._empty(potentials, room, 3, density)
        by_sums = torch.zeros(potentials, room, self._back.sums, dtype=self._dtype)
        by_own = torch.zeros(potentials, rows, self._scalars, dtype=self._dtype)
        by_densities[:, centres] = 0  # The row for what is missing.
        layer, back = ctypes.addressof(self._struct), ctypes.addressof(self._back)
        projections = self.projections(data) if kept is None else data
        reads = [part.data_ptr() for part in (*data, *projections, tables.forward, inputs)]
        writes = [part.data_ptr() for part in (*by, by_densities, by_sums, by_own)]

        def descend(first: int, last: int) -> None:
            scratch = self._empty(self._back_scratch)
            kernel.hpcspin_layer_adjoint(
                layer, back, *reads, first, last, potentials, rows, room, *writes,
                *(None if part is None else part.data_ptr() for part in (new_scalars, kept)), scratch.data_ptr(),
            )  # fmt: skip

        share_out(descend, centres)
        sums, width, scalars = self._sums, self._sums.densities, self._sums.scalar_sums
        room = 3 * (width + max(copies.count * copies.columns for copies in copies_in(sums))) + scalars
        by_row = RowData(self._empty(potentials, rows, 3, width), self._empty(potentials, rows, scalars))

        def gather(number: int, first: int, last: int) -> None:
            scratch = self._empty(BLOCK * room)
            parts = by_densities[number], by_sums[number], tables.back
            out = by_row.vectors[number], by_row.scalars[number]
            kernel.hpcspin_sums(
                ctypes.addressof(sums), *(part.data_ptr() for part in parts), first, last,
                *(part.data_ptr() for part in out), scratch.data_ptr(),
            )  # fmt: skip

        for number in range(potentials):
            share_out(lambda first, last, number=number: gather(number, first, last), rows)  # type: ignore[misc]
        return RowData(by_row.vectors[..., : self._vectors], by_row.scalars[..., : self._scalars] + by_own)


class HostTables(NamedTuple):
    """Neighbour tables of the centres of a layer and their inverse, as the kernels read them."""

    centres: int
    """Number of centres."""
    forward: Tensor
    """Rows in the slots of the centres, int32, with empty ones at the end."""
    back: Tensor
    """Centres that have each row in a slot, the same way."""


class ForwardPass(NamedTuple):
    """A forward pass through layers of one configuration, kept for the reverse sweeps."""

    inputs: Tensor
    """The networks' other inputs, shape (centres, inputs)."""
    states: list[RowData]
    """Input of the first layer, and output of each layer that has been evaluated."""
    kept: list[Tensor | None]
    """Intermediate results of each of these layers for `HostAdjoint.back`."""


def forward_on_host(
    layers: Sequence[HostAdjoint], tables: Sequence[HostTables], data: RowData, inputs: Tensor, through: int
) -> ForwardPass:
    """Evaluate the first ``through`` of all layers on ``data``, and keep what the reverse sweeps need."""
    states, kept = [data], list[Tensor | None]()
    for number, (layer, table) in enumerate(zip(layers[:through], tables[:through], strict=True)):
        kept.append(layer.memory(table.centres))
        adds = 0 < number < len(layers) - 1
        states.append(layer(states[-1], table.forward, inputs, table.centres, adds, kept[-1]))
    return ForwardPass(inputs, states, kept)


def derivatives_on_host(
    layers: Sequence[HostAdjoint],
    tables: Sequence[HostTables],
    forward_pass: ForwardPass,
    factors: Tensor,
    terms: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """Terms of each row without factors, (rows, all terms), and derivatives of E, or E and G, (potentials, rows, 3).

    ``layers`` and ``tables`` are those of `forward_on_host`, whose pass goes through all layers, or through all but the
    last one, which the reverse sweep evaluates more cheaply; for ``terms`` see `sum_of_terms`.
    """
    last, rows = len(layers) - 1, len(forward_pass.states[0].vectors) - ROOM
    seeds = sum_of_terms(torch.diag(factors), terms)
    whole = len(forward_pass.kept) > last
    local = forward_pass.states[-1].scalars[:rows] if whole else factors.new_zeros(rows, len(factors))
    by_spin = factors.new_zeros(len(seeds), rows, 3)
    by = RowData(factors.new_zeros(len(seeds), rows, 3, 1), seeds[:, None].expand(-1, rows, -1))
    for number in range(last, -1, -1):
        by = RowData(*(part.contiguous() for part in by))
        kept = forward_pass.kept[number] if number < len(forward_pass.kept) else None
        by_input = layers[number].back(
            forward_pass.states[number], tables[number], forward_pass.inputs, by, kept,
            local if number == last and not whole else None,
        )  # fmt: skip
        by_spin += by_input.vectors[..., 0]
        if 0 < number < last:
            # The layer adds its output to its input.
            by_input.vectors[..., 1:] += by.vectors[..., 1:]
            by_input = RowData(by_input.vectors, by_input.scalars + by.scalars)
        by = by_input
    return local, by_spin


class _Adjoint(ctypes.Structure):
    _fields_ = (
        ("mixtures", HostMatrix),
        ("network", ctypes.c_void_p),
        ("densities", ctypes.c_int32),
        ("sums", ctypes.c_int32),
    )
