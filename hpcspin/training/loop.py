"""The training loop.

The members of a batch depend only on seed, epoch and data, and the loss of a batch is a sum over all ranks divided by a
count over all ranks. A step on many ranks therefore equals the step of a single rank, up to rounding.
"""

from __future__ import annotations

import copy
import inspect
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hpcspin.errors import HpcspinError
from hpcspin.parallel.devices import require_own_gpu
from hpcspin.parallel.progress import progress
from hpcspin.parallel.world import World
from hpcspin.potential import Architecture, ForceField, MessagePassing, Prediction, load_model, save_model
from hpcspin.potential.settings import PotentialSettings
from hpcspin.storage import kinds_of_learned, make_directory
from hpcspin.training.dataset import TrainingData, epoch_plan, load_shares
from hpcspin.training.device import TrainingBatches, emulates_bfloat16, tensor_float32, to_device
from hpcspin.training.evaluation import snapshot_errors
from hpcspin.training.initial import continued, new_model, with_units
from hpcspin.training.loss import batch_loss, relative_weights
from hpcspin.training.memory import require_room
from hpcspin.training.metrics import Errors, Summary
from hpcspin.training.moments import normalise, set_energy_offset, set_envelope
from hpcspin.training.optimisers import Optimiser, RunningMean, learning_rate_factor
from hpcspin.training.settings import TrainingOutcome, TrainingSettings
from hpcspin.training.state import MetricsLog, TrainingState

MODEL, CHECKPOINT, METRICS = "model.safetensors", "checkpoint.h5", "metrics.jsonl"

_GRADIENT_NORM = 1.0
# Buffers follow from the data and are equal on all ranks. Before torch 2.13 the keyword has another name.
_BUFFERS_STAY: dict[str, Any] = (
    {"forward_sync_buffers": False}
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    else {"broadcast_buffers": False}
)


def train(
    architecture: Architecture,
    data: TrainingData,
    settings: TrainingSettings,
    directory: Path,
    world: World,
    device: torch.device,
    *,
    start: Path | None = None,
    card: Mapping[str, Any] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> TrainingOutcome:
    """Fit a force field, or resume from the checkpoint in the directory.

    The saved weights are the running mean at the epoch with the smallest error on the validation shards; without
    validation shards, that at the end.

    Parameters
    ----------
    architecture
        Architecture of the force field. The unit and the number of its voltages are replaced by the largest voltage
        and the number of voltages in the data.
    data
        See `find_data`; their lattices may differ in size.
    settings
        Settings of the training.
    directory
        Receives ``model.safetensors`` with its card, ``checkpoint.h5`` and ``metrics.jsonl``.
    world
        The ranks; a collective call.
    device
        Device of this rank.
    start
        A saved force field of the same architecture that gives the initial weights and the units.
    card
        More JSON values for the model's card, such as the config.
    stop
        Called by all ranks together after each epoch; True stops the training with a checkpoint.

    Returns
    -------
    TrainingOutcome
        The same on all ranks.

    Raises
    ------
    HpcspinError
        If the data are invalid, a batch has fewer snapshots than there are
        ranks, ``start`` has another architecture, or the directory belongs to
        other data or to other settings, except that it may have fewer epochs; a `DivergedError` if the loss, the
        weights or the validation error are no longer finite.
    """
    require_possible(architecture, settings, world)
    require_own_gpu(world, device)
    world.torch_group(device.type)
    if world.rank == 0:
        make_directory(directory)
    initial = load_model(start) if start else None
    with tensor_float32(False):
        trainer = _Trainer(architecture, data, settings, directory, world, device, initial)
        return trainer.run(card or {}, stop)


def require_possible(architecture: Architecture, settings: TrainingSettings, world: World) -> None:
    """Refuse settings that are impossible whatever the data are.

    Raises HpcspinError if a batch has fewer snapshots than there are ranks, the architecture cannot be compiled, or
    ``training.energy_weight`` is given for a model without an energy or for batches of one snapshot.
    """
    if settings.batch < world.size:
        raise HpcspinError(
            f"training.batch: {settings.batch} snapshots on {world.size} ranks leave ranks without work; "
            f"give at least {world.size}"
        )
    if settings.compile and isinstance(architecture.settings, PotentialSettings):
        raise HpcspinError(
            "training.compile: potentials of a descriptor cannot be compiled; give compile: false, or potential.layers "
            "instead of a descriptor"
        )
    if settings.energy_weight and architecture.settings.kind != "conservative":
        raise HpcspinError(
            f"training.energy_weight: a force field of kind {architecture.settings.kind} is not the derivative of an "
            "energy; give potential.kind: conservative, or energy_weight: 0"
        )
    if settings.energy_weight and settings.batch < 2:
        raise HpcspinError(
            "training.energy_weight: energies of a batch are compared with each other; give training.batch: 2 or more"
        )


class DivergedError(HpcspinError):
    """Raised by a training whose loss, weights or validation error are no longer finite."""


class _Trainer:
    """The state of a training and its steps."""

    def __init__(
        self,
        architecture: Architecture,
        data: TrainingData,
        settings: TrainingSettings,
        directory: Path,
        world: World,
        device: torch.device,
        initial: tuple[ForceField, dict[str, Any]] | None,
    ) -> None:
        self._settings, self._directory, self._world, self._device = settings, directory, world, device
        self._data, sources = data, data.sources
        dtype = torch.float64 if architecture.settings.precision == "float64" else torch.float32
        grand, stride = architecture.drive == "chemical_potential", settings.batch
        self._train = load_shares(data.directory, data.train, sources, world, stride, dtype, grand=grand)
        self._validation = load_shares(data.directory, data.validation, sources, world, stride, dtype)
        for share in self._train:
            if share.total < world.size:
                raise HpcspinError(
                    f"{data.train[0].file}: {share.total} training snapshots of {share.lattice.size} for {world.size} "
                    "ranks; use fewer ranks"
                )
        if settings.energy_weight:
            self._require_energies()
        architecture = with_units(architecture, self._train, world)
        model = continued(initial[0], architecture) if initial else new_model(architecture, settings.seed)
        self._model = model.to(device)
        if settings.mixed_precision and emulates_bfloat16(device):
            world.log(
                "warning: training.mixed_precision: this CPU has no units for bfloat16 and will take several times as "
                "long; false is quicker here"
            )
        for name, source in sources.items():
            self._model.require(source.lattice, name)
        # The card records the model's history: its initial weights and their training data.
        past = ("weights_sha256", "data", "electrons", "start")
        self._start = {name: initial[1][name] for name in past if name in initial[1]} if initial else None
        self._tables = [self._model.neighbourhood(share.lattice) for share in self._train]
        if not settings.compile:  # See `require_room`.
            require_room(self._model, self._train, stride, world, device, bfloat16=settings.mixed_precision)
        if not initial:
            normalise(self._model, self._train, world, device)
        self._batches = TrainingBatches(self._train, device)
        exact = np.array([sources[shard.file].exact for shard in data.train])
        self._weights = None if exact.all() else np.where(exact, 1.0, settings.distillation)
        self._mean = RunningMean(self._model, settings.ema)
        self._optimiser = Optimiser(self._model, settings.optimiser, settings.weight_decay)
        self._state = TrainingState(
            directory / CHECKPOINT,
            {
                "potential": self._model.architecture.as_dict(),
                "training": settings.model_dump(include=set(TrainingSettings.model_fields)),
                "data": data.as_dict(),
                **({"start": initial[1]["weights_sha256"]} if initial else {}),
            },
            self._model,
            self._mean,
            self._optimiser,
        )
        self._log = MetricsLog(directory / METRICS, world)

    def run(self, card: Mapping[str, Any], stop: Callable[[], bool]) -> TrainingOutcome:
        """Train from the checkpoint, if there is one, to the last epoch or until a stop is requested."""
        settings, state = self._settings, self._state
        before = state.restore(self._world)
        self._log.truncate(state.epoch)
        if before is not None and before < settings.epochs:
            self._log_more_epochs(before)
        if state.epoch == settings.epochs and self._is_saved():
            return TrainingOutcome(True, self._directory / MODEL, state.metrics)
        module = self._distributed()
        finished = True
        with progress(self._world, "train", settings.epochs, state.epoch) as bar:
            while state.epoch < settings.epochs:
                start = time.monotonic()
                record: dict[str, Any] = {"loss": self._epoch(module), "lr": self._optimiser.rate}
                state.epoch += 1
                self._require_finite(record["loss"], *self._mean.weights.values())
                finished = state.epoch == settings.epochs
                stopping = stop() and not finished
                due = finished or stopping or state.epoch % settings.checkpoint_interval == 0
                # A stop must not change the epochs that are candidates for the saved weights.
                if finished or state.epoch % settings.checkpoint_interval == 0:
                    record |= self._validate()
                state.seconds += time.monotonic() - start
                self._log.write({"epoch": state.epoch, **record, "seconds": state.seconds})
                if due:
                    state.save(self._world)
                bar.advance(note=_note(record))
                if stopping:
                    break
        if finished:
            self._save(card)
        return TrainingOutcome(finished, self._directory / MODEL, state.metrics)

    def _require_energies(self) -> None:
        missing = [int(file) for share in self._train for file in share.files[share.energy.isnan().numpy()]]
        lacking = sorted(set().union(*self._world.allgather(missing)))
        if lacking:
            file = self._data.train[lacking[0]].file
            raise HpcspinError(
                f"{file}: has no exact energies, which training.energy_weight asks for; label spins of a closed "
                "system, or give energy_weight: 0"
            )

    def _log_more_epochs(self, before: int) -> None:
        settings, done = self._settings, self._state.epoch
        share = learning_rate_factor(done, settings.epochs, settings.warmup)
        self._world.log(
            f"train: continues from epoch {done} of {before} to {settings.epochs}: from here on the learning rate is "
            f"that of a training of {settings.epochs} epochs, {share * settings.learning_rate:.2g} at first and 0 at "
            "the end; the weights will differ from those of such a training, whose first epochs were different"
        )

    def _distributed(self) -> nn.Module:
        if self._world.size == 1:
            return self._model
        devices = [self._device] if self._device.type == "cuda" else None
        return DistributedDataParallel(self._model, devices, process_group=self._world.group, **_BUFFERS_STAY)

    def _epoch(self, module: nn.Module) -> float:
        """One pass over the data; returns the mean loss."""
        settings = self._settings
        totals = [share.total for share in self._train]
        batches = epoch_plan(totals, settings.batch, settings.seed, self._state.epoch)
        steps = settings.epochs * len(batches)
        module.train()
        losses = []
        for number, (which, members) in enumerate(batches):
            step = self._state.epoch * len(batches) + number
            self._optimiser.rate = settings.learning_rate * learning_rate_factor(step, steps, settings.warmup)
            with tensor_float32(settings.tf32):
                losses.append(self._step(module, which, self._train[which].rows(members), len(members)))
            self._mean.update(self._model, step)
        total = self._world.sum(np.array([torch.stack(losses).double().sum().item()]))[0]
        return float(total / len(batches))

    def _step(self, module: nn.Module, which: int, rows: NDArray[np.int64], count: int) -> Tensor:
        """One step of the optimiser; returns my part of the loss of a batch of ``count`` snapshots of one lattice."""
        mine = len(rows)
        # A rank without a snapshot in the last batch still takes part in the all-reduce of gradients.
        rows = rows if mine else np.zeros(1, dtype=np.int64)
        spins, field, bias, energy = self._batches.take(which, rows)
        if isinstance(self._model, MessagePassing):
            # The few incomplete batches would be compiled again for their size.
            self._model.fused = self._settings.compile and count == self._settings.batch
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._settings.mixed_precision):
            predicted = module(spins, self._tables[which], bias)
        predicted = Prediction(*(part[:mine] for part in predicted))
        parts = spins[:mine], field[:mine], energy[:mine]
        weights = self._snapshot_weights(self._train[which].files[rows[:mine]], *parts[:2])
        grand = self._model.grand_potential
        loss = batch_loss(predicted, *parts, bias[:mine], grand, count, self._settings, self._world, weights)
        loss = loss / self._model.field_scale**2
        self._optimiser.zero_grad()
        # DistributedDataParallel averages over the ranks, but the loss is a sum over them.
        (loss * self._world.size).backward()
        nn.utils.clip_grad_norm_(self._model.parameters(), _GRADIENT_NORM)
        self._optimiser.step()
        return loss.detach()

    def _snapshot_weights(self, files: NDArray[np.int64], spins: Tensor, field: Tensor) -> Tensor | None:
        """Weights of the field's error in snapshots of these files, shape (mine,); None where all count the same."""
        floor, weights = self._settings.relative_floor, None
        if self._weights is not None:
            weights = to_device(torch.from_numpy(self._weights[files]).to(spins.dtype), self._device)
        if floor is not None:
            relative = relative_weights(spins, field, self._model.field_scale, floor)
            weights = relative if weights is None else weights * relative
        return weights

    def _validate(self) -> dict[str, Any]:
        """Errors of the running mean, whose weights are kept if they are the best so far."""
        if not self._validation:
            self._state.keep({})
            return {}
        model = copy.deepcopy(self._model).eval()
        self._mean.write_to(model)
        errors = Errors()
        for share in self._validation:
            errors.extend(snapshot_errors(model, share, self._device))
        summary = errors.gathered(self._world).summary()
        self._require_finite(*(value for value in summary.values() if value is not None))
        if _mse(summary) < _mse(self._state.metrics):
            self._state.keep(summary)
        return {f"validation_{name}": value for name, value in summary.items() if name != "snapshots"}

    def _require_finite(self, *values: float | Tensor) -> None:
        """Stop all ranks of a diverged training before anything is written; waits for the device once."""
        tensors = [value.isfinite().all() for value in values if isinstance(value, Tensor)]
        finite = all(math.isfinite(value) for value in values if not isinstance(value, Tensor))
        finite = finite and (not tensors or bool(torch.stack(tensors).all()))
        if self._world.sum(np.array([not finite], dtype=np.int64))[0]:
            raise DivergedError(
                f"{self._directory}: the training has diverged in epoch {self._state.epoch}, its loss, weights or "
                "validation error are not finite; what was saved before stays, lower training.learning_rate and run "
                "again with another --output"
            )

    def _is_saved(self) -> bool:
        """Whether the best weights are already saved as a complete model, which is then left unchanged."""
        try:
            saved, _ = load_model(self._directory / MODEL)
        except HpcspinError:
            return bool(self._world.broadcast(False))
        return bool(self._world.broadcast(self._state.best_are_those_of(saved)))

    def _save(self, card: Mapping[str, Any]) -> None:
        model = self._model
        self._state.write_best_to(model)
        set_envelope(model.eval(), self._train, self._world, self._device)
        set_energy_offset(model, self._train, self._world, self._device)
        if self._world.rank == 0:
            content = {
                # Sorted, as after reading a checkpoint, so that repeating a finished training writes the same card.
                "metrics": dict(sorted(self._state.metrics.items())),
                "best_epoch": self._state.best_epoch,
                "training": self._settings.model_dump(include=set(TrainingSettings.model_fields)),
                "data": self._data.as_dict(),
                "electrons": kinds_of_learned(
                    [self._data.sources[shard.file].electrons or {} for shard in self._data.train], model.sees
                ),
                **({"start": self._start} if self._start else {}),
                **card,
            }
            save_model(self._directory / MODEL, model, content)
        self._world.barrier()


def _mse(metrics: Summary) -> float:
    return float(metrics["mse"] or 0.0) if metrics else math.inf


def _note(record: Mapping[str, Any]) -> str:
    note = f"loss {record['loss']:.2e}"
    return f"{note}, validation mse {record['validation_mse']:.2e}" if "validation_mse" in record else note
