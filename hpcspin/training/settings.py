"""Settings of a training and its outcome."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from hpcspin.settings import Count, Flag, NonNegative, Number, Positive, Section, Seed
from hpcspin.training.metrics import Summary


class TrainingSettings(Section):
    """How to train: keys of the config's section ``training``."""

    epochs: Count = 100
    """Passes over the data. A larger number continues a finished training: its learning rate first returns to the
    value that the longer training has at that epoch, and then falls to 0."""
    batch: Count = 8
    """Snapshots in one step, over all ranks."""
    optimiser: Literal["adamw", "muon"] = "adamw"
    """``muon`` updates the weight matrices by Muon and all other weights by AdamW; meant for fields of several
    layers."""
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False), Number] = 1e-3
    """Largest learning rate of the schedule. A training that diverges because it is too large says so."""
    warmup: Annotated[NonNegative, Field(le=1)] = 0.05
    """Fraction of all steps during which the learning rate rises."""
    weight_decay: NonNegative = 0.0
    gauge: NonNegative = 1e-4
    """Weight of the mean square of h^neq in the loss. The split of a field into E and G is not unique; this term
    selects the split with the smallest h^neq."""
    energy_weight: NonNegative = 0.0
    """Weight of the mean squared error of the energy per site, for the kind ``conservative`` and labels with energies.
    A constant in the energy does not count: it is removed within each batch, and fitted at the end. Along quenches the
    energy per site varies about as much as the components of the field, so 1 is a good first choice."""
    relative_floor: Positive | None = None
    """Errors of the field count relative to the field of their snapshot: each is divided by the mean square of that
    field plus this fraction of the mean square over all data. Without it snapshots with the largest fields dominate,
    such as the metal at the start of a quench; with 0.05 the order at its end counts as well."""
    electrons_weight: NonNegative = 1.0
    """Weight of the mean squared error of the number of electrons per site, for ``drive: chemical_potential``."""
    distillation: Annotated[NonNegative, Field(le=1)] = 0.0
    """Weight in the loss of trajectories of ``dynamics.field: learned``, whose fields are those of another force field
    and cost no labels. At 0 such files are refused; they can never be used for validation."""
    ema: Annotated[NonNegative, Field(lt=1)] = 0.995
    """Decay per step of the running mean of the weights; this mean is saved."""
    seed: Seed = 1
    """Seed of the initial weights and of the order of the snapshots."""
    checkpoint_interval: Count = 10
    """Epochs between checkpoints and validations."""
    compile: Flag = False
    """Fuse message-passing layers by torch.compile, those of potentials with their derivatives; potentials of a
    descriptor cannot be compiled. Needs a C++ compiler, and a minute or two at the start; whether a step fits into the
    memory is not tried before."""
    mixed_precision: Flag = False
    """Compute the products of the training in bfloat16; the saved model computes in ``potential.precision``. Useful on
    GPUs and on CPUs with bfloat16 units; on other CPUs the training takes several times as long."""
    tf32: Flag = False
    """Let an NVIDIA GPU round the factors of float32 products to TF32 (10 bits) in training steps, and nowhere else.
    With or without it, a GPU adds the gradients of convolutions in no fixed order, so that trainings are not bitwise
    equal there."""


@dataclass(frozen=True)
class TrainingOutcome:
    """Result of a call of `train`."""

    finished: bool
    """False if the training was stopped before the last epoch."""
    model: Path
    """File of the force field, which exists once the training has finished."""
    metrics: Summary
    """Metrics of the saved weights on the validation shards; empty if there are none."""
