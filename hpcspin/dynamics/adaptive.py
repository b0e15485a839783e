"""Adaptive time steps for deterministic runs, controlled by an error estimate.

The step of the config is divided into 2^level equal parts.  Frames, checkpoints and the count of steps stay on the
config's grid. The level, an integer decided by a maximum over all sites, is all that a restart needs. The estimate
misses a drive that is shorter than a part, so while a drive lasts no part is longer than it allows.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from hpcspin.dynamics.integrators import AngularVelocity, Largest, Pair
from hpcspin.errors import HpcspinError

_DEEPEST = 20


class AdaptiveStep:
    """A time step that is divided as far as its error requires: the next part is 2^-``level`` of the step.

    ``order`` is that of the better scheme of the ``pair``, ``tolerance`` the largest error of a component in one part,
    ``longest`` gives the longest part that the drives allow between two times.
    """

    def __init__(
        self, pair: Pair, order: int, tolerance: float, largest: Largest, longest: Callable[[float, float], float]
    ) -> None:
        self._pair, self._order, self._tolerance, self._largest = pair, order, tolerance, largest
        self._longest = longest
        self.level = 0

    def __call__(self, spins: Tensor, time: float, dt: float, omega: AngularVelocity) -> Tensor:
        """Spins after a time dt, like an integrator's step; raises HpcspinError if no part is short enough."""
        done = 0
        while done < 1 << self.level:
            part = dt / (1 << self.level)
            if part > self._longest(time, time + part):
                self._refine("a drive changes too fast for", "make dynamics.step shorter")
                done *= 2
                continue
            moved, error = self._pair(spins, time, part, omega)
            size = self._largest(error)
            if not size <= self._tolerance:
                self._refine(
                    f"dynamics.tolerance {self._tolerance} is missed by",
                    "the field is not smooth to that precision, or not finite: "
                    "make the tolerance larger, or correct the field",
                )
                done *= 2
                continue
            spins, time, done = moved, time + part, done + 1
            # By the order of the scheme, parts of twice the length stay within the tolerance, with a margin of 2.
            if self.level > 0 and done % 2 == 0 and size * 2 ** (self._order + 1) < self._tolerance:
                self.level, done = self.level - 1, done // 2
        return spins

    def _refine(self, what: str, advice: str) -> None:
        if self.level == _DEEPEST:
            raise HpcspinError(f"{what} even a millionth of dynamics.step; {advice}")
        self.level += 1
