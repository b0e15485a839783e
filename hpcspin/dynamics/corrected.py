"""Exact dynamics at a fraction of its cost: a cheap field, corrected by the exact one every few steps.

The difference between the two changes slowly compared with the fields themselves.  It is measured at the first stage of
a step and extrapolated over the following steps, in which only the cheap field follows the spins (multiple time
stepping). The remaining error is at most what the next measurement shows, and each run reports it. It changes sign from
interval to interval, while errors of the cheap field do not: even if both are equally large, corrected spins are far
closer to the exact ones.

A constant difference lags behind by half an interval. Linear extrapolation through the last two differences does not,
and keeps the spins closer to the exact ones.  Rotating the difference with the spins, instead of fixing it in space,
gains nothing.
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

from hpcspin.dynamics.fields import BoundField, Field, Overlapped, part_of
from hpcspin.dynamics.torque import components_first, dot
from hpcspin.dynamics.whole_lattice import WholeLatticeField
from hpcspin.parallel.domain import Domain

_EXACT, _TALLY, _LAST_ERRORS = "exact/", "tally/", ("deviation", "force_error")


@dataclass(frozen=True)
class Tally:
    """Errors of a run, as measured by its exact fields."""

    labels: int = 0
    """Number of exact fields."""
    deviations: float = 0.0
    """Sum of the mean squares of a perpendicular component of exact minus cheap field."""
    errors: float = 0.0
    """The same for exact minus corrected field just before each measurement, from the second one on."""

    def __str__(self) -> str:
        """Summary in one line."""
        cheap = math.sqrt(self.deviations / max(self.labels, 1))
        corrected = math.sqrt(self.errors / max(self.labels - 1, 1))
        text = f"{self.labels} exact labels; root mean square error of a field component: {cheap:.1e} uncorrected"
        if self.labels < 2:
            return text
        return f"{text}, {corrected:.1e} corrected"


class CorrectedField:
    """A cheap field plus its difference from the exact one, measured every few steps and extrapolated between.

    The part of the difference perpendicular to the spin is extrapolated linearly in time.  The part along the spin,
    which exerts no torque, turns with the spin: fixed in space it would exert a torque as soon as the spin turned.
    Before the first step the difference is zero.

    At frames where the exact field is measured, the field is the exact one, and so are its observables; at other frames
    they are NaN. Two further observables belong to the last measurement, ``deviation`` and ``force_error``: root mean
    squares of a perpendicular component of exact minus cheap field, and of exact minus corrected field just before the
    measurement. The latter is NaN until there are two measurements.

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
        # Difference perpendicular to and along the spins, and the rate of change of the former, on the whole lattice.
        self.difference = torch.zeros((*size, 7), dtype=torch.float64)
        self.measured_at = 0.0
        self.observable_shapes: dict[str, tuple[int, ...]] = {
            **exact.observable_shapes,
            **dict.fromkeys(_LAST_ERRORS, ()),
        }
        self.observables: dict[str, NDArray[np.float64]] = {
            name: np.full(shape, np.nan) for name, shape in self.observable_shapes.items()
        }

    def bind(self, domain: Domain) -> BoundField:
        """See :class:`hpcspin.dynamics.fields.Field`."""
        return _BoundCorrected(self, domain)

    def observe(self, step: int, whole: Callable[[], Tensor]) -> dict[str, NDArray[np.float64]]:
        """See :class:`hpcspin.dynamics.fields.Observed`."""
        return self.observables

    def update(self, time: float, difference: Tensor, miss: Tensor) -> None:
        """Take a new measurement.

        The ``difference`` is exact minus cheap field, shape (Lx, Ly, 4): three components of the part perpendicular to
        the spin, one along it; ``miss`` is exact minus corrected field just before, perpendicular to the spins.
        """
        labels = self.tally.labels
        across = difference[..., :3]
        rate = (across - self.difference[..., :3]) / (time - self.measured_at) if labels else torch.zeros_like(across)
        self.difference, self.measured_at = torch.cat([difference, rate], -1), time
        deviation, error = _mean_square(across), _mean_square(miss) if labels else 0.0
        self.tally = Tally(labels + 1, self.tally.deviations + deviation, self.tally.errors + error)
        self.observables = {**self.exact.observables, "deviation": np.sqrt(deviation)}
        self.observables["force_error"] = np.sqrt(error) if labels else np.array(np.nan)

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """See :class:`hpcspin.dynamics.fields.Stateful`."""
        return {
            "difference": self.difference.numpy(),
            "measured_at": np.array(self.measured_at),
            **{name: np.asarray(self.observables[name]) for name in _LAST_ERRORS},
            **{f"{_TALLY}{name}": np.array(value) for name, value in asdict(self.tally).items()},
            **{f"{_EXACT}{name}": array for name, array in self.exact.state_dict().items()},
        }

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """See :class:`hpcspin.dynamics.fields.Stateful`."""
        difference = np.array(state["difference"], dtype=np.float64)
        if difference.shape != self.difference.shape or any(state[name].shape for name in _LAST_ERRORS):
            raise ValueError(f"the differences have shape {difference.shape}, not {tuple(self.difference.shape)}")
        self.difference, self.measured_at = torch.from_numpy(difference), float(state["measured_at"])
        self.observables |= {name: np.asarray(state[name]) for name in _LAST_ERRORS}
        self.tally = Tally(**{name: state[f"{_TALLY}{name}"].item() for name in asdict(self.tally)})
        self.exact.load_state_dict(part_of(state, _EXACT))


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
            # The exact field's observables belong to other spins.
            field.observables |= {name: np.full(shape, np.nan) for name, shape in field.exact.observable_shapes.items()}
            return False
        field.exact.start_step(step)
        exact = self._exact(domain.whole(spins), time)
        around = domain.whole(spins) if field.halo is None else domain.extend(spins, field.halo)
        difference = exact - self._cheap(around, time)
        along, miss = dot(spins, difference), difference - self._correction(spins, time)
        parts = [difference - along * spins, along, miss - dot(spins, miss) * spins]
        whole = domain.whole(torch.cat(parts, -1)).to("cpu", torch.float64)
        field.update(time, whole[..., :4], whole[..., 4:])
        # After 1, 2, 4, 8 ... labels.
        if field.tally.labels.bit_count() == 1:
            domain.world.log(f"step {step}: {field.tally}")
        return True

    def _own(self, spins: Tensor) -> Tensor:
        if self._field.halo is None:
            return spins[self._domain.slices]
        (hx, hy), (nx, ny) = self._field.halo, self._domain.shape
        return spins[hx : hx + nx, hy : hy + ny]

    def _correction(self, spins: Tensor, time: float) -> Tensor:
        """The difference, extrapolated to a time and to these spins of my block."""
        if self._cut is None or self._cut[0] is not self._field.difference:
            mine = self._field.difference[self._domain.slices]
            self._cut = self._field.difference, components_first(mine.to(spins.device, spins.dtype))
        across, along, rate = self._cut[1].split((3, 1, 3), -1)
        return across + (time - self._field.measured_at) * rate + along * spins


def _mean_square(across: Tensor) -> float:
    """Mean square of a component of vectors perpendicular to the spins, shape (Lx, Ly, 3)."""
    # Two components share the square; NumPy's sum does not depend on the number of threads.
    return float(np.square(across.numpy()).sum(-1).mean() / 2)
