"""The typed configuration: one YAML file per system.

Unknown keys are refused with the nearest valid name. Sections that a verb does not use may be absent; `Config.need`
raises an error if one that it uses is missing.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

import hpcspin.assembly.observers  # noqa: F401  Registers them.
from hpcspin import dynamics, training
from hpcspin.config_text import Choice, Override, combinations, read_yaml
from hpcspin.dynamics import CLOSED_OBSERVERS, ClassicalSettings
from hpcspin.electrons.settings import ElectronsSettings
from hpcspin.errors import HpcspinError
from hpcspin.lattice import make_lattice
from hpcspin.lattice.settings import InitialSettings, LatticeSettings, maps_fit
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
"""Largest number of characters in a config file."""


def allowed_key(key: str) -> str:
    """Check a key listed under `allow`: it must be a key of the section electrons, such as `electrons.exchange`."""
    section, _, name = key.partition(".")
    keys = [f"electrons.{field}" for field in ElectronsSettings.model_fields if field not in NUMERICS]
    if section != "electrons" or f"electrons.{name.partition('.')[0]}" not in keys:
        raise ValueError(f"{key!r} is no key of the electrons of a system; choose from {', '.join(keys)}")
    return key


def _distinct(values: tuple[float, ...]) -> tuple[float, ...]:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"the value {value:g} would count twice; give it once")
    return values


Distinct = AfterValidator(_distinct)
Allowed = tuple[Annotated[str, AfterValidator(allowed_key)], ...]


class DynamicsSection(dynamics.DynamicsSettings):
    """Landau-Lifshitz-Gilbert dynamics, and the field that moves the spins."""

    field: Literal["electrons", "learned", "corrected", "classical"] = "electrons"
    """``electrons`` (exact), ``learned`` (requires ``model``), ``corrected`` (learned, plus its difference from the
    exact field, measured every ``exact_interval`` steps), or ``classical`` (the classical terms alone)."""
    model: str | None = None
    """Saved force field (.safetensors), or the directory of a committee, whose mean is the field."""
    model_precision: Literal["float32", "float64"] | None = None
    """Precision of the force field; none for that of its training. Spins are always float64."""
    allow: Allowed = ()
    """Keys of the electrons, such as ``electrons.exchange``, whose values may differ from those of the model's training
    data although the model does not take them as input."""
    exact_interval: Count | None = None
    """Steps between two exact labels of a ``corrected`` field."""
    check_interval: Count | None = None
    """Recorded frames between two exact labels that check a learned trajectory; none for no labels."""
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


class TrainingSection(training.TrainingSettings):
    """Training of a force field on label files."""

    start: str | None = None
    """Shipped or saved force field from which training starts. It must have the same architecture, except that one of
    ``drive: bias`` may start one of ``drive: potentials``; the learning rate should then be smaller."""
    members: Annotated[Count, Field(le=100)] = 1
    """Number of force fields to train, each with its own seed; two or more form a committee."""
    validation: tuple[str, ...] = ()
    """File names of the label files, from independent trajectories, that are kept for validation."""
    allow: Allowed = ()
    """Keys of the electrons, such as ``electrons.exchange``, whose values may differ between the label files although
    the force field does not take them as input."""


class RunSection(Section):
    """One trajectory of a reproduction: where it differs from ``initial`` and ``dynamics``."""

    seed: Seed
    initial: InitialSettings | None = None
    duration: Positive | None = None
    temperature: NonNegative | None = None


class ReproduceSection(Section):
    """The runs behind the paper's figures."""

    train: Annotated[tuple[RunSection, ...], Field(min_length=1)]
    """Trajectories to train on."""
    validation: Annotated[tuple[RunSection, ...], Field(min_length=1)]
    """Independent trajectories, whose error selects the epoch to keep."""
    test: Annotated[tuple[RunSection, ...], Field(min_length=1)]
    """Independent trajectories to report; the learned field repeats each from the same initial spins."""


class LearningSection(Section):
    """Active learning: each round runs learned trajectories from new initial spins and labels a few of their frames."""

    initial: Annotated[tuple[InitialSettings, ...], Field(min_length=1)]
    """Initial spins of the trajectories, taken in turn."""
    start: str | None = None
    """Saved force field, or committee, that moves the spins in round 1; none to begin with a round 0, which trains one
    on labelled initial spins."""
    rounds: Count = 4
    """Rounds of learned trajectories."""
    vary: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(default_factory=dict)
    """Values of keys of the electrons or the dynamics, such as voltages, of which each trajectory has another: all
    combinations are taken in turn. Keys joined by commas change together, as in ``hpcspin sweep --vary``."""
    trajectories: Annotated[Count, Field(ge=2, le=9999)] = 16
    """Learned trajectories per round."""
    validation: Count = 1
    """Trajectories per round, the first ones, that are kept for validation."""
    labels: Count = 160
    """Exact labels per round."""
    selection: Literal["spread", "pool", "time"] = "spread"
    """Frames to label: as many of each trajectory, from each stretch of it that on which the committee disagrees most
    (``spread``) or a random one (``time``); or those of largest disagreement among all trajectories of the round
    (``pool``), which chooses initial spins and values of ``vary`` too."""
    target: Positive | None = None
    """A round is the last one if the previous model's mean squared error on its new labels is at most this."""
    seed: Annotated[Seed, Field(le=4000)] = 1
    """Determines the seeds of all trajectories."""

    @model_validator(mode="after")
    def _enough(self) -> LearningSection:
        if self.labels < self.trajectories:
            raise ValueError("labels must be at least as many as trajectories: one frame of each")
        if self.validation >= self.trajectories:
            raise ValueError("validation must leave trajectories for the training")
        wrong = [key for key in self.conditions[0] if key.partition(".")[0] not in ("electrons", "dynamics")]
        if wrong:
            raise ValueError(f"vary: {wrong[0]} cannot vary, only keys of electrons and dynamics can")
        if self.start is None and self.labels < len(self.conditions):
            raise ValueError(f"labels must be at least {len(self.conditions)}: one for each combination of vary")
        return self

    @property
    def conditions(self) -> list[Choice]:
        """All combinations of the values of ``vary``."""
        return combinations([f"{key}={json.dumps(values)[1:-1]}" for key, values in self.vary.items()], "vary")


class SwitchingSection(Section):
    """Voltage at which a magnet along the axis becomes unstable, from the linearised equation of motion."""

    voltages: Annotated[tuple[Finite, ...], Field(min_length=2), Distinct]
    """Voltages of one sign, among which the largest growth rate should change sign."""
    start: Literal["parallel", "antiparallel"] = "parallel"
    """Direction of the magnet relative to the axis."""
    tilt: Annotated[Positive, Field(le=10)] = 1.0
    """Angle in degrees by which each spin in turn is tilted to measure the response of all, and by which all are tilted
    at the start of a run."""
    precision: Positive | None = None
    """Width to which runs of the nonlinear equation, each of ``dynamics.duration``, bracket the critical voltage by
    bisection between the voltages above; none for no runs."""

    @field_validator("voltages")
    @classmethod
    def _of_one_sign(cls, voltages: tuple[float, ...]) -> tuple[float, ...]:
        if min(voltages) < 0 < max(voltages):
            raise ValueError("a critical voltage lies between voltages of one sign; make another run for the other")
        return voltages


class TorqueSection(Section):
    """Torque of a polarised current on a uniform magnet, against angle and voltage."""

    voltages: Annotated[tuple[Finite, ...], Field(min_length=1), Distinct]
    """Voltages V."""
    shares: dict[str, Finite] = Field({"left": 0.5, "right": -0.5}, min_length=1)
    """For each reservoir, by name, the fraction of V that is added to its potential."""
    angles: Annotated[tuple[Annotated[Positive, Field(lt=180)], ...], Field(min_length=1), Distinct]
    """Angles of the magnet to the axis, in degrees."""
    axis: Vector | None = None
    """Direction of the polarisation; none for that of the polarised reservoirs."""
    free: tuple[Integer, Integer] | None = None
    """First and last column of the magnet, which is turned; spins elsewhere stay along the axis. None for all."""
    model: str | None = None
    """Force field to compare with the exact field: a path, or the name of a shipped model."""
    switching: SwitchingSection | None = None


class MinimiseSection(Section):
    """Spins at rest: minimisation of the energy."""

    tolerance: Positive = 1e-6
    """Largest torque that may remain on a spin."""
    evaluations: Count = 10_000
    """Largest number of evaluations of the field."""
    tilt: NonNegative = 1e-3
    """Standard deviation of random vectors that are added to the initial spins, to leave a saddle, where the torque
    vanishes too."""


class PathSection(Section):
    """Minimum-energy path between two states."""

    images: Annotated[Count, Field(ge=3)] = 9
    """States along the path, both ends included."""
    tolerance: Positive = 1e-4
    """Largest residual force on a spin."""
    evaluations: Count = 100_000
    """Largest number of evaluations of the field, summed over the images."""
    tilt: NonNegative = 0.1
    """Standard deviation of random vectors that are added to the initial path, a geodesic; without them the path keeps
    any symmetry that both ends share."""


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
    """Modules of your own that register lattices, textures, solvers and so on: names, or files beside the config."""

    @model_validator(mode="before")
    @classmethod
    def _closed_observers(cls, given: Any) -> Any:
        """Set the default observers of a closed lattice, which has no wall."""
        sections = given if isinstance(given, dict) else {}
        electrons, motion = sections.get("electrons"), sections.get("dynamics")
        if not (isinstance(electrons, dict) and isinstance(motion, dict)) or electrons.get("reservoirs"):
            return given
        return {**sections, "dynamics": {"observers": list(CLOSED_OBSERVERS), **motion}}

    @model_validator(mode="after")
    def _on_the_lattice(self) -> Config:
        """Replace regions and columns by values and lists of sites: configs of the same system compare equal."""
        if self.electrons is not None:
            lattice = make_lattice(self.lattice.kind, self.lattice.size, self.lattice.periodic)
            object.__setattr__(self, "electrons", self.electrons.on(lattice))
        return self

    def need(self, *sections: str) -> None:
        """Check that the sections that a verb uses are there; raises HpcspinError, which names the first absent one."""
        for section in sections:
            if getattr(self, section) is None:
                raise HpcspinError(f"the config has no section {section!r}, which this verb needs; add it")

    def section(self, kind: type[SectionT]) -> SectionT:
        """The section of a given type, such as `DynamicsSection`; if it is absent, `need` raises its error."""
        name = next(name for name, field in type(self).model_fields.items() if kind in get_args(field.annotation))
        self.need(name)
        found: SectionT = getattr(self, name)
        return found

    def as_json(self) -> str:
        """The resolved config as JSON, as it is stored with every output."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True)


def load_config(path: str | Path, overrides: Sequence[str] | None = None) -> Config:
    """Read a YAML file, apply ``key.path=value`` overrides, import the plugins that it names, and validate.

    Raises HpcspinError, which names the file or the override, if anything of it is wrong.
    """
    given = [Override.parse(text) for text in overrides or ()]
    content = _read_file(Path(path))
    written = copy.deepcopy(content)
    places = [override.apply(content) for override in given]
    load_plugins(named_plugins(content, str(path)), Path(path).parent)
    parsed = _validated(content)
    if isinstance(parsed, Config):
        return parsed
    shared = [_shared(place, parsed.keys) for place in places]
    if not any(shared) or parsed == _validated(written):
        raise HpcspinError(f"{path}: {parsed.message}")
    for override, place in zip(given, places, strict=True):
        if place == [*parsed.keys[:-1], "kind"] and list(parsed.keys) not in places and _stands(content, parsed.keys):
            raise HpcspinError(
                f"override {override.text!r}: keeps the other parameters of the section: {parsed.message}; replace all "
                f"of it, '{'.'.join(override.keys[:-1])}={{kind: {override.value}}}' with what this kind needs"
            )
    last = max(range(len(given)), key=lambda number: (shared[number], number))
    raise HpcspinError(f"override {given[last].text!r}: {parsed.message}")


def parse_config(content: dict[str, Any], source: str) -> Config:
    """Validate a config that is already a mapping, as files store it; plugins that it names are not imported."""
    parsed = _validated(content)
    if isinstance(parsed, Mistake):
        raise HpcspinError(f"{source}: {parsed.message}")
    return parsed


def _read_file(path: Path) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_LONGEST + 1)
        if len(text) > _LONGEST:
            raise HpcspinError(f"has more than {_LONGEST} characters, too many for a config; check the path")
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
        lattice = content.get("lattice")
        size = lattice.get("size") if isinstance(lattice, dict) else None
        return Config.model_validate(content, context=maps_fit(size))
    except ValidationError as failure:
        return first_mistake(failure)


def named_plugins(content: Mapping[str, Any], source: str) -> list[str]:
    """The plugins of a config. No list of names is refused, or a name that is missing without them would be blamed."""
    names = content.get("plugins", [])
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise HpcspinError(f"{source}: plugins: must be a list of names in [ ], such as [my_terms.py]")
    return list(names)


def _stands(content: Any, keys: Sequence[str | int]) -> bool:
    """Whether a section that is there has a key."""
    for key in keys[:-1]:
        content = content[key]
    return keys[-1] in content


def _shared(place: Sequence[str | int], keys: Sequence[str | int]) -> int:
    """Number of leading keys that two paths share."""
    same = [mine == other for mine, other in zip(place, keys, strict=False)]
    return [*same, False].index(False)
