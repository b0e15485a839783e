"""The typed configuration: one YAML file a system.

Unknown keys are refused with the nearest known name. Sections that a verb
does not use may be absent; `Config.need` says so in one line when a verb misses one.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from hpcspin.config_errors import Mistake, first_mistake
from hpcspin.config_text import Override, read_yaml
from hpcspin.errors import HpcspinError
from hpcspin.lattice import LATTICES, TEXTURES


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number; YAML reads yes, no, on and off as true and false")
    return value


_Number = BeforeValidator(_no_boolean)
Positive = Annotated[float, _Number, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, _Number, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, _Number, Field(allow_inf_nan=False)]
Count = Annotated[int, _Number, Field(ge=1)]
Seed = Annotated[int, _Number, Field(ge=0, lt=2**32)]
Site = tuple[Annotated[int, _Number], Annotated[int, _Number]]
Vector = tuple[Finite, Finite, Finite]

_WITHOUT_MEANING = ("reproduce.record_interval",)
"""Keys of earlier versions that nothing read; they stand in every config that these have stored."""


class Section(BaseModel):
    """Base of all sections: strict and immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LatticeSection(Section):
    """The lattice."""

    kind: str = "square"
    """``square`` (4 neighbours) or ``triangular`` (6)."""
    size: tuple[Count, Count]
    """Sites along x, the transport direction, and along y."""
    periodic: tuple[bool, bool] = (False, True)

    @model_validator(mode="after")
    def _known(self) -> LatticeSection:
        _choose("kind", self.kind, LATTICES)
        return self


class ReservoirSection(Section):
    """A wide-band reservoir of electrons."""

    name: str
    sites: Literal["left", "right", "all"] | tuple[Site, ...]
    """``left`` (column 0), ``right`` (column Lx - 1), ``all``, or a list of sites [x, y]."""
    width: NonNegative
    """Level width g of a site; the width matrix is g(1 + p·sigma), the self-energy minus i times it."""
    potential: Finite
    """Chemical potential mu in units of the hopping."""
    polarization: Vector = (0.0, 0.0, 0.0)
    """Polarisation p of a magnetised electrode, |p| <= 1."""

    @model_validator(mode="after")
    def _positive(self) -> ReservoirSection:
        if math.hypot(*self.polarization) > 1 + 1e-12:
            raise ValueError("polarization is longer than 1; the width matrix would not be positive")
        return self


class ElectronsSection(Section):
    """The electrons of the s-d model and how their steady state is solved."""

    hopping: Positive = 1.0
    exchange: Finite = 3.8
    temperature: Positive = 0.01
    tolerance: Positive = 1e-6
    """Largest error of a field component; a label that misses it is an error."""
    solver: Literal["negf", "closed_form"] = "negf"
    """``negf`` (recursive Green's functions, any size) or ``closed_form`` (one dense eigenproblem)."""
    precision: Literal["complex128", "complex64"] = "complex128"
    """Of the Green's functions between the potentials; what complex64 costs is measured and counted as error."""
    reservoirs: Annotated[tuple[ReservoirSection, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _unique(self) -> ElectronsSection:
        names = [reservoir.name for reservoir in self.reservoirs]
        if len(set(names)) != len(names):
            raise ValueError("two reservoirs carry the same name")
        return self


class InitialSection(Section):
    """The spins at time zero."""

    kind: str
    """``wall``, ``antiferromagnet``, ``ferromagnet``, ``random``, or ``file``."""
    position: Finite | None = None
    """First antiferromagnetic column of a wall."""
    tilt: NonNegative | None = None
    """Standard deviation of the random tilt of each spin component; 0.1 where none is given."""
    path: str | None = None
    """HDF5 file whose last frame of /spins is taken, for ``file``."""

    @model_validator(mode="after")
    def _complete(self) -> InitialSection:
        _choose("kind", self.kind, [*TEXTURES, "file"])
        if (self.kind == "wall") != (self.position is not None):
            raise ValueError("position belongs to kind: wall, and a wall needs it")
        if self.tilt is not None and self.kind in ("random", "file"):
            raise ValueError(f"tilt has no meaning for kind: {self.kind}; leave it out")
        if (self.kind == "file") != (self.path is not None):
            raise ValueError("path belongs to kind: file, and a file needs it")
        return self


class DriveSection(Section):
    """A uniform field whose amplitude goes with time; the parameters are those of its kind."""

    kind: str
    """``sinusoid`` (frequency, phase), ``pulse`` (centre, width: a Gaussian), ``sinc`` (centre, frequency)."""
    field: Vector
    """Field at amplitude 1."""
    frequency: Positive | None = None
    """Angular frequency."""
    phase: Finite | None = None
    centre: Finite | None = None
    width: Positive | None = None


class ClassicalSection(Section):
    """Classical terms added to the field."""

    zeeman: Vector = (0.0, 0.0, 0.0)
    """Uniform external field."""
    anisotropy: Finite = 0.0
    """Single-ion anisotropy K of the energy -K (S·z)^2."""
    drives: tuple[DriveSection, ...] = ()
    """Uniform fields that go with time."""
    heisenberg: Finite | tuple[Finite, ...] = 0.0
    """Exchange J of the energy -J sum S_i·S_j over nearest neighbours, or [J_1, J_2, ...], one a shell."""
    dmi_interfacial: Finite = 0.0
    """Dzyaloshinskii-Moriya D of the energy sum D_ij·(S_i x S_j), D_ij = D z x r_ij."""
    dmi_bulk: Finite = 0.0
    """The same with D_ij = D r_ij."""
    slonczewski: Vector = (0.0, 0.0, 0.0)
    """Spin-transfer vector p: adds the torque -S x (S x p)."""


class DynamicsSection(Section):
    """Landau-Lifshitz-Gilbert dynamics."""

    field: Literal["electrons", "learned", "corrected", "classical"] = "electrons"
    """``electrons`` (exact), ``learned`` (then ``model``), ``corrected`` (learned, with the difference from the exact
    field at every ``exact_interval``-th step), or ``classical`` (those terms alone)."""
    model: str | None = None
    """Saved force field (.safetensors), or the directory of a committee, whose mean is the field."""
    exact_interval: Count | None = None
    """Steps from one exact label of a ``corrected`` field to the next."""
    damping: NonNegative = 0.2
    temperature: NonNegative = 0.0
    """Temperature of the Langevin noise; 0 for none."""
    step: Positive = 0.4
    duration: Positive = 100.0
    integrator: str = "heun"
    """``heun``, ``depondt_mertens``, ``sib``, ``midpoint``; without noise also ``rk4`` and ``dormand_prince``."""
    tolerance: Positive | None = None
    """Error of a spin component above which ``dormand_prince`` divides a step; none for fixed steps."""
    seed: Seed = 1
    record_interval: Count = 5
    """Steps between recorded frames; the first and the last one are recorded always."""
    record_window: tuple[NonNegative, NonNegative] | None = None
    """Times between which frames are recorded."""
    record_walls: tuple[Finite, ...] = ()
    """Columns; if any are given a frame is recorded where the wall has passed one since the interval before."""
    observers: tuple[str, ...] = ("wall_position", "magnetization", "mean_bond")
    """Also ``energy``, ``spin_temperature``, ``bond_map``, ``chirality``, ``mean_chirality``, ``topological_charge``,
    ``structure_factor``; of a learned field ``outside``, ``outside_share``, and of a committee ``spread``."""
    check_interval: Count | None = None
    """Recorded frames from one exact label of a learned trajectory to the next; none for no labels."""
    wave_vectors: tuple[tuple[Finite, Finite], ...] = ()
    """Where the structure factor is measured, in reciprocal vectors: [0.5, 0.5] is the square antiferromagnet."""
    compression: Literal["gzip", "lzf"] | None = None
    """Filter of the finished trajectory, with the bytes shuffled."""
    checkpoint_interval: Count = 50
    """Steps between checkpoints."""
    checkpoint_minutes: Positive | None = None
    """Minutes after which a checkpoint is written even if no interval is over."""
    classical: ClassicalSection = ClassicalSection()

    @model_validator(mode="after")
    def _recordable(self) -> DynamicsSection:
        if self.record_window is not None and self.record_window[0] > self.record_window[1]:
            raise ValueError("record_window ends before it begins; give [from, until]")
        if ("structure_factor" in self.observers) != bool(self.wave_vectors):
            raise ValueError("wave_vectors belong to the observer structure_factor, which needs them")
        if self.check_interval and (self.field != "learned" or self.record_walls):
            raise ValueError("check_interval is for field: learned without record_walls; leave it out")
        return self

    @model_validator(mode="after")
    def _correctable(self) -> DynamicsSection:
        if self.field != "corrected":
            if self.exact_interval is not None:
                raise ValueError("exact_interval is for field: corrected; leave it out")
            return self
        if self.model is None:
            raise ValueError("field: corrected needs model, the path of a saved force field")
        if self.exact_interval is None:
            raise ValueError("field: corrected needs exact_interval, the steps from one exact label to the next")
        return self


class PotentialSection(Section):
    """The learned force field."""

    kind: str = "pair"
    """``pair`` (potentials E and G), ``conservative`` (E alone), ``site`` (a pair of each site), ``direct`` (none)."""
    descriptor: str = "bonds"
    """``bonds`` (bonds and chiralities, the paper's) or ``densities`` (spin densities with learned kernels)."""
    radius: Positive = 2.3
    """Cutoff radius R_c in lattice constants."""
    symmetry: Literal["full", "bias"] = "bias"
    """``full`` point group of a site, or the subgroup that a bias along x leaves (the y mirror)."""
    time_reversal: Literal["broken", "even"] = "broken"
    """``broken``: features may be odd under S -> -S, as the fields of a driven system ask for; ``even``: none is."""
    hidden: Annotated[tuple[Count, ...], Field(min_length=1)] = (128, 128, 128, 128, 128)
    precision: Literal["float32", "float64"] = "float32"
    electrode_range: NonNegative = 0.0
    """Length in columns over which the network sees the electrodes at both ends of x, exp(-distance/length); 0: not."""
    layers: Annotated[tuple[Count, ...], Field(min_length=1)] = (1,)
    """Of a ``direct`` field of ``densities``: layers of neighbourhoods of this radius, one seen through the other; the
    number of each stretches it along x, from electrode to electrode."""
    channels: Annotated[Count, Field(ge=3)] = 12
    """Of a field of several layers: vectors that sites exchange; scalars, densities and products are in proportion."""


class TrainingSection(Section):
    """From shards to weights."""

    start: str | None = None
    """A saved force field of the same architecture to train further; the learning rate should then be smaller."""
    epochs: Count = 100
    batch: Count = 8
    """Snapshots in a step, over all ranks."""
    optimiser: Literal["adamw", "muon"] = "adamw"
    """``muon`` steps the matrices among the weights, AdamW the rest; meant for fields of several layers."""
    learning_rate: Positive = 1e-3
    warmup: NonNegative = 0.05
    """Share of the steps in which the learning rate rises."""
    weight_decay: NonNegative = 0.0
    gauge: NonNegative = 1e-4
    """Weight of the mean square of h^neq in the loss: the smallest G is chosen."""
    ema: Annotated[NonNegative, Field(lt=1)] = 0.995
    """Decay of the running mean of the weights, per step."""
    seed: Seed = 1
    compile: bool = False
    """Fuse the layers of a ``direct`` field by torch.compile: needs a C++ compiler and a minute or two to begin."""
    mixed_precision: bool = False
    """Make the products of the training in bfloat16; the saved model computes in ``potential.precision``. Of use
    on GPUs and on CPUs with units for bfloat16; without these it takes several times as long."""
    members: Annotated[Count, Field(le=100)] = 1
    """Force fields to train with seeds of their own; two or more form a committee."""
    checkpoint_interval: Count = 10
    """Epochs between checkpoints and validations."""
    validation: tuple[str, ...] = ()
    """Shards, by file name, of the independent trajectories kept for validation."""


class RunSection(Section):
    """One trajectory of a reproduction: what differs from ``initial`` and ``dynamics``."""

    seed: Seed
    initial: InitialSection | None = None
    duration: Positive | None = None


class ReproduceSection(Section):
    """The runs from which the paper's figures are made."""

    train: Annotated[tuple[RunSection, ...], Field(min_length=1)]
    """Trajectories that are learned from."""
    validation: Annotated[tuple[RunSection, ...], Field(min_length=1)]
    """Independent trajectories that choose the epoch."""
    test: Annotated[tuple[RunSection, ...], Field(min_length=1)]
    """Independent trajectories that are reported; the learned field repeats each from the same spins."""


class LearningSection(Section):
    """Active learning: learned trajectories from new starts, of which a few frames are labelled, round after round."""

    initial: Annotated[tuple[InitialSection, ...], Field(min_length=1)]
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
    """The seeds of all trajectories are made of it."""

    @model_validator(mode="after")
    def _enough(self) -> LearningSection:
        if self.labels < self.trajectories:
            raise ValueError("labels must be at least as many as trajectories: one frame of each")
        return self


class Config(Section):
    """Everything that defines a system and what is done with it."""

    lattice: LatticeSection
    electrons: ElectronsSection | None = None
    initial: InitialSection | None = None
    dynamics: DynamicsSection | None = None
    potential: PotentialSection | None = None
    training: TrainingSection | None = None
    reproduce: ReproduceSection | None = None
    learning: LearningSection | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def need(self, *sections: str) -> None:
        """Check that the sections a verb uses are there, and that their walls begin on the lattice.

        Raises
        ------
        HpcspinError
            Naming the first one that is absent, or the wall.
        """
        for section in sections:
            if getattr(self, section) is None:
                raise HpcspinError(f"the config has no section {section!r}, which this verb needs; add it")
        last = self.lattice.size[0] - 1
        for place, start in (found for section in sections for found in _starts(getattr(self, section), section)):
            if start.position is not None and not 0 <= start.position <= last:
                raise HpcspinError(
                    f"{place}.position: {start.position:g} is no column of the lattice, whose lattice.size has the "
                    f"columns 0 to {last}; choose one of them"
                )

    def as_json(self) -> str:
        """The resolved config as JSON: what is stored with every output."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True)


def load_config(path: str | Path, overrides: Sequence[str] | None = None) -> Config:
    """Read a YAML file, apply ``key.path=value`` overrides, validate.

    Raises
    ------
    HpcspinError
        If the file cannot be read, or a key or value is wrong; the file or the override is named.
    """
    given = [Override.parse(text) for text in overrides or ()]
    content = _read_file(Path(path))
    written = copy.deepcopy(content)
    for override in given:
        override.apply(content)
    found = _validated(content)
    if isinstance(found, Config):
        return found
    nearest = max(reversed(given), key=lambda override: override.shared(found.keys), default=None)
    if nearest is None or not nearest.shared(found.keys) or found == _validated(written):
        raise HpcspinError(f"{path}: {found.message}")
    raise HpcspinError(f"override {nearest.text!r}: {found.message}")


def parse_config(content: dict[str, Any], source: str) -> Config:
    """Validate a config that is already a mapping.

    Raises
    ------
    HpcspinError
        Naming the key, what is wrong and the nearest known key.
    """
    found = _validated(content)
    if isinstance(found, Mistake):
        raise HpcspinError(f"{source}: {found.message}")
    return found


def completed(stored: dict[str, Any]) -> dict[str, Any]:
    """A config from an earlier version's output, as this version would have written it.

    Keys that it does not know yet are at their defaults, and those that never had a meaning are left out.
    What is no valid config today is given back as it is.
    """
    known = {
        name: {key: value for key, value in section.items() if f"{name}.{key}" not in _WITHOUT_MEANING}
        if isinstance(section, dict)
        else section
        for name, section in stored.items()
    }
    try:
        return Config.model_validate(known).model_dump(mode="json")
    except ValidationError:
        return stored


def _read_file(path: Path) -> dict[str, Any]:
    try:
        content = read_yaml(path.read_text())
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
        return first_mistake(failure, Config)


def _starts(value: Any, place: str) -> Iterator[tuple[str, InitialSection]]:
    """Initial spins in a section, with the keys that lead there."""
    if isinstance(value, InitialSection):
        yield place, value
    elif isinstance(value, Section):
        for key in type(value).model_fields:
            yield from _starts(getattr(value, key), f"{place}.{key}")
    elif isinstance(value, tuple):
        for number, entry in enumerate(value):
            yield from _starts(entry, f"{place}.{number}")


def _choose(key: str, value: str, known: Any) -> None:
    if value not in known:
        raise ValueError(f"{key} {value!r} is unknown; choose one of {', '.join(sorted(known))}")
