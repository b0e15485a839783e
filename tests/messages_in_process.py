"""Blocks of a lattice that exchange terms with each other in one process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from hpcspin.parallel.domain import Domain
from hpcspin.potential.borders import Side


class MessagesInProcess:
    """In place of `NeighbourMessages`: what all blocks have sent in turn is there for good.

    A committee sends for each member; where a block sends again, others receive the same sequence again.
    """

    sent: ClassVar[dict[tuple[int | None, Side], list[Tensor]]] = {}

    def __init__(self, domain: Domain, shapes: Mapping[Side, tuple[int, int]], like: Tensor) -> None:
        self._domain, self._shapes, self._like, self._count = domain, shapes, like, -1

    def send(self, terms: Mapping[Side, Tensor]) -> None:
        self._count += 1
        for side, there in terms.items():
            assert there.shape == self._shapes[side]
            self.sent.setdefault((self._domain.world.rank, side), []).append(there.clone())

    def receive(self) -> Mapping[Side, Tensor]:
        received = {}
        for side, shape in self._shapes.items():
            neighbour = self._domain.neighbour(side)
            if neighbour is not None:
                known = self.sent.get((neighbour, (-side[0], -side[1])), [self._like.new_zeros(shape)])
                received[side] = known[self._count % len(known)]
        return received
