"""Checks of a learned field while it moves the spins: range of the training data, spread of a committee, exact labels.

Three signs that a learned field can no longer be trusted, from the cheapest to the most reliable: spins whose
surroundings lie outside the training data, members of a committee that disagree, and an exact label of a frame at
intervals. None of them changes the trajectory.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcspin.assembly.learned import LearnedField
from hpcspin.dynamics import CorrectedField
from hpcspin.dynamics.fields import terms_of
from hpcspin.dynamics.observers import Frame, a_site, observer
from hpcspin.electrons import Solver
from hpcspin.errors import HpcspinError
from hpcspin.lattice import Lattice, perpendicular
from hpcspin.parallel.world import World
from hpcspin.potential import Committee, Drive, ForceField

logger = logging.getLogger("hpcspin")

_ALARM = 0.05
"""Share of the sites outside the training data at which the log first warns; it warns again at each doubling."""


class CheckedField(LearnedField):
    """A learned field that is compared with the exact one at some of the recorded frames.

    Its observables are ``exact_field`` (Lx, Ly, 3), the field of the electrons alone; the other data of an exact label,
    such as its error estimate ``exact_error`` and the currents ``exact_current``; and ``deviation``, the root mean
    square difference of a perpendicular component. They are NaN at frames between checks.

    All ranks share the work of the solver of the exact field; the interval is that of steps between checks.
    """

    def __init__(
        self,
        model: ForceField | Committee,
        drive: Drive,
        lattice: Lattice,
        solver: Solver[Any, Any],
        interval: int,
        world: World,
    ) -> None:
        super().__init__(model, drive)
        self._lattice, self._solver, self._interval, self._world = lattice, solver, interval, world
        self.observable_shapes: dict[str, tuple[int, ...]] = {
            "exact_field": (*lattice.size, 3),
            **{f"exact_{name}": shape for name, shape in solver.system.result_shapes.items()},
            "deviation": (),
        }

    def observe(self, step: int, whole: Callable[[], Tensor]) -> dict[str, NDArray[np.float64]]:
        """See :class:`hpcspin.dynamics.fields.Observed`."""
        if step % self._interval:
            return {name: np.full(shape, np.nan) for name, shape in self.observable_shapes.items()}
        spins = whole().detach().to("cpu", torch.float64).contiguous()
        # Discard the solver's state of earlier frames, so that a restart gives the same bits.
        self._solver.reset()
        self._solver.number = step
        exact = self._solver.solve(spins.numpy()[None])
        learned = self.on_lattice(self._lattice, spins, lambda *given: self.model(*given).field)
        deviation = _rms(spins, learned - exact.field[0])
        self._world.log(
            f"step {step}: rms error of a perpendicular component of the learned field {deviation:.1e} t, "
            f"rms of the exact one {_rms(spins, exact.field[0]):.1e} t"
        )
        labelled = {
            name: getattr(exact, name.removeprefix("exact_"))[0]
            for name in self.observable_shapes
            if name != "deviation"
        }
        return {**labelled, "deviation": np.asarray(deviation)}


def _rms(spins: Tensor, field: NDArray[np.float64]) -> float:
    """Root mean square of a perpendicular component; both shape (Lx, Ly, 3)."""
    # Two components share the square.
    return float((perpendicular(spins, torch.from_numpy(field)).square().sum(-1).mean() / 2).sqrt())


@observer("spread", a_site)
def spread(frame: Frame) -> NDArray[np.float64]:
    """Disagreement of a learned field's committee: an estimate of its error on every site."""
    field = _learned(frame, "spread")
    model = field.model
    if not isinstance(model, Committee):
        raise HpcspinError(
            "dynamics.observers: spread is the disagreement of a committee; let dynamics.model be the directory "
            "of one, or leave the observer out"
        )
    return field.on_lattice(frame.lattice, torch.tensor(frame.spins), model.spread)


@observer("outside", a_site)
def outside(frame: Frame) -> NDArray[np.float64]:
    """How far each site's surroundings lie outside the training data; 0 inside. See `ForceField.outside`."""
    field = _learned(frame, "outside")
    model = field.model
    if not model.has_envelope:
        raise HpcspinError(
            "dynamics.observers: outside needs a model that knows the range of its training data, which this one does "
            "not; train it again, or leave the observer out"
        )
    distances = field.outside(frame.lattice, frame.spins)
    share = float(np.mean(distances > 0))
    if share > max(_ALARM, 2 * field.alarmed):
        field.alarmed = share
        logger.warning(
            f"warning: at time {frame.time:g} the surroundings of {share:.0%} of the sites are outside the range of "
            "the model's training data"
        )
    return distances


@observer("nonequilibrium_potential")
def nonequilibrium_potential(frame: Frame) -> float:
    """Potential G of a learned field, from which h^neq derives; `energy` is E."""
    return _learned(frame, "nonequilibrium_potential").potentials(frame.lattice, frame.spins)[1]


@observer("outside_share")
def outside_share(frame: Frame) -> float:
    """Share of the sites whose surroundings lie outside the training data."""
    return float(np.mean(outside(frame) > 0))


def _learned(frame: Frame, name: str) -> LearnedField:
    for term in terms_of(frame.source):
        field = term.cheap if isinstance(term, CorrectedField) else term
        if isinstance(field, LearnedField):
            return field
    raise HpcspinError(f"dynamics.observers: {name} needs dynamics.field: learned or corrected; leave it out")
