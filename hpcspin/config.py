"""The typed configuration: one YAML file a system.

Unknown keys are refused with the nearest valid name. Sections that a verb does not use may be absent; `Config.need`
refuses a config without one that it uses.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import AfterValidator, Field, ValidationError, model_validator

import hpcspin.assembly.monitor
import hpcspin.assembly.transport  # noqa: F401  They register the observers of learned fields and of transport.
from hpcspin import dynamics, training
from hpcspin.config_text import Override, read_yaml
from hpcspin.dynamics import CLOSED_OBSERVERS, ClassicalSettings
from hpcspin.electrons.settings import ElectronsSettings
from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice
from hpcspin.lattice.settings import InitialSettings, LatticeSettings
from hpcspin.potential.settings import PotentialSection
from hpcspin.registry import load_plugins
from hpcspin.settings import (
    Count,
    Finite,
    Integer,
    Mistake,
    NonNegative,
    Positive,
    Section,
    Seed,
    Vector,
    first_mistake,
)
from hpcspin.storage import NUMERICS

SectionT = TypeVar("SectionT", bound=Section)

_LONGEST = 1_000_000
"""Characters of a config."""


def allowed_key(key: str) -> str:
    """Check a key of the electrons that may differ between labels, models and systems, such as `electrons.exchange`."""
    section, _, name = key.partition(".")
    keys = [f"electrons.{field}" for field in ElectronsSettings.model_fields if field not in NUMERICS]
    if section != "electrons" or f"electrons.{name.partition('.')[0]}" not in keys:
        raise ValueError(f"{key!r} is no key of the electrons of a system; choose from {', '.join(keys)}")
    return key


Allowed = tuple[Annotated[str, AfterValidator(allowed_key)], ...]


class DynamicsSection(dynamics.Settings):
    """Landau-Lifshitz-Gilbert dynamics, and the field that moves the spins."""

    field: Literal["electrons", "learned", "corrected", "classical"] = "electrons"
    """``electrons`` (exact), ``learned`` (then ``model``), ``corrected`` (learned, with the difference from the exact
    field at every ``exact_interval``-th step), or ``classical`` (those terms alone)."""
    model: str | None = None
    """Saved force field (.safetensors), or the directory of a committee, whose mean is the field."""
    model_precision: Literal["float32", "float64"] | None = None
    """In which the force field computes; none for that of its training. Spins are always float64."""
    allow: Allowed = ()
    """Keys of the electrons, such as ``electrons.exchange``, that may be others than those that the model has learned
    from, although it does not see them."""
    exact_interval: Count | None = None
    """Steps from one exact label of a ``corrected`` field to the next."""
    check_interval: Count | None = None
    """Recorded frames from one exact label of a learned trajectory to the next; none for no labels."""
    classical: ClassicalSettings = ClassicalSettings()

    @model_validator(mode="after")
    def _possible(self) -> DynamicsSection:
        if self.check_interval and (self.field != "learned" or self.record_walls):
            raise ValueError("check_interval is for field: learned without record_walls; leave it out")
        if self.field != "corrected":
            if self.exact_interval is not None:
                raise ValueError("exact_interval is for field: corrected; leave it out")
        elif self.model is None:
            raise ValueError("field: corrected needs model, the path of a saved force field")
        elif self.exact_interval is None:
            raise ValueError("field: corrected needs exact_interval, the steps from one exact label to the next")
        return self


class TrainingSection(training.Settings):
    """From shards to weights."""

    start: str | None = None
    """A shipped or saved force field to train further, of the same architecture, or of ``drive: bias`` for one of
    ``drive: potentials``; the learning rate should then be smaller."""
    members: Annotated[Count, Field(le=100)] = 1
    """Force fields to train with seeds of their own; two or more form a committee."""
    validation: tuple[str, ...] = ()
    """Shards, by file name, of the independent trajectories kept for validation."""
    allow: Allowed = ()
    """Keys of the electrons, such as ``electrons.exchange``, in which the label files may differ, although the force
    field does not see them."""


class RunSection(Section):
    """One trajectory of a reproduction: what differs from ``initial`` and ``dynamics``."""

    seed: Seed
    initial: InitialSettings | None = None
    duration: Positive | None = None
    temperature: NonNegative | None = None


class ReproduceSection(Section):
    """The runs behind the paper's figures."""

    train: Annotated[tuple[RunSection, ...], Field(min_length=1)]
    """Trajectories that are learned from."""
    validation: Annotated[tuple[RunSection, ...], Field(min_length=1)]
    """Independent trajectories that choose the epoch."""
    test: Annotated[tuple[RunSection, ...], Field(min_length=1)]
    """Independent trajectories that are reported; the learned field repeats each from the same spins."""


class LearningSection(Section):
    """Active learning: learned trajectories from new starts, of which a few frames are labelled, round after round."""

    initial: Annotated[tuple[InitialSettings, ...], Field(min_length=1)]
    """Starts of the trajectories, in turn."""
    start: str | None = None
    """Saved force field, or committee, that moves the spins of round 1; none for one trained on a round 0 of labels
    of initial spins."""
    rounds: Count = 4
    """Rounds of learned trajectories."""
    trajectories: Annotated[Count, Field(ge=2, le=9999)] = 16
    """Learned trajectories of a round; the first of them is kept for validation."""
    labels: Count = 160
    """Exact labels of a round."""
    selection: Literal["spread", "time"] = "spread"
    """From each stretch of a trajectory the frame on which the committee disagrees most, or a random one."""
    target: Positive | None = None
    """Mean squared error of a model on the fresh labels of the next round at which that round is the last."""
    seed: Annotated[Seed, Field(le=4000)] = 1
    """The seeds of all trajectories follow from it."""

    @model_validator(mode="after")
    def _enough(self) -> LearningSection:
        if self.labels < self.trajectories:
            raise ValueError("labels must be at least as many as trajectories: one frame of each")
        return self


class SwitchingSection(Section):
    """Voltage at which a magnet along the axis becomes unstable, by the equation of motion linear around it."""

    voltages: Annotated[tuple[Finite, ...], Field(min_length=2)]
    """Voltages; the largest growth rate is to change its sign among them."""
    start: Literal["parallel", "antiparallel"] = "parallel"
    """Direction of the magnet against the axis."""
    tilt: Annotated[Positive, Field(le=10)] = 1.0
    """Angle in degrees by which one spin after the other is tilted, to find how all respond, and all to begin a run."""
    precision: Positive | None = None
    """Also runs of the nonlinear equation, of ``dynamics.duration``, at these voltages and between, until they bracket
    the critical voltage as narrowly as this; none for no runs."""


class TorqueSection(Section):
    """Torque of a polarised current on a uniform magnet, against angle and voltage."""

    voltages: Annotated[tuple[Finite, ...], Field(min_length=1)]
    """Voltages V."""
    shares: dict[str, Finite] = Field({"left": 0.5, "right": -0.5}, min_length=1)
    """By the name of a reservoir: what V adds to its potential, as a part of V."""
    angles: Annotated[tuple[Annotated[Positive, Field(lt=180)], ...], Field(min_length=1)]
    """Angles of the magnet to the axis, in degrees."""
    axis: Vector | None = None
    """Direction of the polarisation; none for that of the polarised reservoirs."""
    free: tuple[Integer, Integer] | None = None
    """First and last column of the magnet, which is turned; spins elsewhere stand along the axis. None for all."""
    model: str | None = None
    """Force field to compare with the exact one: a path, or the name of one that comes with the program."""
    switching: SwitchingSection | None = None


class MinimiseSection(Section):
    """Spins at rest."""

    tolerance: Positive = 1e-6
    """Largest torque that is left on a spin."""
    evaluations: Count = 10_000
    """Evaluations of the field at most."""
    tilt: NonNegative = 1e-3
    """Standard deviation of random vectors that are added to the initial spins: a saddle has no torque either."""


class PathSection(Section):
    """Minimum-energy path between two states."""

    images: Annotated[Count, Field(ge=3)] = 9
    """States along the path, both ends counted."""
    tolerance: Positive = 1e-4
    """Largest residual force on a spin."""
    evaluations: Count = 100_000
    """Evaluations of an image's field at most."""
    tilt: NonNegative = 0.1
    """Standard deviation of random vectors that are added to the first path, a geodesic: without them it keeps any
    symmetry that both ends have."""


class Config(Section):
    """Everything that defines a system and what is done with it."""

    lattice: LatticeSettings
    electrons: ElectronsSettings | None = None
    initial: InitialSettings | None = None
    dynamics: DynamicsSection | None = None
    potential: PotentialSection | None = None
    training: TrainingSection | None = None
    reproduce: ReproduceSection | None = None
    learning: LearningSection | None = None
    torque: TorqueSection | None = None
    minimise: MinimiseSection | None = None
    path: PathSection | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    plugins: tuple[str, ...] = ()
    """Modules of one's own that register lattices, textures, solvers and so on: names, or files beside the config."""

    @model_validator(mode="before")
    @classmethod
    def _closed_observers(cls, given: Any) -> Any:
        """A closed lattice has no wall, which is observed by default."""
        sections = given if isinstance(given, dict) else {}
        electrons, motion = sections.get("electrons"), sections.get("dynamics")
        if not (isinstance(electrons, dict) and isinstance(motion, dict)) or electrons.get("reservoirs"):
            return given
        return {**sections, "dynamics": {"observers": list(CLOSED_OBSERVERS), **motion}}

    @model_validator(mode="after")
    def _on_the_lattice(self) -> Config:
        """Electrons as values of sites: whether those of two files agree does not depend on how they were written."""
        if self.electrons is not None:
            lattice = make_lattice(self.lattice.kind, self.lattice.size, self.lattice.periodic)
            object.__setattr__(self, "electrons", self.electrons.on(lattice))
        return self

    def need(self, *sections: str) -> None:
        """Check that the sections a verb uses are there.

        Raises
        ------
        HpcspinError
            Naming the first one that is absent.
        """
        for section in sections:
            if getattr(self, section) is None:
                raise HpcspinError(f"the config has no section {section!r}, which this verb needs; add it")

    def section(self, kind: type[SectionT]) -> SectionT:
        """The section of a kind, such as `DynamicsSection`; where it is absent see `need`."""
        name = next(name for name, field in type(self).model_fields.items() if kind in get_args(field.annotation))
        self.need(name)
        found: SectionT = getattr(self, name)
        return found

    def as_json(self) -> str:
        """The resolved config as JSON: what is stored with every output."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True)


def load_config(path: str | Path, overrides: Sequence[str] | None = None) -> Config:
    """Read a YAML file, apply ``key.path=value`` overrides, import the plugins that it names, validate.

    Raises
    ------
    HpcspinError
        If the file cannot be read, a plugin fails, or a key or value is wrong; the file or the override is named.
    """
    given = [Override.parse(text) for text in overrides or ()]
    content = _read_file(Path(path))
    written = copy.deepcopy(content)
    places = [override.apply(content) for override in given]
    load_plugins(_named_plugins(content), Path(path).parent)
    parsed = _validated(content)
    if isinstance(parsed, Config):
        return parsed
    shared = [_shared(place, parsed.keys) for place in places]
    if not any(shared) or parsed == _validated(written):
        raise HpcspinError(f"{path}: {parsed.message}")
    last = max(range(len(given)), key=lambda number: (shared[number], number))
    raise HpcspinError(f"override {given[last].text!r}: {parsed.message}")


def parse_config(content: dict[str, Any], source: str) -> Config:
    """Validate a config that is already a mapping, as files store it; plugins that it names are not imported.

    Raises
    ------
    HpcspinError
        Naming the key, what is wrong and the nearest valid key.
    """
    parsed = _validated(content)
    if isinstance(parsed, Mistake):
        raise HpcspinError(f"{source}: {parsed.message}")
    return parsed


def _read_file(path: Path) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_LONGEST + 1)
        if len(text) > _LONGEST:
            raise HpcspinError(f"has more than {_LONGEST} characters, as no config has; check the path")
        content = read_yaml(text)
    except (OSError, UnicodeDecodeError) as failure:
        reason = getattr(failure, "strerror", None) or "not a text file"
        raise HpcspinError(f"{path}: the config cannot be read ({reason})") from failure
    except HpcspinError as failure:
        raise HpcspinError(f"{path}: {failure}") from failure
    if not isinstance(content, dict):
        raise HpcspinError(f"{path}: the config must be a mapping of sections such as 'lattice:'")
    return content


def _validated(content: dict[str, Any]) -> Config | Mistake:
    try:
        return Config.model_validate(content)
    except ValidationError as failure:
        return first_mistake(failure)


def _named_plugins(content: dict[str, Any]) -> list[str]:
    """The plugins that a config names; validation reports what is wrong with the key."""
    names = content.get("plugins")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _shared(place: Sequence[str | int], keys: Sequence[str | int]) -> int:
    """How many of the first keys of two paths are the same."""
    same = [mine == other for mine, other in zip(place, keys, strict=False)]
    return [*same, False].index(False)
