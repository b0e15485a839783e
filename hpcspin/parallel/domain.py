"""A lattice cut into two-dimensional blocks, one per rank.

A :class:`Domain` knows which sites are mine and how to put a halo of foreign sites around them, so that
a field of finite range needs nothing else.  Cutting changes which rank computes a site, never what is
computed: every site sees the same numbers in the same order whatever the blocks are.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcspin.errors import HpcspinError
from hpcspin.lattice import Halo, Lattice
from hpcspin.parallel.halo import HaloExchange
from hpcspin.parallel.messages import Direction
from hpcspin.parallel.stopwatch import WAITING, Stopwatch
from hpcspin.parallel.world import World


def _fits(length: int, blocks: int, width: int) -> bool:
    # A single block wraps onto itself by copies, however thin it is; several blocks exchange strips of the halo's
    # width, and each must hold a site.
    return blocks == 1 or length // blocks >= max(width, 1)


def _candidates(size: tuple[int, int], ranks: int, halo: Halo) -> list[tuple[int, int]]:
    factors = [(px, ranks // px) for px in range(1, ranks + 1) if ranks % px == 0]
    return [blocks for blocks in factors if all(_fits(*cut) for cut in zip(size, blocks, halo, strict=True))]


def choose_blocks(size: tuple[int, int], ranks: int, halo: Halo) -> tuple[int, int]:
    """Blocks along x and y: the factorisation of the ranks that exchanges the fewest sites.

    The width of the halo along an axis that is not cut does not count. Raises HpcspinError, with the largest number of
    ranks that fits, if every factorisation of a lattice of (Lx, Ly) sites has a block thinner than the halo.
    """
    cuts = _candidates(size, ranks, halo)
    if not cuts:
        most = min(ranks, most_ranks(size, halo))
        fitting = next(count for count in range(most, 0, -1) if _candidates(size, count, halo))
        raise HpcspinError(
            f"lattice of {size[0]} x {size[1]} sites on {ranks} ranks: a block would be thinner than the halo of "
            f"{max(halo[0], 1)} x {max(halo[1], 1)}; use at most {fitting} ranks"
        )

    def exchanged(blocks: tuple[int, int]) -> int:
        nx, ny = (-(-length // count) for length, count in zip(size, blocks, strict=True))
        return (blocks[0] > 1) * max(halo[0], 1) * ny + (blocks[1] > 1) * max(halo[1], 1) * nx

    return min(cuts, key=exchanged)


def most_ranks(size: tuple[int, int], halo: Halo) -> int:
    """Largest number of ranks whose blocks are nowhere thinner than the halo; not every smaller one fits."""
    return math.prod(max(1, length // max(width, 1)) for length, width in zip(size, halo, strict=True))


@dataclass
class Domain:
    """My block of the lattice; rank ``r`` holds block ``(r // py, r % py)`` of (px, py) along x and y.

    Arrays of vectors on a block have shape (nx, ny, components). Raises HpcspinError if the blocks do not use all
    ranks, or one would hold no site.
    """

    lattice: Lattice
    world: World
    blocks: tuple[int, int]
    stopwatch: Stopwatch = field(default_factory=Stopwatch, repr=False)
    _exchanges: dict[tuple[object, ...], HaloExchange] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        px, py = self.blocks
        if px * py != self.world.size or not all(
            _fits(length, count, 0) for length, count in zip(self.lattice.size, self.blocks, strict=True)
        ):
            raise HpcspinError(
                f"blocks {px} x {py} do not divide a lattice of {self.lattice.size[0]} x {self.lattice.size[1]} "
                f"sites over {self.world.size} ranks"
            )

    @classmethod
    def cut(cls, lattice: Lattice, world: World, halo: Halo | None) -> Domain:
        """Cut a lattice for fields that need the given halo (None: the whole lattice, so any cut will do)."""
        return cls(lattice, world, choose_blocks(lattice.size, world.size, halo or (0, 0)))

    @property
    def coordinates(self) -> tuple[int, int]:
        """My place among the blocks."""
        return divmod(self.world.rank, self.blocks[1])

    def slices_of(self, rank: int) -> tuple[slice, slice]:
        """Sites of a rank's block, as slices of the lattice."""
        cuts = zip(self.lattice.size, self.blocks, divmod(rank, self.blocks[1]), strict=True)
        x, y = (slice(length * place // count, length * (place + 1) // count) for length, count, place in cuts)
        return x, y

    @property
    def slices(self) -> tuple[slice, slice]:
        """My sites, as slices of the lattice."""
        return self.slices_of(self.world.rank)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of my sites (nx, ny)."""
        return self.slices[0].stop - self.slices[0].start, self.slices[1].stop - self.slices[1].start

    @property
    def sites(self) -> NDArray[np.int64]:
        """Global flat indices of my sites, shape (nx, ny)."""
        return np.arange(self.lattice.num_sites).reshape(self.lattice.size)[self.slices]

    def neighbour(self, side: Direction) -> int | None:
        """Rank of the next block towards a side or corner, (-1, 0) the lower x; None beyond an open edge."""
        place = [here + step for here, step in zip(self.coordinates, side, strict=True)]
        for axis, count in enumerate(self.blocks):
            if not self.lattice.periodic[axis] and not 0 <= place[axis] < count:
                return None
            place[axis] %= count
        return place[0] * self.blocks[1] + place[1]

    def exchange(self, block: Tensor, halo: Halo) -> HaloExchange:
        """The exchange of halos of given widths around blocks like the given one; all ranks call it."""
        key = (tuple(halo), block.shape[-1], block.dtype, block.device)
        if key not in self._exchanges:
            self._exchanges[key] = HaloExchange(self, halo, block)
        return self._exchanges[key]

    def extend(self, block: Tensor, halo: Halo) -> Tensor:
        """Put a halo around my block: periodic images, foreign sites, zero beyond open edges; all ranks call it.

        From shape (nx, ny, components) to (nx + 2 hx, ny + 2 hy, components), valid until the next call for this halo.
        """
        if not any(halo):
            return block
        exchange = self.exchange(block, halo)
        extended = exchange.start(block)
        exchange.finish()
        return extended

    def window(self, whole: Tensor, halo: Halo) -> Tensor:
        """Cut my block with its halo out of the whole lattice, without communication; otherwise like `extend`."""
        index, inside = zip(*(self._window_axis(axis, halo[axis]) for axis in range(2)), strict=True)
        rows, columns = (torch.as_tensor(i, device=whole.device) for i in index)
        mask = torch.as_tensor(inside[0][:, None] & inside[1], device=whole.device)
        return whole[rows[:, None], columns] * mask[..., None]

    def _window_axis(self, axis: int, width: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        length, mine = self.lattice.size[axis], self.slices[axis]
        coordinate = np.arange(mine.start - width, mine.stop + width)
        inside = self.lattice.periodic[axis] | ((coordinate >= 0) & (coordinate < length))
        return coordinate % length, inside

    def whole(self, block: Tensor) -> Tensor:
        """Join the blocks of all ranks, on every rank: shape (Lx, Ly, components)."""
        if self.world.size == 1:
            return block
        return torch.as_tensor(self._join(self._to_host(block)(), everywhere=True), device=block.device)

    def gather(self, block: Tensor) -> NDArray[np.float64] | None:
        """Join the blocks of all ranks as an array with its own memory on rank 0; None elsewhere."""
        return self.start_gather(block)()

    def start_gather(self, block: Tensor) -> Callable[[], NDArray[np.float64] | None]:
        """Start what `gather` does, on a GPU beside other work; all ranks call the result, which finishes it."""
        arrived = self._to_host(block)
        return lambda: self._join(arrived(), everywhere=False)

    def _to_host(self, block: Tensor) -> Callable[[], NDArray[np.float64]]:
        """Start copying a block to its own contiguous host memory; the returned function waits for it.

        On a GPU a separate stream copies into pinned memory, which torch keeps for the next frames.
        """
        if block.device.type == "cpu":
            copied = np.array(block.numpy(), order="C")
            return lambda: copied
        stream = self._copy_stream
        stream.wait_stream(torch.cuda.current_stream(block.device))
        with torch.cuda.stream(stream):
            host = torch.empty(block.shape, dtype=block.dtype, pin_memory=True)
            host.copy_(block.contiguous(), non_blocking=True)
        block.record_stream(stream)  # Its memory is not reused before it is copied.
        done = stream.record_event()

        def wait() -> NDArray[np.float64]:
            done.synchronize()
            return host.numpy()

        return wait

    @functools.cached_property
    def _copy_stream(self) -> torch.cuda.Stream:
        """On the current device, which is that of the blocks."""
        return torch.cuda.Stream()

    def _join(self, mine: NDArray[np.float64], *, everywhere: bool) -> NDArray[np.float64] | None:
        if self.world.size == 1:
            return mine
        ranks, components = range(self.world.size), mine.shape[2:]
        shapes = [(*(part.stop - part.start for part in self.slices_of(r)), *components) for r in ranks]
        lengths = [math.prod(shape) for shape in shapes]
        with self.stopwatch.measure(WAITING):
            flat = self.world.concatenate(mine.ravel(), lengths, everywhere=everywhere)
        if flat is None:
            return None
        joined = np.empty((*self.lattice.size, *components), dtype=flat.dtype)
        for rank, part in zip(ranks, np.split(flat, np.cumsum(lengths)[:-1]), strict=True):
            joined[self.slices_of(rank)] = part.reshape(shapes[rank])
        return joined
