"""Which frames are recorded, and what is measured on them; on rank 0, which holds the whole lattice.

Frames are measured at once, and written by a separate thread while the spins move on.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpcspin.dynamics.energies import Conservative, Energetic, energy_if_known
from hpcspin.dynamics.fields import Field, Observed, terms_of
from hpcspin.dynamics.observers import Frame
from hpcspin.dynamics.settings import DynamicsSettings
from hpcspin.lattice import Lattice, has_wall, wall_position
from hpcspin.storage import TrajectoryWriter

logger = logging.getLogger("hpcspin")

_WAITING = 1
"""Frames that may wait while another is being written; if the disk is slower than the run, the run waits."""


def checked_state(state: Any) -> Mapping[str, Any]:
    """The state of a `Recorder` from a checkpoint; ValueError if it is none."""
    kinds = {"frames": int, "closing": bool, "wall": float}
    if not isinstance(state, dict) or {name: type(value) for name, value in state.items()} != kinds:
        raise ValueError(f"the state of the recorder is {state!r:.60}")
    if state["frames"] < 0 or not math.isfinite(state["wall"]):
        raise ValueError(f"{state['frames']} frames are recorded and the wall is at {state['wall']}")
    return state


def observed_shapes(field: Field, lattice: Lattice, settings: DynamicsSettings) -> dict[str, tuple[int, ...]]:
    """Shapes of what a frame holds besides spins, field, step and time: observables of the field, and observers."""
    own = field.observable_shapes if isinstance(field, Observed) else {}
    return {**own, **{observer.name: observer.shape(lattice) for observer in settings.observers}}


class Recorder:
    """Writes the frames of a run while it is open; all are on the disk after `flush`.

    ``first`` is a frame that gives the shapes and is not written; ``step`` and ``state`` are those of the checkpoint,
    None at the start. Raises HpcspinError if the file does not hold the frames that the checkpoint counts.
    """

    def __init__(
        self,
        path: Path,
        first: Frame,
        settings: DynamicsSettings,
        attributes: Mapping[str, Any],
        step: int,
        state: Mapping[str, Any] | None,
    ) -> None:
        self._settings = settings
        self._frames, self._closing, self._wall = 0, False, 0.0
        self.note = ""
        if state is not None:
            self._frames, self._closing, self._wall = state["frames"], state["closing"], state["wall"]
        shapes = observed_shapes(first.source, first.lattice, settings)
        if "energy" in shapes and (
            without := [term for term in _beside(first) if not isinstance(term, Conservative | Energetic)]
        ):
            names = ", ".join(type(term).__name__ for term in without)
            logger.warning(f"warning: /energy leaves out {names}, which derives from no energy")
        self._writer = TrajectoryWriter(
            path,
            first.lattice.size,
            attributes,
            settings.capacity,
            shapes,
            # A frame that was kept only because the run ended is no frame of a longer run.
            keep=self._frames + (self._closing and step == settings.last_step),
            at_most=bool(settings.record_walls),
            compression=settings.compression,
        )
        self._appending = _SerialCalls(self._writer.append)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._appending.close()

    @property
    def state(self) -> dict[str, Any]:
        """The state to be stored in a checkpoint."""
        return {"frames": self._frames, "closing": self._closing, "wall": self._wall}

    def record(self, frame: Frame, spins: NDArray[np.float64], step: int, observed: Mapping[str, ArrayLike]) -> None:
        """Write a frame, if it is due, with spins and observables of its field, which must not change afterwards.

        Raises HpcspinError or OSError if an earlier frame could not be written.
        """
        chosen = self._settings.is_candidate(step) and self._wall_allows(frame, step)
        self._closing = not chosen and step == self._settings.last_step
        self._frames += chosen
        if chosen or self._closing:
            # An observer replaces the field's observable of the same name.
            measured = {observer.name: observer.measure(frame) for observer in self._settings.observers}
            values = {**_of_whole_field(observed, frame), **measured}
            self.note = _in_words(frame, measured.get("wall_position"))
            self._appending(spins=spins, field=frame.force, step=step, time=frame.time, **values)

    def flush(self) -> None:
        """Wait until all frames would survive a crash; raise the error of a failed write."""
        self._appending.wait()

    def finish(self) -> None:
        """Give the trajectory its real name."""
        self.flush()
        self._writer.finish()

    def _wall_allows(self, frame: Frame, step: int) -> bool:
        if not self._settings.record_walls:
            return True
        before, self._wall = self._wall, float(wall_position(frame.lattice, frame.spins))
        return step == 0 or any((before < x) != (self._wall < x) for x in self._settings.record_walls)


def _beside(frame: Frame) -> list[Field]:
    """Terms of the field of a frame besides closed electrons, whose energy is an observable."""
    return [term for term in terms_of(frame.source) if "energy" not in getattr(term, "observable_shapes", ())]


def _of_whole_field(observed: Mapping[str, ArrayLike], frame: Frame) -> Mapping[str, ArrayLike]:
    """Observables of a field; to the energy of its electrons those of all other terms that have one are added."""
    others = _beside(frame)
    if "energy" not in observed or not others:
        return observed
    spins = np.nan_to_num(frame.spins)
    added = sum(energy_if_known(term, frame.lattice, spins, frame.time) or 0.0 for term in others)
    return {**observed, "energy": np.asarray(observed["energy"]) + added}


def _in_words(frame: Frame, wall: NDArray[np.float64] | float | None) -> str:
    """Text for the progress display: where the wall is, if there is one, else the size of the mean spin."""
    if wall is not None and has_wall(frame.lattice, frame.spins):
        return f"at time {frame.time:g} the wall is at {float(wall):.1f}"
    return f"at time {frame.time:g} the magnetisation is {np.linalg.norm(np.nanmean(frame.spins, axis=(0, 1))):.2f}"


class _SerialCalls:
    """Calls of a function in a separate thread, one after the other; after a failure no further call is made."""

    def __init__(self, function: Callable[..., None]) -> None:
        self._function = function
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="recorder")
        self._calls: deque[Future[None]] = deque()

    def __call__(self, **given: Any) -> None:
        """Start a call once at most `_WAITING` others are unfinished; raise the error of one that failed."""
        self.wait(_WAITING)
        self._calls.append(self._thread.submit(self._call, [*self._calls], given))

    def wait(self, left: int = 0) -> None:
        """Wait until at most ``left`` calls are unfinished; raise the error of one that failed."""
        while self._calls and (len(self._calls) > left or self._calls[0].done()):
            self._calls[0].result()
            self._calls.popleft()

    def close(self) -> None:
        """End the thread when its calls are done."""
        self._thread.shutdown()

    def _call(self, before: list[Future[None]], given: dict[str, Any]) -> None:
        for call in before:
            call.result()  # Raises the error of one that failed.
        self._function(**given)
