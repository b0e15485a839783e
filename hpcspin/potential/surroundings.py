"""Weighted sums over the sites around many centres: two implementations with the same result.

Evaluation gathers through tables, in tiles, so that the bits of a centre depend on
nothing but its surroundings. Training reads whole lattices, on which such sums are
convolutions: nothing is gathered, and nothing is scattered in the reverse sweep.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from hpcspin.potential.gather import linear, slot_inverse
from hpcspin.potential.tiles import WHOLE


class Grid(NamedTuple):
    """A whole lattice as a grid for convolutions."""

    size: tuple[int, int]
    periodic: tuple[bool, bool]
    offsets: tuple[tuple[int, int], ...]
    """Lattice offset of each slot, the centre first."""


@dataclass(frozen=True)
class Tables:
    """Surroundings by neighbour tables, whose sums, and those of their derivatives, have a fixed order.

    The bits of a centre do not depend on the batch. The derivative of a gather is added slot by slot, whichever window
    of the lattice the tables describe; it is zero for the last row, which stands for missing sites.
    """

    table: Tensor
    """Row in each slot of each centre, in whole tiles, or the number of rows where it is missing, (slots, centres)."""
    tile: int
    """Centres in a tile of matrix products."""
    rows: Tensor
    """Rows of the centres, without those that only fill the last tile."""
    number: int
    """Number of all rows."""

    def __len__(self) -> int:
        return self.table.shape[1]

    @functools.cached_property
    def inverse(self) -> Tensor:
        """The centre that has each row in a slot, or the number of centres; built for derivatives, (slots, rows)."""
        count = len(self.rows)
        inverse = slot_inverse(self.table[:, :count], self.number)
        return torch.where(inverse == count, len(self), inverse)

    def own(self, x: Tensor) -> Tensor:
        """Values at the centres themselves, (k, rows + 1, width) to (k, centres, width); the last row is missing."""
        return self._gathered(x, 1).flatten(1, 2)

    def placed(self, x: Tensor) -> Tensor:
        """Values of the centres at their rows, (..., centres, width) to (..., rows + 1, width); zero elsewhere."""
        nothing = x.new_zeros(*x.shape[:-2], self.number + 1, x.shape[-1])
        return nothing.index_copy(-2, self.rows, x[..., : len(self.rows), :])

    def sums(self, x: Tensor, kernels: Tensor) -> Tensor:
        """Σ_δd x_d(δ) W_dc(δ) over the slots δ of each centre, (k, centres, m); W has the shape (slots * width, m)."""
        return self.product(self._gathered(x, len(self.table)).flatten(2), kernels)

    def product(self, x: Tensor, matrix: Tensor) -> Tensor:
        """Product of values of the centres, shape (..., centres, k), with a matrix (k, m).

        The bits of a centre do not depend on the others if the columns of the matrix are whole vectors; the matrix of
        the adjoint is padded to whole ones.
        """

        def adjoint(grad: Tensor) -> Tensor:
            back = functional.pad(matrix.T, (0, -len(matrix) % WHOLE))
            return _tile_product(grad, back, self.tile)[..., : len(matrix)]

        return linear(x, lambda x: _tile_product(x, matrix, self.tile), adjoint)

    def _gathered(self, x: Tensor, slots: int) -> Tensor:
        """Gather into the first slots, (k, rows + 1, width) to (k, centres, slots, width)."""
        table = self.table[:slots].T

        def sums(grad: Tensor) -> Tensor:
            grad = functional.pad(grad, (0, 0, 0, 0, 0, 1))
            parts = enumerate(self.inverse[:slots])
            first, *others = (grad[:, :, slot].index_select(1, centres) for slot, centres in parts)
            return functional.pad(sum(others, first), (0, 0, 0, 1))

        return linear(x, lambda x: x.index_select(1, table.flatten()).unflatten(1, table.shape), sums)


@dataclass(frozen=True)
class Convolution:
    """Surroundings on whole lattices of a batch, for training."""

    grid: Grid
    dilation: int
    """Dilation of the offsets along x."""
    tile: None = None
    """No tiles: a matrix product takes all centres."""

    def own(self, x: Tensor) -> Tensor:
        """See `Tables`."""
        return x[:, :-1]

    def placed(self, x: Tensor) -> Tensor:
        """See `Tables`."""
        return torch.cat([x, torch.zeros_like(x[..., :1, :])], -2)

    def sums(self, x: Tensor, kernels: Tensor) -> Tensor:
        """See `Tables`."""
        (nx, ny), width = self.grid.size, x.shape[-1]
        images = x[:, :-1].reshape(-1, nx, ny, width).permute(0, 3, 1, 2)
        reaches = tuple(max(abs(offset[axis]) for offset in self.grid.offsets) for axis in (0, 1))
        # Built from slices: positions given as an index would be copied to a GPU and back.
        by_offset = dict(
            zip(self.grid.offsets, kernels.unflatten(0, (-1, width)).permute(2, 1, 0).unbind(2), strict=True)
        )
        nothing = kernels.new_zeros(kernels.shape[-1], width)
        rows = [
            torch.stack([by_offset.get((x, y), nothing) for y in range(-reaches[1], reaches[1] + 1)], -1)
            for x in range(-reaches[0], reaches[0] + 1)
        ]
        weight = torch.stack(rows, 2)
        margins = (self.dilation * reaches[0], reaches[1])
        for axis, margin in enumerate(margins):
            if self.grid.periodic[axis]:
                images = _around(images, 2 + axis, margin)
        padding = [0 if periodic else margin for periodic, margin in zip(self.grid.periodic, margins, strict=True)]
        found = functional.conv2d(images, weight, padding=padding, dilation=(self.dilation, 1))
        return found.permute(0, 2, 3, 1).reshape(len(x), -1, kernels.shape[-1])

    def product(self, x: Tensor, matrix: Tensor) -> Tensor:
        """See `Tables`."""
        return x @ matrix


Surroundings = Tables | Convolution


def _tile_product(x: Tensor, matrix: Tensor, tile: int) -> Tensor:
    """Product of values of the centres, shape (..., centres, k), with a matrix, tile by tile."""
    tiles = x.reshape(-1, tile, x.shape[-1])
    return torch.bmm(tiles, matrix.expand(len(tiles), -1, -1)).view(*x.shape[:-1], matrix.shape[1])


def _around(images: Tensor, axis: int, margin: int) -> Tensor:
    """Continue images periodically by ``margin`` places on both sides of an axis.

    Built from slices, not by an index: the derivative would be a sum by index, which torch.compile adds to wrong places
    and beyond the end of the sum. With more than one thread and a tile of two axes, the code of PyTorch 2.13 for atomic
    additions counts the offset in the tile twice.
    """
    length = images.shape[axis]
    rounds, rest = divmod(margin, length)
    before, after = images.narrow(axis, length - rest, rest), images.narrow(axis, 0, rest)
    return torch.cat([before, *[images] * (2 * rounds + 1), after], axis)
