"""Settings of a training, and its outcome."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from hpcspin.settings import Count, Flag, NonNegative, Positive, Section, Seed
from hpcspin.training.metrics import Summary


class Settings(Section):
    """How to train: keys of the config's section ``training``."""

    epochs: Count = 100
    """Passes over the data. More than before go on with a finished training: its learning rate then rises to what it
    would be at that epoch of the longer training, and falls to 0 with it."""
    batch: Count = 8
    """Snapshots in a step, over all ranks."""
    optimiser: Literal["adamw", "muon"] = "adamw"
    """``muon`` steps the matrices among the weights, AdamW the rest; meant for fields of several layers."""
    learning_rate: Positive = 1e-3
    """The largest one."""
    warmup: NonNegative = 0.05
    """Share of the steps in which the learning rate rises."""
    weight_decay: NonNegative = 0.0
    gauge: NonNegative = 1e-4
    """Weight of the mean square of h^neq in the loss: the split of a field into E and G is not unique, and this chooses
    the smallest G."""
    energy_weight: NonNegative = 0.0
    """Weight of the mean squared error of the energy of a site, for the kind ``conservative`` and labels with energies.
    The error is taken up to a constant, over the snapshots of a batch; the constant is fitted in the end. Along
    quenches energies of a site vary about as much as components of the field: 1 is where to begin."""
    relative_floor: Positive | None = None
    """Errors of the field count relative to the field of their snapshot: divided by its mean square plus this share of
    that of all data. Without it the snapshots with the largest fields decide, such as the metal at the start of a
    quench; 0.05 lets the order at its end count, too."""
    electrons_weight: NonNegative = 1.0
    """Weight of the mean squared error of the electrons a site, for ``drive: chemical_potential``."""
    distillation: Annotated[NonNegative, Field(le=1)] = 0.0
    """Weight in the loss of trajectories of ``dynamics.field: learned``, whose fields are those of a force field: they
    cost no labels. Without a weight such files are refused, and none can be named for validation."""
    ema: Annotated[NonNegative, Field(lt=1)] = 0.995
    """Decay of the running mean of the weights, per step; the mean is what is saved."""
    seed: Seed = 1
    """Of the initial weights and of the order of the snapshots."""
    checkpoint_interval: Count = 10
    """Epochs between checkpoints and validations."""
    compile: Flag = False
    """Fuse the layers of a ``direct`` field by torch.compile: needs a C++ compiler and a minute or two to begin."""
    mixed_precision: Flag = False
    """Make the products of the training in bfloat16; the saved model computes in ``potential.precision``. Of use
    on GPUs and on CPUs with units for bfloat16; without these it takes several times as long."""
    tf32: Flag = False
    """Let the steps on an NVIDIA GPU round the factors of float32 products to TF32 (10 bits); all else never does.
    Either way a GPU adds gradients of convolutions in no fixed order: trainings are not bitwise equal there."""


@dataclass(frozen=True)
class Outcome:
    """What a call of `train` has achieved.

    Attributes
    ----------
    finished : bool
        False if it was stopped before the last epoch.
    model : Path
        Where the force field is, or will be.
    metrics : dict
        Of the saved weights on the validation shards; empty without any.
    """

    finished: bool
    model: Path
    metrics: Summary
