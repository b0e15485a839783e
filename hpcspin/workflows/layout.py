"""Where a reproduction keeps its parts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hpcspin.storage import TRAJECTORY


@dataclass(frozen=True)
class Layout:
    """Names of the files of a reproduction below its directory."""

    root: Path

    @property
    def config(self) -> Path:
        """The resolved config."""
        return self.root / "config.json"

    @property
    def stages(self) -> Path:
        """Seconds of each stage, over all restarts."""
        return self.root / "stages.json"

    @property
    def data(self) -> Path:
        """Training set: shards of the training and validation trajectories."""
        return self.root / "data"

    @property
    def test(self) -> Path:
        """Label files of the test trajectories."""
        return self.root / "test"

    @property
    def model(self) -> Path:
        """Checkpoints, metrics and the saved force field, or those of each member of a committee."""
        return self.root / "model"

    @property
    def evaluation(self) -> Path:
        """Errors of the force field on the test trajectories."""
        return self.root / "evaluation.json"

    @property
    def figures(self) -> Path:
        """The paper's figures."""
        return self.root / "figures"

    @property
    def numbers(self) -> Path:
        """All numbers of the reproduction."""
        return self.root / "numbers.json"

    @property
    def nonconservativity(self) -> Path:
        """How far states of the first test trajectory are from any energy function."""
        return self.root / "nonconservativity.json"

    def trajectory(self, field: str, name: str) -> Path:
        """Trajectory of one run under the field ``electrons`` or ``learned``."""
        return self.root / field / name / TRAJECTORY
