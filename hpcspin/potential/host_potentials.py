"""Potentials of descriptors on a CPU, and their derivatives with respect to the spins, by a kernel in C.

PyTorch writes a few hundred features of all centres to memory after each operation. The kernel evaluates as many
centres as two vectors of the processor hold, from the spins to the features, through the network and back, in cache.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcspin.potential.host_layers import Floats, folded
from hpcspin.potential.host_library import POTENTIALS, loaded, share_out
from hpcspin.potential.network import Network
from hpcspin.potential.polynomials import Polynomials


class _Matrix(ctypes.Structure):
    _fields_ = (("numbers", ctypes.c_void_p), ("rows", ctypes.c_int32), ("columns", ctypes.c_int32))


class _Struct(ctypes.Structure):
    """``potential`` of the kernel."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("slots", "sums", "features", "inputs")),
        *((name, ctypes.c_void_p) for name in ("ends", "left", "right", "factors")),
        *((name, ctypes.c_int32) for name in ("potentials", "hidden_layers", "widest")),
        *((name, ctypes.c_void_p) for name in ("there", "back", "biases")),
    )


class HostPotentials:
    """A descriptor, whose features are the last rows of its polynomials, and its network, as the kernel reads them."""

    @torch.no_grad()
    def __init__(self, network: Network, polynomials: Polynomials) -> None:
        self._kept: list[Any] = []
        weights, biases = folded(network)
        self._dtype = network.mean.dtype
        self._kernel = kernel = loaded(self._dtype, POTENTIALS)
        self._panel, self._block = int(kernel.hpcspin_rows()), int(kernel.hpcspin_wide())
        features, hidden = len(network.mean), len(biases)
        there = (_Matrix * (hidden + 1))(*(self._matrix(weight.T) for weight in weights))
        back = (_Matrix * (hidden + 1))(*(self._matrix(w) for w in (weights[0][:features], *weights[1:])))
        pointers = (ctypes.c_void_p * hidden)(*(self._keep(self._panels(bias)) for bias in biases))
        self._kept += [there, back, pointers]
        ends, factors, left, right = polynomials.tables()
        self._potentials = weights[-1].shape[1]
        self._struct = _Struct(
            slots=len(polynomials.spins),
            sums=len(ends),
            features=features,
            inputs=len(weights[0]) - features,
            ends=self._keep(ends),
            left=self._keep(left),
            right=self._keep(right),
            factors=self._keep(factors.astype(weights[0].dtype)),
            potentials=self._potentials,
            hidden_layers=hidden,
            widest=max(len(self._panels(weight.T)) for weight in weights),
            there=ctypes.addressof(there),
            back=ctypes.addressof(back),
            biases=ctypes.addressof(pointers),
        )
        self._scratch = int(kernel.hpcspin_potentials_scratch(ctypes.addressof(self._struct)))

    def __call__(
        self, spins: Tensor, rows: Tensor, factors: Tensor, inputs: Tensor, wanted: int, centres: int
    ) -> tuple[Tensor, Tensor]:
        """Potentials of the first centres, (potentials, room), and derivatives by spins, (wanted, potentials, 3, room).

        ``spins`` has shape (rows, 3), with zeros for what is missing, and ``rows`` are those of the spins in the slots,
        int32, shape (slots, room), with a stride of 1; room is a multiple of the tile. ``factors``, (potentials, room),
        multiply the network's outputs, ``inputs``, (inputs, room), are its other inputs. The results are zero where
        there is no centre.
        """
        room, factors, inputs = rows.shape[1], factors.contiguous(), inputs.contiguous()
        assert room % self._block == 0, "the kernel writes whole blocks"
        local = torch.zeros(self._potentials, room, dtype=self._dtype)
        by_spin = torch.zeros(wanted, self._potentials, 3, room, dtype=self._dtype)

        def work(first: int, last: int) -> None:
            scratch = torch.empty(self._scratch, dtype=self._dtype)
            self._kernel.hpcspin_potentials(
                ctypes.addressof(self._struct), spins.data_ptr(), rows.data_ptr(), rows.stride(0), factors.data_ptr(),
                inputs.data_ptr(), first, last, room, wanted, local.data_ptr(), by_spin.data_ptr(), scratch.data_ptr(),
            )  # fmt: skip

        share_out(work, centres, self._block)
        return local, by_spin

    def _keep(self, array: NDArray[Any]) -> int:
        array = np.ascontiguousarray(array)
        self._kept.append(array)
        return array.ctypes.data

    def _panels(self, array: Floats) -> Floats:
        """Pad with zeros to whole panels."""
        return np.pad(array, [(0, -len(array) % self._panel)] + [(0, 0)] * (array.ndim - 1))

    def _matrix(self, matrix: Floats) -> _Matrix:
        panels = self._panels(matrix).reshape(-1, self._panel, matrix.shape[1]).swapaxes(1, 2)
        return _Matrix(self._keep(panels), *matrix.shape)
