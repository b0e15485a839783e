"""Exact dynamics at a part of its price: a cheap field, put right by the exact one every few steps.

The difference between the two changes slowly beside the fields themselves.  It is measured at the first stage of a
step and carried on for some steps, in which the cheap field alone follows the spins (multiple time stepping).  What
is left of the cheap field's error is at most what the next measurement finds, and each run says how much that was.
It has another sign in the next interval, while errors of the cheap field last: where both are equally large the
spins can still be far closer to exact ones.

A difference that is held lags behind by half an interval; continued along the line through the last two it does
not, and the spins are closer to exact ones.  Turning it with the spins, instead of holding it in space, gains nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcspin.dynamics.fields import BoundField, Field, Overlapped
from hpcspin.dynamics.torque import components_first, dot
from hpcspin.dynamics.whole_lattice import WholeLatticeField
from hpcspin.parallel.domain import Domain

_EXACT, _TALLY, _KEPT = "exact/", "tally/", ("deviation", "force_error")


@dataclass(frozen=True)
class Tally:
    """What the exact fields of a run have told of its errors.

    Attributes
    ----------
    labels : int
        Exact fields.
    deviations : float
        Sum of the mean squares of a perpendicular component of exact minus cheap field.
    errors : float
        The same of exact field minus the one in use just before, from the second exact field on.
    """

    labels: int = 0
    deviations: float = 0.0
    errors: float = 0.0

    def __str__(self) -> str:
        """One line for people."""
        cheap = math.sqrt(self.deviations / max(self.labels, 1))
        corrected = math.sqrt(self.errors / max(self.labels - 1, 1))
        said = f"{self.labels} exact labels; root mean square error of a field component: {cheap:.1e} uncorrected"
        if self.labels < 2:
            return said
        return f"{said}, {corrected:.1e} with the correction of before"


class CorrectedField:
    """A cheap field plus its difference from the exact one, measured every few steps and continued between.

    Of the difference, the part across the spin is continued in space, linearly in time; the part along it, which
    moves nothing, turns with the spin.  Fixed in space it would become a torque as soon as the spin turns.  Before
    the first step begins the difference is zero.

    Its observables are those of the exact field at frames where that was measured, which is then the field, and NaN
    at others; beside them, of the last measurement, ``deviation`` and ``force_error``: root mean squares of a
    perpendicular component of exact minus cheap field, and of exact field minus the one in use just before.  The
    latter is NaN until there are two measurements.

    Parameters
    ----------
    cheap
        The field of finite range that follows the spins.
    exact
        The exact field.
    size
        Lattice size.
    interval
        Steps from one measurement to the next.

    Attributes
    ----------
    cheap : Field
        The cheap field.
    tally : Tally
        The errors so far.
    """

    def __init__(self, cheap: Field, exact: WholeLatticeField, size: tuple[int, int], interval: int) -> None:
        self.cheap, self.exact, self.interval = cheap, exact, interval
        self.halo = cheap.halo
        self.tally = Tally()
        # Difference across and along the spins, and the rate at which the former changes; the whole lattice.
        self.held = torch.zeros((*size, 7), dtype=torch.float64)
        self.since = 0.0
        self.observable_shapes: dict[str, tuple[int, ...]] = {**exact.observable_shapes, **dict.fromkeys(_KEPT, ())}
        self.observables: dict[str, NDArray[np.float64]] = {
            name: np.full(shape, np.nan) for name, shape in self.observable_shapes.items()
        }

    def bind(self, domain: Domain) -> BoundField:
        """See :class:`hpcspin.dynamics.fields.Field`."""
        return _BoundCorrected(self, domain)

    def observe(self, step: int, whole: Callable[[], Tensor]) -> dict[str, NDArray[np.float64]]:
        """See :class:`hpcspin.dynamics.fields.Observed`."""
        return self.observables

    def forget(self) -> None:
        """Hide the exact field's observables, which belong to other spins."""
        self.observables |= {name: np.full(shape, np.nan) for name, shape in self.exact.observable_shapes.items()}

    def take(self, time: float, held: Tensor, missed: Tensor) -> None:
        """Take a new measurement.

        Parameters
        ----------
        time
            When it was made.
        held
            Difference across and along the spins, shape (Lx, Ly, 4).
        missed
            Exact field minus the one in use just before, across the spins, shape (Lx, Ly, 3).
        """
        labels = self.tally.labels
        across = held[..., :3]
        rate = (across - self.held[..., :3]) / (time - self.since) if labels else torch.zeros_like(across)
        self.held, self.since = torch.cat([held, rate], -1), time
        deviation, error = _mean_square(across), _mean_square(missed) if labels else 0.0
        self.tally = Tally(labels + 1, self.tally.deviations + deviation, self.tally.errors + error)
        self.observables = {**self.exact.observables, "deviation": np.sqrt(deviation)}
        self.observables["force_error"] = np.sqrt(error) if labels else np.array(np.nan)

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """See :class:`hpcspin.dynamics.fields.Stateful`."""
        return {
            "held": self.held.numpy(),
            "since": np.array(self.since),
            **{name: np.asarray(self.observables[name]) for name in _KEPT},
            **{f"{_TALLY}{name}": np.array(value) for name, value in asdict(self.tally).items()},
            **{f"{_EXACT}{name}": array for name, array in self.exact.state_dict().items()},
        }

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """See :class:`hpcspin.dynamics.fields.Stateful`."""
        held = np.array(state["held"], dtype=np.float64)
        if held.shape != self.held.shape or any(state[name].shape for name in _KEPT):
            raise ValueError(f"the differences have shape {held.shape}, not {tuple(self.held.shape)}")
        self.held, self.since = torch.from_numpy(held), float(state["since"])
        self.observables |= {name: np.asarray(state[name]) for name in _KEPT}
        self.tally = Tally(**{name: state[f"{_TALLY}{name}"].item() for name in asdict(self.tally)})
        self.exact.load_state_dict({k.removeprefix(_EXACT): v for k, v in state.items() if k.startswith(_EXACT)})


class _BoundCorrected:
    """A corrected field on a block."""

    def __init__(self, field: CorrectedField, domain: Domain) -> None:
        self._field, self._domain = field, domain
        self._cheap, self._exact = field.cheap.bind(domain), field.exact.bind(domain)
        self._cut: tuple[Tensor, Tensor] | None = None

    def compute_interior(self, spins: Tensor, time: float) -> None:
        """See :class:`hpcspin.dynamics.fields.Overlapped`."""
        if isinstance(self._cheap, Overlapped):
            self._cheap.compute_interior(spins, time)

    def __call__(self, spins: Tensor, time: float) -> Tensor:
        return self._cheap(spins, time) + self._correction(self._own(spins), time)

    def renew(self, step: int, spins: Tensor, time: float) -> bool:
        """See :class:`hpcspin.dynamics.fields.Renewed`."""
        field, domain = self._field, self._domain
        if step % field.interval:
            field.forget()
            return False
        field.exact.start_step(step)
        exact = self._exact(domain.whole(spins), time)
        around = domain.whole(spins) if field.halo is None else domain.extend(spins, field.halo)
        difference = exact - self._cheap(around, time)
        along, missed = dot(spins, difference), difference - self._correction(spins, time)
        parts = [difference - along * spins, along, missed - dot(spins, missed) * spins]
        whole = domain.whole(torch.cat(parts, -1)).to("cpu", torch.float64)
        field.take(time, whole[..., :4], whole[..., 4:])
        # Seldom, and ever more seldom.
        if field.tally.labels.bit_count() == 1:
            domain.world.say(f"step {step}: {field.tally}")
        return True

    def _own(self, spins: Tensor) -> Tensor:
        if self._field.halo is None:
            return spins[self._domain.slices]
        (hx, hy), (nx, ny) = self._field.halo, self._domain.shape
        return spins[hx : hx + nx, hy : hy + ny]

    def _correction(self, spins: Tensor, time: float) -> Tensor:
        """The difference as it is continued to these spins of my block."""
        if self._cut is None or self._cut[0] is not self._field.held:
            mine = self._field.held[self._domain.slices]
            self._cut = self._field.held, components_first(mine.to(spins.device, spins.dtype))
        across, along, rate = self._cut[1].split((3, 1, 3), -1)
        return across + (time - self._field.since) * rate + along * spins


def _mean_square(across: Tensor) -> float:
    """Mean square of a component of vectors across the spins, shape (Lx, Ly, 3)."""
    # Two components share the square; NumPy's sum does not depend on the number of threads.
    return float(np.square(across.numpy()).sum(-1).mean() / 2)
