"""What a training is told, and what it achieves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hpcspin.training.metrics import Summary


@dataclass(frozen=True)
class Settings:
    """How to train; the names are those of the config's section ``training``.

    Attributes
    ----------
    epochs, batch : int
        Passes over the data; snapshots in a step, over all ranks.
    optimiser : str
        ``"adamw"`` or ``"muon"``, see `Optimiser`.
    learning_rate, warmup, weight_decay : float
        Largest learning rate; the share of the steps in which it rises; decay of the weights.
    gauge : float
        Weight of the mean square of h^neq beside the mean squared error. The
        split of a field into E and G is not unique: this chooses the smallest G.
    ema : float
        Decay of the running mean of the weights, which is what is saved.
    seed : int
        Of the initial weights and of the order of the snapshots.
    checkpoint_interval : int
        Epochs between validations and checkpoints.
    compile : bool
        Whether full batches of a field of several layers go through torch.compile.
    mixed_precision : bool
        Whether products are made in bfloat16 while training; weights, gradients' sums and the saved model are not.
    tf32 : bool
        Whether the steps on a GPU round the factors of float32 products to TF32; all else never does.
    """

    epochs: int
    batch: int
    optimiser: str
    learning_rate: float
    warmup: float
    weight_decay: float
    gauge: float
    ema: float
    seed: int
    checkpoint_interval: int
    compile: bool = False
    mixed_precision: bool = False
    tf32: bool = False


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
