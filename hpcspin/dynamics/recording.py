"""Which frames are kept, and what is measured on them; on rank 0, where the whole lattice is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpcspin.dynamics.fields import Observed
from hpcspin.dynamics.observers import Frame, make_observers
from hpcspin.dynamics.settings import Settings
from hpcspin.lattice import wall_position
from hpcspin.storage import TrajectoryWriter


class Recorder:
    """Writes the frames of a run.

    Parameters
    ----------
    path
        Trajectory file.
    first
        A frame of the run, for shapes; it is not written.
    settings
        What to keep.
    attributes
        Of the file.
    step, memory
        Where the run stands and the `memory` that its checkpoint holds; None at the start.

    Raises
    ------
    HpcspinError
        If the file does not hold what the checkpoint knows of.
    """

    def __init__(
        self,
        path: Path,
        first: Frame,
        settings: Settings,
        attributes: Mapping[str, Any],
        step: int,
        memory: Mapping[str, Any] | None,
    ) -> None:
        self._settings = settings
        self._observers = make_observers(settings.observers)
        self._frames, self._closing, self._wall = 0, False, 0.0
        if memory is not None:
            self._frames, self._closing, self._wall = memory["frames"], memory["closing"], memory["wall"]
        shapes = {observer.name: observer.shape(first.lattice, first.wave_vectors) for observer in self._observers}
        if isinstance(first.source, Observed):
            shapes |= first.source.observable_shapes
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

    @property
    def memory(self) -> dict[str, Any]:
        """What a checkpoint needs to hold."""
        return {"frames": self._frames, "closing": self._closing, "wall": self._wall}

    def take(self, frame: Frame, step: int) -> None:
        """Write a frame if it is to be kept."""
        chosen = self._settings.is_candidate(step) and self._wall_allows(frame, step)
        self._closing = not chosen and step == self._settings.last_step
        self._frames += chosen
        if chosen or self._closing:
            measured = {observer.name: observer.measure(frame) for observer in self._observers}
            own = frame.source.observables if isinstance(frame.source, Observed) else {}
            self._writer.append(spins=frame.spins, field=frame.force, step=step, time=frame.time, **measured, **own)

    def finish(self) -> None:
        """Give the trajectory its real name."""
        self._writer.finish()

    def _wall_allows(self, frame: Frame, step: int) -> bool:
        if not self._settings.record_walls:
            return True
        before, self._wall = self._wall, float(wall_position(frame.lattice, frame.spins))
        return step == 0 or any((before < x) != (self._wall < x) for x in self._settings.record_walls)
