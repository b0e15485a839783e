"""Fields that need the whole lattice, such as that of the electrons."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcspin.dynamics.fields import BoundField, Stateful
from hpcspin.dynamics.torque import components_first
from hpcspin.parallel.domain import Domain


class SteadyStateLike(Protocol):
    """What a solver of the electrons returns for n snapshots; n = 1 here."""

    @property
    def field(self) -> NDArray[np.float64]:
        """Shape (n, Lx, Ly, 3)."""

    @property
    def density(self) -> NDArray[np.float64]:
        """Shape (n, Lx, Ly)."""

    @property
    def current(self) -> NDArray[np.float64]:
        """Shape (n, reservoirs)."""

    @property
    def error(self) -> NDArray[np.float64]:
        """Shape (n,)."""


class WholeLatticeField:
    """A field that is computed from all spins at once, such as that of the electrons.

    Every rank receives the whole configuration and calls the solver, which may share the work among the
    ranks; all must get the same result.  The density, currents and error estimate of the last
    evaluation are kept, so that a recorded frame costs nothing more.

    Parameters
    ----------
    solve
        Spins of shape (1, Lx, Ly, 3) to their steady state.
    size
        Lattice size.
    num_reservoirs
        Number of currents.
    state
        Where the solver keeps something from step to step: the object that holds it.
    """

    halo = None

    def __init__(
        self,
        solve: Callable[[NDArray[np.float64]], SteadyStateLike],
        size: tuple[int, int],
        num_reservoirs: int,
        state: Stateful | None = None,
    ) -> None:
        self._solve, self._state = solve, state
        self.observable_shapes: dict[str, tuple[int, ...]] = {
            "density": tuple(size),
            "current": (num_reservoirs,),
            "error": (),
        }
        self.observables: dict[str, NDArray[np.float64]] = {}
        """Of the last evaluation."""

    def observe(self, step: int, whole: Callable[[], Tensor]) -> dict[str, NDArray[np.float64]]:
        """See :class:`hpcspin.dynamics.fields.Observed`."""
        return self.observables

    def bind(self, domain: Domain) -> BoundField:
        """See :class:`hpcspin.dynamics.fields.Field`."""

        def evaluate(spins: Tensor, time: float) -> Tensor:
            whole = spins.detach().to("cpu", torch.float64).contiguous().numpy()
            steady = self._solve(whole[None])
            self.observables = {name: np.asarray(getattr(steady, name)[0]) for name in self.observable_shapes}
            mine = np.ascontiguousarray(steady.field[0][domain.slices])
            return components_first(torch.from_numpy(mine).to(spins.device, spins.dtype))

        return evaluate

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """State of the solver."""
        return self._state.state_dict() if self._state else {}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Return the solver to a state."""
        if self._state:
            self._state.load_state_dict(state)
