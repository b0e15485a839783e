"""State from which a training resumes exactly: weights, their running mean, optimiser, best weights so far."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World
from hpcspin.storage import Checkpoint, append_line, read_checkpoint, write_checkpoint, write_text
from hpcspin.training.metrics import Summary
from hpcspin.training.optimisers import Optimiser, RunningMean


class TrainingState:
    """The state of a training and its checkpoint, which is refused if it belongs to another config.

    ``seconds`` are those over all restarts, ``metrics`` and ``best_epoch`` those of the best weights so far. Buffers of
    the model are not saved, because they follow from the data.
    """

    def __init__(
        self, path: Path, config: Mapping[str, Any], model: nn.Module, mean: RunningMean, optimiser: Optimiser
    ) -> None:
        self._path, self._config = path, config
        self._model, self._mean, self._optimiser = model, mean, optimiser
        self._best: dict[str, torch.Tensor] = {}
        self.epoch = self.best_epoch = 0
        self.seconds = 0.0
        self.metrics: Summary = {}

    def keep(self, metrics: Summary) -> None:
        """Keep the running mean as the best weights."""
        self.metrics, self.best_epoch = metrics, self.epoch
        self._best = {name: tensor.clone() for name, tensor in self._mean.weights.items()}

    @torch.no_grad()
    def write_best_to(self, model: nn.Module) -> None:
        """Copy the best weights to a module; its buffers stay."""
        for name, value in model.named_parameters():
            value.copy_(self._best[name])

    def best_are_those_of(self, model: nn.Module) -> bool:
        """Whether a module of the same architecture has the best weights."""
        weights = dict(model.named_parameters())
        return weights.keys() == self._best.keys() and all(
            torch.equal(value, self._best[name].cpu()) for name, value in weights.items()
        )

    def save(self, world: World) -> None:
        """Write the checkpoint; a collective call."""
        if world.rank == 0:
            meta = {
                "epoch": self.epoch,
                "seconds": self.seconds,
                "metrics": self.metrics,
                "best_epoch": self.best_epoch,
            }
            write_checkpoint(self._path, self._arrays(), meta, self._config)
        world.barrier()

    def restore(self, world: World) -> int | None:
        """Restore the checkpoint, and return its number of epochs; None if there is none; a collective call.

        Raises HpcspinError if it belongs to a training with other settings, which the message names, or with more
        epochs.
        """
        found = read_checkpoint(self._path, self._config, ("training.epochs",)) if world.rank == 0 else None
        epochs = self._require_no_fewer_epochs(found) if found else None
        found, epochs = world.broadcast((found, epochs))
        if found is None:
            return None
        try:
            self._take_over(found)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise found.mismatch(error) from error
        return int(epochs)

    def _take_over(self, found: Checkpoint) -> None:
        arrays, meta = found.arrays, found.meta
        self.epoch, self.seconds = found.count("epoch"), float(meta["seconds"])
        self.metrics, self.best_epoch = dict(meta["metrics"]), found.count("best_epoch", most=self.epoch)
        weights = dict(self._model.named_parameters())
        with torch.no_grad():
            for name, value in weights.items():
                value.copy_(torch.from_numpy(found.array(f"weights/{name}", value.shape)))
                self._mean.weights[name].copy_(torch.from_numpy(found.array(f"mean/{name}", value.shape)))
                self._restore_moments(name, value, arrays)
        self._best = {
            name: torch.from_numpy(found.array(f"best/{name}", value.shape)).to(value.device)
            for name, value in weights.items()
            if f"best/{name}" in arrays
        }

    def _require_no_fewer_epochs(self, found: Checkpoint) -> int:
        stored, given = (int(config["training"]["epochs"]) for config in (found.config, self._config))
        if given < stored:
            raise HpcspinError(
                f"{found.path}: belongs to a training of {stored} epochs, the config asks for {given}; "
                "training.epochs can only be raised, or choose another --output"
            )
        return stored

    def _restore_moments(self, name: str, value: nn.Parameter, arrays: dict[str, NDArray[Any]]) -> None:
        prefix = f"optimiser/{name}/"
        moments = {
            moment: torch.from_numpy(np.asarray(array)).to("cpu" if moment == "step" else value.device)
            for key, array in arrays.items()
            if (moment := key.removeprefix(prefix)) != key
        }
        self._optimiser.load_state(value, moments)

    def _arrays(self) -> dict[str, NDArray[Any]]:
        groups: dict[str, Mapping[str, torch.Tensor]] = {
            "weights": dict(self._model.named_parameters()),
            "mean": self._mean.weights,
            "best": self._best,
        }
        for name, value in self._model.named_parameters():
            groups[f"optimiser/{name}"] = self._optimiser.state_of(value)
        return {
            f"{group}/{name}": tensor.detach().cpu().numpy()
            for group, tensors in groups.items()
            for name, tensor in tensors.items()
        }


class MetricsLog:
    """A log with one line of JSON for each epoch, written by rank 0."""

    def __init__(self, path: Path, world: World) -> None:
        self._path, self._mine = path, world.rank == 0

    def truncate(self, epoch: int) -> None:
        """Remove lines that a killed run wrote after the checkpoint of an epoch."""
        if not self._mine or not self._path.exists():
            return
        lines = [line for line in self._path.read_text().splitlines() if _epoch_of(line) <= epoch]
        write_text(self._path, "".join(f"{line}\n" for line in lines))

    def write(self, record: Mapping[str, Any]) -> None:
        """Append a record."""
        if self._mine:
            append_line(self._path, json.dumps(record))


def _epoch_of(line: str) -> float:
    """Epoch of a line; infinite for a line that a crash cut short, so that it is not kept."""
    try:
        return float(json.loads(line)["epoch"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
