"""The simulation loop: step, record, checkpoint, stop, resume.

At every step, in this order: a field that changes with the steps is renewed, a due frame is recorded, a due checkpoint
is written, the run stops if that is requested, the spins move.  A checkpoint of step s therefore covers the field and
all frames up to s, and frames that a killed run wrote beyond them are written again with the same bits: the noise is a
function of the step, the last field and a field's own state are in the checkpoint, and time is the number of steps
times their length, never a sum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcspin.dynamics.adaptive import AdaptiveStep
from hpcspin.dynamics.fields import Field, Observed, Stateful, part_of
from hpcspin.dynamics.integrators import largest_on
from hpcspin.dynamics.interrupt import EXIT_REQUEUE, StopRequest
from hpcspin.dynamics.motion import Motion
from hpcspin.dynamics.recording import Recorder, checked_state
from hpcspin.dynamics.settings import DynamicsSettings
from hpcspin.dynamics.step_bounds import drives_of, fastest_rate, step_bounds
from hpcspin.dynamics.torque import components_first
from hpcspin.errors import HpcspinError
from hpcspin.lattice import Lattice
from hpcspin.parallel.domain import Domain
from hpcspin.parallel.progress import progress
from hpcspin.parallel.stopwatch import report
from hpcspin.parallel.world import World
from hpcspin.storage import (
    TRAJECTORY,
    Checkpoint,
    check_spins,
    make_directory,
    open_hdf5,
    partial_path,
    read_checkpoint,
    write_checkpoint,
    write_json,
)

CHECKPOINT, STOP, RANK_TIMES = "checkpoint.h5", "STOP", "rank_times.json"
_STATE = "field_state/"
_TRIAL_FIELDS = 6
"""Evaluations of a field of finite range before a run starts, to decide whether its step is too long."""
CHECKPOINTING = ("dynamics.checkpoint_interval", "dynamics.checkpoint_minutes")
"""Keys of the config that decide when checkpoints are written, and do not affect the frames."""
_MAY_DIFFER = (
    "dynamics.duration",
    *CHECKPOINTING,
    *("potential", "training", "reproduce", "learning", "torque", "minimise", "path", "device", "plugins"),
    "dynamics.allow",
)


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes
    ----------
    step : int
        Steps done.
    finished : bool
        False if it was stopped from outside, with a checkpoint, to be run again.
    """

    step: int
    finished: bool

    @property
    def exit_code(self) -> int:
        """0, or 75 for "run me again"."""
        return 0 if self.finished else EXIT_REQUEUE


class Simulation:
    """One trajectory in one directory.

    The directory receives `trajectory.h5` when the run is finished (until then `trajectory.h5.partial`, readable at any
    time), `checkpoint.h5` and the checkpoint before it. Run again on the same directory, it resumes on any number of
    ranks, with bitwise equal results. A longer duration extends a finished run.

    Parameters
    ----------
    lattice
        The lattice.
    field
        What drives the spins.
    initial_spins
        Spins at time zero, shape (Lx, Ly, 3); used where there is no checkpoint.
    settings
        Settings of the run.
    directory
        Where the output goes.
    config
        What is stored with the trajectory, as JSON values.
    identity
        The config that identifies the run in its checkpoint, with digests of files in place of their paths; None for
        `config`. A run resumes only if it agrees with that of the checkpoint, except for `dynamics.duration`,
        `CHECKPOINTING` and the sections that do not affect a trajectory.
    electrons, vacancies
        Function that returns the electrons for observers, and sites without a spin, bool, shape (Lx, Ly); None for
        none.
    world
        The ranks; None for this process alone.
    device
        Where the spins live.
    dtype
        Precision of the spins.

    Raises
    ------
    HpcspinError
        If an argument is invalid, the directory holds a trajectory without checkpoint, or a checkpoint
        without trajectory, of another config or of a longer run.
    """

    def __init__(
        self,
        lattice: Lattice,
        field: Field,
        initial_spins: NDArray[np.float64],
        settings: DynamicsSettings,
        directory: str | Path,
        *,
        config: Mapping[str, Any],
        identity: Mapping[str, Any] | None = None,
        electrons: Callable[[], Any] | None = None,
        vacancies: NDArray[np.bool_] | None = None,
        world: World | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.world = world or World()
        self.settings, self._field, self._config = settings, field, config
        self._identity, self._electrons = config if identity is None else identity, electrons or (lambda: None)
        self._directory = Path(directory)
        self._trajectory, self._saved = self._directory / TRAJECTORY, self._directory / CHECKPOINT
        self._partial = partial_path(self._trajectory)
        self._device, self._dtype = torch.device(device), dtype
        self._domain = Domain.cut(lattice, self.world, field.halo)
        self._motion = Motion(field, self._domain, settings, self._device, vacancies)
        self._evaluate = self._motion.evaluate
        checked = check_spins(initial_spins, lattice.size, "initial spins", vacancies=vacancies)
        self._spins, self._step = self._block(checked), 0
        self._recorder_state: Mapping[str, Any] | None = None
        self._unfinished: Callable[[], None] | None = None
        self._resumed = self._resume()

    @property
    def spins(self) -> NDArray[np.float64] | None:
        """The spins now, shape (Lx, Ly, 3), on rank 0; None elsewhere."""
        return self._domain.gather(self._spins)

    def run(self) -> Outcome:
        """Run to the end of the duration, or until a request to stop.

        Returns
        -------
        Outcome
            Whether it finished; its `exit_code` is what the process should exit with.

        Raises
        ------
        HpcspinError
            If the spins cease to be finite, or the field fails.
        """
        last, step = self.settings.last_step, self._step
        complete = self._trajectory.exists() and not self._partial.exists() and step == last
        if self.world.broadcast(complete):
            self.world.log(f"{self._trajectory}: already finished, nothing to do")
            return Outcome(step, finished=True)
        self._domain.stopwatch.restart()
        with (
            self._open_trajectory() as recorder,
            StopRequest(self._directory / STOP, self.world, self.settings.checkpoint_minutes) as stop,
            progress(self.world, "simulate", last, step) as bar,
        ):
            if not self._resumed:
                self._renew()
                if self.settings.tolerance is None:
                    self._warn_of_a_long_step()
            while True:
                stopping, moved = stop.requested(), self._step > step
                if moved or not self._resumed:
                    self._save(recorder, force=stopping or stop.overdue)
                if moved:
                    # After the frame is recorded, so that the last line describes the end.
                    bar.advance(note=recorder.note if recorder else "")
                if self._step == last:
                    break
                if stopping:
                    self.world.log(f"stopped at step {self._step} with a checkpoint; run again to go on")
                    return Outcome(self._step, finished=False)
                self._spins, self._step = self._motion(self._spins, self._step), self._step + 1
                self._renew()
        report(self._domain.stopwatch, self.world, self._directory / RANK_TIMES, write_json)
        if recorder is not None:
            recorder.finish()
        self.world.barrier()
        return Outcome(last, finished=True)

    def _warn_of_a_long_step(self) -> None:
        spins, motion, largest = self._spins, self._motion, largest_on(self.world)
        if self._field.halo is None:  # expensive: the field of the first frame must do
            rate = largest(motion.velocity(spins))
        else:
            rate = fastest_rate(motion.velocity, spins, motion.sites, largest, _TRIAL_FIELDS)
        s, drives = self.settings, drives_of(self._field)
        bounds = step_bounds(s.integrator, rate, drives, s.duration, s.damping, s.temperature)
        for cause, bound in bounds.items():
            if s.step > bound:
                self.world.log(
                    f"warning: dynamics.step {s.step:.3g} is long for {s.integrator}: for {cause} up to "
                    f"{bound:.2g} is accurate; see hpcspin suggest-step"
                )

    def _renew(self) -> None:
        self._evaluate.renew(self._step, self._spins, self._time)

    def _save(self, recorder: Recorder | None, *, force: bool) -> None:
        """Record a frame and write a checkpoint, where they are due."""
        step, last = self._step, self.settings.last_step
        if self.settings.is_candidate(step) or step == last:
            self._record(recorder)
        if force or step == last or step % self.settings.checkpoint_interval == 0:
            self._checkpoint(recorder)

    def _record(self, recorder: Recorder | None) -> None:
        """Record a frame; on a GPU it is finished later, so that no step waits for its copy."""
        step, time, moving = self._step, self._time, self._spins
        spins, field = (self._domain.start_gather(block) for block in (moving, self._evaluate(moving, time)))
        self._finish_frame()  # The previous frame, while the device computes.
        observables = (
            self._field.observe(step, lambda: self._domain.whole(moving)) if isinstance(self._field, Observed) else {}
        )
        observed = {name: np.array(values) for name, values in observables.items()}

        def finish() -> None:
            whole, force = self._checked(spins(), step), field()
            if recorder is not None and whole is not None and force is not None:
                frame = self._motion.frame(whole, force, time, self._electrons())
                recorder.record(frame, whole, step, observed)

        self._unfinished = finish
        if self._device.type == "cpu":
            self._finish_frame()

    def _finish_frame(self) -> None:
        """Hand the last frame to the recorder; all ranks call it."""
        finish, self._unfinished = self._unfinished, None
        if finish is not None:
            finish()

    @property
    def _time(self) -> float:
        return self._step * self.settings.step

    def _checkpoint(self, recorder: Recorder | None) -> None:
        self._finish_frame()
        cached = self._evaluate.cached(self._spins, self._time)
        field = None if cached is None else self._domain.gather(cached)
        spins = self._checked(self.spins, self._step)
        if spins is None or recorder is None:
            return
        arrays = {"spins": spins}
        if field is not None:
            arrays["field"] = field
        if isinstance(self._field, Stateful):
            arrays |= {f"{_STATE}{name}": array for name, array in self._field.state_dict().items()}
        meta = {"step": self._step, "last_step": self.settings.last_step, "recorder": recorder.state}
        if isinstance(self._motion.advance, AdaptiveStep):
            meta["level"] = self._motion.advance.level
        recorder.flush()  # The checkpoint counts these frames.
        write_checkpoint(self._saved, arrays, meta, self._identity)

    def _checked(self, spins: NDArray[np.float64] | None, step: int) -> NDArray[np.float64] | None:
        if spins is not None and not np.isfinite(spins).all():
            raise HpcspinError(
                f"spins are not finite at step {step}; make dynamics.step smaller than {self.settings.step} or correct "
                "the field"
            )
        if spins is not None and not np.allclose(np.linalg.norm(spins, axis=-1), 1.0, rtol=0.0, atol=1e-5):
            raise HpcspinError(
                f"spins are no unit vectors at step {step}; dynamics.integrator {self.settings.integrator} must return "
                "unit vectors"
            )
        return spins

    def _resume(self) -> bool:
        """Continue from the newest checkpoint, read by rank 0, if there is one."""
        checkpoint: Checkpoint | None = None
        if self.world.rank == 0:
            make_directory(self._directory)
            checkpoint = read_checkpoint(self._saved, self._identity, _MAY_DIFFER)
            self._check_extends(checkpoint)
        checkpoint = self.world.broadcast(checkpoint)
        if checkpoint is None:
            return False
        try:
            self._load_state(checkpoint)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
            raise checkpoint.mismatch(error) from error
        self.world.log(f"resuming {self._directory} at step {self._step} of {self.settings.last_step}")
        return True

    def _load_state(self, checkpoint: Checkpoint) -> None:
        shape = (*self._domain.lattice.size, 3)
        spins = check_spins(checkpoint.array("spins", shape), None, f"{checkpoint.path}: spins")
        self._spins = self._block(spins)
        self._step = checkpoint.count("step", most=checkpoint.count("last_step"))
        self._recorder_state = checked_state(checkpoint.meta["recorder"])
        if "field" in checkpoint.arrays:
            field = self._block(checkpoint.array("field", shape))
            self._evaluate.store(self._spins, self._time, field)
        if isinstance(self._field, Stateful):
            self._field.load_state_dict(part_of(checkpoint.arrays, _STATE))
        if isinstance(self._motion.advance, AdaptiveStep):
            self._motion.advance.level = checkpoint.count("level")

    def _check_extends(self, checkpoint: Checkpoint | None) -> None:
        if checkpoint is None:
            if self._trajectory.exists():
                raise HpcspinError(
                    f"{self._trajectory}: would be overwritten, there is no checkpoint beside it to resume from; "
                    "choose another directory"
                )
            if self._partial.exists():
                self.world.log(
                    f"warning: {self._partial}: was left without a checkpoint to resume from; the run starts anew, and "
                    "replaces it"
                )
        elif self.settings.last_step < checkpoint.count("last_step"):
            raise HpcspinError(
                f"{checkpoint.path}: belongs to a run of {checkpoint.meta['last_step']} steps, the config asks for "
                f"{self.settings.last_step}; dynamics.duration can only be made longer"
            )
        elif self._partial.exists():
            # The checkpoint counts the frames of this file but does not hold them.
            advice = (
                "delete it to go on from the finished trajectory beside it"
                if self._trajectory.exists()
                else "its frames are lost, and the checkpoint goes on only behind them: delete it, checkpoint.h5 and "
                "checkpoint.previous.h5 to start again, or choose another --output"
            )
            with open_hdf5(self._partial, advice):
                pass
        elif not self._trajectory.exists():
            raise HpcspinError(
                f"{self._trajectory}: neither it nor its .partial exists, and {checkpoint.path} belongs to it; "
                "restore it, or start with another --output"
            )

    def _open_trajectory(self) -> Recorder | nullcontext[None]:
        if self.world.rank > 0:
            return nullcontext()
        empty = np.empty((*self._domain.lattice.size, 3))
        attributes = {"config": self._config, "precision": str(self._dtype).removeprefix("torch.")}
        return Recorder(
            self._trajectory,
            self._motion.frame(empty, empty, 0.0, self._electrons()),
            self.settings,
            attributes,
            self._step,
            self._recorder_state,
        )

    def _block(self, whole: NDArray[Any]) -> Tensor:
        return components_first(torch.as_tensor(whole[self._domain.slices], device=self._device, dtype=self._dtype))
