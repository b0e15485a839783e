"""Fields that need the whole lattice, such as that of the electrons."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcspin.dynamics.fields import BoundField
from hpcspin.dynamics.torque import components_first
from hpcspin.lattice import Lattice
from hpcspin.parallel.domain import Domain


class WholeLatticeField:
    """A field that is computed from all spins at once, such as that of the electrons; one with a state is a subclass.

    Every rank receives the whole configuration and calls the solver, which may share the work among the ranks; all must
    get the same result.  Other results of the solver, such as the density and the error estimate, are kept from the
    last evaluation, so that a recorded frame costs nothing more.

    Parameters
    ----------
    solve
        Function from spins of shape (1, Lx, Ly, 3) to an object with the arrays ``field`` (1, Lx, Ly, 3) and the
        observables.
    shapes
        Shape of each observable of one snapshot.
    """

    halo = None

    def __init__(self, solve: Callable[[NDArray[np.float64]], Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._solve = solve
        self.observable_shapes: dict[str, tuple[int, ...]] = dict(shapes)
        self.observables: dict[str, NDArray[np.float64]] = {}
        """Observables of the last evaluation."""
        self._spins: NDArray[np.float64] | None = None
        self.last_field: NDArray[np.float64] | None = None
        """Field of the last evaluation."""

    def observe(self, step: int, whole: Callable[[], Tensor]) -> dict[str, NDArray[np.float64]]:
        """See :class:`hpcspin.dynamics.fields.Observed`."""
        return self.observables

    def bind(self, domain: Domain) -> BoundField:
        """See :class:`hpcspin.dynamics.fields.Field`."""
        return _BoundWhole(self, domain)

    def evaluate(self, spins: NDArray[np.float64]) -> NDArray[np.float64]:
        """Field on the whole lattice, shape (Lx, Ly, 3) like the spins; updates the observables to these spins."""
        state = self._solve(spins[None])
        self._spins, self.last_field = spins, np.asarray(state.field[0])
        self.observables = {name: np.asarray(getattr(state, name)[0]) for name in self.observable_shapes}
        return self.last_field

    def energy(self, lattice: Lattice, spins: NDArray[np.float64]) -> float | None:
        """Energy from which the field derives, Omega or F; None for driven electrons, which have none.

        The energy of the spins of the last evaluation is known already; for others all ranks must call together.
        """
        if "energy" not in self.observable_shapes:
            return None
        if self._spins is None or not np.array_equal(spins, self._spins):
            self.evaluate(spins)
        return float(self.observables["energy"])

    def start_step(self, step: int) -> bool:
        """Start a step; return whether the field of the same spins has changed."""
        return False

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """State that the solver keeps from step to step."""
        return {}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Return the solver to a state."""


class _BoundWhole:
    """A field of the whole lattice on a block."""

    def __init__(self, field: WholeLatticeField, domain: Domain) -> None:
        self._field, self._domain = field, domain

    def __call__(self, spins: Tensor, time: float) -> Tensor:
        whole = self._field.evaluate(spins.detach().to("cpu", torch.float64).contiguous().numpy())
        mine = np.ascontiguousarray(whole[self._domain.slices])
        return components_first(torch.from_numpy(mine).to(spins.device, spins.dtype))

    def renew(self, step: int, spins: Tensor, time: float) -> bool:
        """See :class:`hpcspin.dynamics.fields.Renewed`."""
        return self._field.start_step(step)
