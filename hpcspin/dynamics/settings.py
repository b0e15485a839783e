"""What a run is told: how the spins move, which frames are kept, when checkpoints are written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hpcspin.dynamics.adaptive import AdaptiveStep
from hpcspin.dynamics.extremes import Largest
from hpcspin.dynamics.integrators import Step, make_integrator
from hpcspin.dynamics.observers import WaveVectors
from hpcspin.dynamics.step_bounds import tolerated_change
from hpcspin.dynamics.waveforms import Driven
from hpcspin.errors import HpcspinError


@dataclass(frozen=True)
class Settings:
    """Settings of a run; the names are those of the config's section `dynamics`.

    Attributes
    ----------
    damping : float
        Gilbert damping alpha.
    temperature : float
        Temperature of the Langevin noise; 0 for none.
    step, duration : float
        Time step and length of the run.
    integrator : str
        Registered name.
    tolerance : float or None
        Error of a spin component above which a step is divided; None for fixed steps.
    seed : int
        Of the noise.
    record_interval : int
        Steps between frames.
    record_window : pair of float or None
        Times between which frames are kept.
    record_walls : tuple of float
        Columns; where there are any, a frame is kept if the wall has passed one since the frame before.
    observers : tuple of str
        Names of what is recorded beside spins, field and the field's own observables.
    wave_vectors : tuple of pairs
        Of the observer `structure_factor`.
    compression : str or None
        HDF5 filter of the finished trajectory.
    checkpoint_interval : int
        Steps between checkpoints.
    checkpoint_minutes : float or None
        Minutes after which a checkpoint is written even if no interval is over.
    """

    damping: float
    temperature: float
    step: float
    duration: float
    integrator: str = "heun"
    tolerance: float | None = None
    seed: int = 1
    record_interval: int = 5
    record_window: tuple[float, float] | None = None
    record_walls: tuple[float, ...] = ()
    observers: tuple[str, ...] = ("wall_position", "magnetization", "mean_bond")
    wave_vectors: WaveVectors = ()
    compression: str | None = None
    checkpoint_interval: int = 50
    checkpoint_minutes: float | None = None

    @property
    def last_step(self) -> int:
        """Number of steps: the fewest that reach the duration."""
        return math.ceil(self.duration / self.step * (1 - 1e-12))

    @property
    def capacity(self) -> int:
        """Most frames that the run can keep."""
        last = self.last_step
        return sum(map(self.is_candidate, range(0, last + 1, self.record_interval))) + (not self.is_candidate(last))

    def is_candidate(self, step: int) -> bool:
        """Whether a frame is kept after this step unless the wall decides otherwise; the first always is."""
        if step == 0 or self.record_window is None:
            return step % self.record_interval == 0
        first, last = (time / self.step for time in self.record_window)
        return step % self.record_interval == 0 and first * (1 - 1e-12) <= step <= last * (1 + 1e-12)

    def stepper(self, largest: Largest, drives: Sequence[Driven]) -> Step:
        """The integrator's step, fixed or adaptive, with the maximum over the ranks, for a field with these drives.

        Raises
        ------
        HpcspinError
            If the integrator is unknown, or cannot do what is asked of it.
        """
        chosen = make_integrator(self.integrator, noise=self.temperature > 0, largest=largest)
        if self.tolerance is None:
            return chosen.step
        if chosen.pair is None:
            raise HpcspinError(
                f"dynamics.tolerance: {chosen.name} estimates no error, its steps are fixed; leave the tolerance out, "
                "or choose integrator dormand_prince at temperature 0"
            )

        def longest(start: float, end: float) -> float:
            change = max((drive.rate(start, end) for drive in drives), default=0.0)
            return tolerated_change(chosen.name) / change if change else math.inf

        return AdaptiveStep(chosen.pair, chosen.order, self.tolerance, largest, longest)
