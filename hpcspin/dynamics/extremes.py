"""The one reduction that may steer the dynamics: a maximum, the same bits however the lattice is cut."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from hpcspin.parallel.world import World

Largest = Callable[[Tensor], float]


def largest_on(world: World) -> Largest:
    """A function that gives the largest absolute component on all ranks, NaN if there is one; all call together."""

    def largest(block: Tensor) -> float:
        return float(np.max(world.allgather(float(block.abs().max()))))

    return largest
