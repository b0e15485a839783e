"""Settings of a run: how the spins move, which frames are recorded, when checkpoints are written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from hpcspin.dynamics.adaptive import AdaptiveStep
from hpcspin.dynamics.integrators import INTEGRATORS, Largest, Step, make_integrator
from hpcspin.dynamics.observers import ObserverSettings
from hpcspin.dynamics.step_bounds import tolerated_change
from hpcspin.dynamics.waveforms import Driven
from hpcspin.errors import HpcspinError
from hpcspin.lattice.settings import Sites
from hpcspin.settings import WIDEST, Count, Finite, NonNegative, Positive, Section, Seed

CLOSED_OBSERVERS = ("magnetization", "mean_bond", "mean_chirality")
"""Default observers of closed lattices, which have no wall between electrodes."""

MOST_STEPS = 1e15
"""Largest number of steps at which times, multiples of the step, are exact to double precision."""


class DynamicsSettings(Section):
    """Settings of a run: keys of the config's section ``dynamics``."""

    damping: NonNegative = 0.2
    """Gilbert damping alpha."""
    temperature: NonNegative = 0.0
    """Temperature of the Langevin noise; 0 for none."""
    step: Annotated[Positive, Field(le=WIDEST)] = 0.4
    """Time step; motion, drives and noise limit it, see ``hpcspin suggest-step``. The log warns if it is too long."""
    duration: Positive = 100.0
    integrator: Annotated[str, AfterValidator(INTEGRATORS.check)] = "heun"
    """``heun``, ``depondt_mertens``, ``sib``, ``midpoint``, or another registered one; without noise also ``rk4`` and
    ``dormand_prince``."""
    tolerance: Positive | None = None
    """Error of a spin component above which ``dormand_prince`` divides a step; it also does so for fast drives. None
    for fixed steps."""
    seed: Seed = 1
    """Seed of the noise, and of the random tilts of the initial spins."""
    pinned: Sites = ()
    """Sites whose spins are fixed, given like those of a reservoir: ``left``, ``{columns: [from, to]}``, [[x, y],
    ...]."""
    record_interval: Count = 5
    """Steps between recorded frames; the first and the last frame are always recorded."""
    record_window: tuple[NonNegative, NonNegative] | None = None
    """Times between which frames are recorded."""
    record_walls: tuple[Finite, ...] = ()
    """Columns; if any are given, a frame is recorded where the wall has passed one in the interval before."""
    observers: tuple[ObserverSettings, ...] = tuple(
        ObserverSettings(name=name) for name in ("wall_position", "magnetization", "mean_bond")
    )
    """What is recorded in addition to the spins, the field and its own observables: names, or sections of a ``name``
    and parameters. Also ``energy``, ``spin_temperature``, ``bond_map``, ``chirality``, ``mean_chirality``,
    ``chirality_correlation``, ``chirality_length``, ``chirality_walls``, ``bond_fractions``, ``puddles``,
    ``topological_charge``, ``structure_factor`` (with ``wave_vectors``); of a learned field ``outside``,
    ``outside_share``, and of a committee ``spread``; of electrons ``charge_current``, ``spin_current_x``,
    ``spin_current_y``, ``ldos``, ``transmission``."""
    compression: Literal["gzip", "lzf"] | None = None
    """Compression filter of the finished trajectory, with the bytes shuffled."""
    checkpoint_interval: Count = 50
    """Steps between checkpoints."""
    checkpoint_minutes: Positive | None = None
    """Minutes after which a checkpoint is written even before the interval is over."""

    @model_validator(mode="after")
    def _recordable(self) -> Self:
        if self.record_window is not None and self.record_window[0] > self.record_window[1]:
            raise ValueError("record_window ends before it begins; give [from, until]")
        if self.record_window is not None and self.record_window[0] > self.duration:
            raise ValueError(
                f"record_window begins at {self.record_window[0]:g}, after the duration of {self.duration:g}, and no "
                "frame would be in it; give an earlier one, or a longer duration"
            )
        names = [observer.name for observer in self.observers]
        if len(set(names)) < len(names):
            raise ValueError("observers has the same name twice; give it once")
        if not self.duration / self.step <= MOST_STEPS:
            raise ValueError(
                f"duration {self.duration:g} would take {self.duration / self.step:.3g} steps of {self.step:g}; give a "
                "shorter duration or a longer step"
            )
        return self

    @property
    def last_step(self) -> int:
        """Number of steps: the fewest that reach the duration."""
        return math.ceil(self.duration / self.step * (1 - 1e-12))

    @property
    def capacity(self) -> int:
        """Largest number of frames that the run can keep."""
        last, interval = self.last_step, self.record_interval
        first, until = (0.0, math.inf) if self.record_window is None else self.record_window
        low = max(1, math.ceil(first / self.step * (1 - 1e-12) / interval))
        high = math.floor(min(last, until / self.step * (1 + 1e-12)) / interval)
        return 1 + max(0, high - low + 1) + (not self.is_candidate(last))

    def is_candidate(self, step: int) -> bool:
        """Whether the frame after this step is kept, unless the wall decides otherwise; the first always is."""
        if step == 0 or self.record_window is None:
            return step % self.record_interval == 0
        first, last = (time / self.step for time in self.record_window)
        return step % self.record_interval == 0 and first * (1 - 1e-12) <= step <= last * (1 + 1e-12)

    def stepper(self, largest: Largest, drives: Sequence[Driven]) -> Step:
        """The integrator's step, fixed or adaptive, for a field with these drives; `largest`: maximum over the ranks.

        Raises HpcspinError if the integrator is unknown, or cannot do what is asked of it.
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
