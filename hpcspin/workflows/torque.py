"""``hpcspin torque``: spin-transfer torque against angle and voltage, and the voltage at which it switches a magnet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hpcspin.assembly.fields import build_field
from hpcspin.assembly.outputs import claim, sole_writer
from hpcspin.assembly.system import build_lattice, build_system
from hpcspin.config import Config, TorqueSection
from hpcspin.drawing.tables import write_csv
from hpcspin.drawing.torque import draw_switching, draw_torque
from hpcspin.dynamics.spin_transfer import SpinTransfer, angle_rate, macrospin_rate, spin_transfer, zero_crossing
from hpcspin.errors import HpcspinError
from hpcspin.lattice import Lattice
from hpcspin.parallel.devices import pick_device
from hpcspin.parallel.world import World
from hpcspin.potential import load_force
from hpcspin.storage import TRAJECTORY, FrameReader, read_labels, write_json
from hpcspin.workflows.label import write_label_file
from hpcspin.workflows.simulate import run_trajectory

Array = NDArray[np.float64]
Row = dict[str, Any]
EXACT, LEARNED, MACROSPIN = "exact", "learned", "macrospin"


def torque_directory(config: Config, output: Path, world: World) -> int:
    """Label a uniform magnet at all angles and voltages, move it at those of the section ``switching``, draw.

    Parameters
    ----------
    config
        With the sections ``electrons`` and ``torque``; with ``torque.switching`` also ``dynamics``.
    output
        Receives ``labels/NUMBER.h5`` a voltage, ``switching/FIELD-NUMBER`` a trajectory, ``torque.csv``,
        ``switching.csv``, ``numbers.json`` and the figures.
    world
        The ranks.

    Returns
    -------
    int
        Exit code: 0 when finished, 75 when stopped by a signal with a checkpoint.

    Raises
    ------
    HpcspinError
        If a reservoir or an axis is missing, or labels, trajectories or the model fail.
    """
    config.need("electrons", "torque")
    magnet = Magnet.of(config)
    with sole_writer(output, world):
        claim(config, output / "config.json", world)
        numbers, code = _torques(config, magnet, output, world), 0
        if config.torque and config.torque.switching:
            switching, code = _switching(config, magnet, output, world)
            numbers |= switching
        if world.rank == 0 and not code:
            write_json(output / "numbers.json", numbers)
            world.log_result(f"{output / 'numbers.json'}: {_summary(numbers)}")
    return code


@dataclass(frozen=True)
class Magnet:
    """Spins that are turned together against an axis.

    Attributes
    ----------
    lattice
        All spins.
    axis
        Unit vector p, along which all others stand, shape (3,).
    free
        Columns of the spins that are turned.
    """

    lattice: Lattice
    axis: Array
    free: slice

    @classmethod
    def of(cls, config: Config) -> Self:
        """The magnet of a config; raises HpcspinError if it has no axis, or columns beyond the lattice."""
        assert config.torque is not None
        lattice, section = build_lattice(config.lattice), config.torque
        first, last = section.free or (0, lattice.size[0] - 1)
        if not 0 <= first <= last < lattice.size[0]:
            raise HpcspinError(
                f"torque.free: [{first}, {last}] are no columns of a lattice with the columns 0 to "
                f"{lattice.size[0] - 1}; give the first and the last one"
            )
        return cls(lattice, _axis(config, section), slice(first, last + 1))

    def turned(self, angle: float) -> Array:
        """Spins with the magnet at an angle in degrees to the axis, the others along it, shape (Lx, Ly, 3)."""
        helper = np.eye(3)[np.argmin(np.abs(self.axis))]
        across = helper - self.axis * (helper @ self.axis)
        spins = np.tile(self.axis, (*self.lattice.size, 1))
        turn = np.deg2rad(angle)
        spins[self.free] = np.cos(turn) * self.axis + np.sin(turn) * across / np.linalg.norm(across)
        return spins

    def transfer(self, spins: Array, field: Array) -> SpinTransfer:
        """Coefficients of the field, summed over the magnet's columns, a row; shape (...) of snapshots."""
        split = spin_transfer(spins[..., self.free, :, :], field[..., self.free, :, :], self.axis)
        return SpinTransfer(*(part.sum(-2).mean(-1) for part in split))


def _axis(config: Config, section: TorqueSection) -> Array:
    assert config.electrons is not None
    vectors = [np.array(one.polarization) for one in config.electrons.reservoirs]
    vectors = [vector for vector in vectors if vector.any()] if section.axis is None else [np.array(section.axis)]
    axes = [vector / length for vector in vectors if (length := np.linalg.norm(vector))]
    if not axes or any(np.linalg.norm(np.cross(axis, axes[0])) > 1e-9 for axis in axes):
        raise HpcspinError("torque.axis: the reservoirs have not one direction of polarisation; give the axis")
    return axes[0]


def at_voltage(config: Config, voltage: float) -> Config:
    """The config with each reservoir's share of a voltage in its potential.

    Raises
    ------
    HpcspinError
        If a share is that of no reservoir.
    """
    assert config.electrons is not None
    assert config.torque is not None
    shares, reservoirs = config.torque.shares, config.electrons.reservoirs
    unknown = shares.keys() - {one.name for one in reservoirs}
    if unknown:
        names = ", ".join(one.name for one in reservoirs)
        raise HpcspinError(f"torque.shares: there is no reservoir {min(unknown)!r}; choose from {names}")
    moved = tuple(
        one.model_copy(update={"potential": one.potential + voltage * shares.get(one.name, 0.0)}) for one in reservoirs
    )
    return config.model_copy(update={"electrons": config.electrons.model_copy(update={"reservoirs": moved})})


def _torques(config: Config, magnet: Magnet, output: Path, world: World) -> dict[str, Any]:
    """Label, split, compare with the model; a table and a figure."""
    assert config.torque is not None
    section, rows = config.torque, list[Row]()
    spins = np.stack([magnet.turned(angle) for angle in section.angles])
    model = load_force(section.model) if section.model else None
    for number, voltage in enumerate(section.voltages):
        biased = at_voltage(config, voltage)
        system, file = build_system(biased), output / "labels" / f"{number:02d}.h5"
        if not file.exists():
            stored = {"config": biased.model_dump(mode="json")}
            write_label_file(system, lambda n: spins[n : n + 1], len(spins), file, stored, world, config.device)
            world.barrier()
        labels = read_labels(file, config.lattice.size)
        assert labels.current is not None
        names = [one.name for one in biased.electrons.reservoirs] if biased.electrons else []
        current = labels.current[:, names.index(next(iter(section.shares)))] / config.lattice.size[1]
        fields = {EXACT: labels.field}
        if model is not None:
            fields[LEARNED] = model.field(spins, system)
        for name, field in fields.items():
            rows += [
                {"field": name, "voltage": voltage, "angle": angle, "damping_like": a, "field_like": b, "current": i}
                for angle, a, b, i in zip(section.angles, *magnet.transfer(spins, field), current, strict=True)
            ]
    if world.rank == 0:
        write_csv(rows, output / "torque.csv")
        draw_torque(rows, output / "torque.png")
    return _torque_numbers(rows)


def _torque_numbers(rows: Sequence[Row]) -> dict[str, Any]:
    """Slonczewski's coefficient of each voltage, the part that is even in V, the learned field's error."""
    found: dict[str, Any] = {}
    curves = {
        (name, voltage): np.array([[row["damping_like"], row["angle"]] for row in rows if _is(row, name, voltage)]).T
        for name, voltage in dict.fromkeys((row["field"], row["voltage"]) for row in rows)
    }
    for (name, voltage), (torque, angle) in curves.items():
        weights = np.sin(np.deg2rad(angle)) ** 2
        coefficient = float(np.average(torque, weights=weights))
        found.setdefault("slonczewski", []).append(
            {
                "field": name,
                "voltage": voltage,
                "coefficient": coefficient,
                "deviation": float(np.sqrt(np.average((torque - coefficient) ** 2, weights=weights))),
            }
        )
        if name == EXACT and (name, -voltage) in curves:
            even = float(np.abs(torque + curves[name, -voltage][0]).max() / 2)
            found["largest_even_part"] = max(even, found.get("largest_even_part", 0.0))
        exact = curves[EXACT, voltage][0]
        if name == LEARNED and exact.any():
            error = float(np.abs(torque - exact).max() / np.abs(exact).max())
            found.setdefault("learned_error", {})[f"{voltage:g}"] = error
    return found


def _is(row: Row, field: str, voltage: float) -> bool:
    return bool(row["field"] == field and row["voltage"] == voltage)


def _switching(config: Config, magnet: Magnet, output: Path, world: World) -> tuple[dict[str, Any], int]:
    """Trajectories of a small tilt at each voltage, and the growth of it."""
    config.need("dynamics")
    assert config.torque is not None
    assert config.torque.switching is not None
    section, rows, angles = config.torque.switching, list[Row](), dict[tuple[str, float], tuple[Array, Array]]()
    fields = {EXACT: {"field": "electrons", "model": None}}
    if config.torque.model:
        fields[LEARNED] = {"field": "learned", "model": config.torque.model}
    spins = magnet.turned(section.tilt if section.start == "parallel" else 180 - section.tilt)
    for number, voltage in enumerate(section.voltages):
        for name, chosen in fields.items():
            directory = output / "switching" / f"{name}-{number:02d}"
            code = _run(at_voltage(config, voltage), chosen, spins, directory, world)
            if code:
                return {}, code
            assert config.dynamics is not None
            with FrameReader(directory / TRAJECTORY) as frames:
                time, moved, first = (np.asarray(part) for part in (frames.time, frames.spins, frames.field[0]))
            magnetization = moved[:, magnet.free].mean(axis=(1, 2))
            cosine = magnetization @ magnet.axis / np.linalg.norm(magnetization, axis=1)
            angles[name, voltage] = time, np.rad2deg(np.arccos(cosine.clip(-1, 1)))
            late = time >= time[-1] / 2
            columns = magnet.free.stop - magnet.free.start
            mean = SpinTransfer(*(part / columns for part in magnet.transfer(spins, first)))
            sign = 1 if section.start == "parallel" else -1
            rates = {name: sign * angle_rate(time[late], magnetization[late], magnet.axis)}
            if name == EXACT:
                rates[MACROSPIN] = sign * float(macrospin_rate(mean, config.dynamics.damping))
            rows += [{"field": field, "voltage": voltage, "growth": rate} for field, rate in rates.items()]
    critical = {
        field: zero_crossing(*np.array(sorted((r["voltage"], r["growth"]) for r in rows if r["field"] == field)).T)
        for field in dict.fromkeys(row["field"] for row in rows)
    }
    if world.rank == 0:
        write_csv(rows, output / "switching.csv")
        draw_switching(rows, angles, output / "switching.png")
    return {"critical_voltage": critical}, 0


def _run(config: Config, chosen: Mapping[str, Any], spins: Array, directory: Path, world: World) -> int:
    """One trajectory of the magnet from these spins; the exit code."""
    assert config.dynamics is not None
    lattice, device = build_lattice(config.lattice), pick_device(world, config.device)
    settings = config.dynamics.model_copy(update=chosen)
    config = config.model_copy(update={"dynamics": settings, "torque": None})
    stored = {**config.model_dump(mode="json"), "start": spins.tolist()}
    outcome = run_trajectory(
        lattice,
        build_field(config, lattice, world, device),
        spins,
        settings,
        directory,
        config=stored,
        world=world,
        device=device,
    )
    return outcome.exit_code


def _summary(numbers: Mapping[str, Any]) -> str:
    shown: dict[str, Callable[[Any], str]] = {
        "largest_even_part": lambda value: f"even part of the torque at most {value:.1e}",
        "learned_error": lambda value: f"learned torques within {max(value.values()):.1%} of the largest one",
        "critical_voltage": lambda value: (
            "critical voltage "
            + ", ".join(f"{'none in range' if v is None else f'{v:.3g}'} ({field})" for field, v in value.items())
        ),
    }
    return "; ".join(say(numbers[key]) for key, say in shown.items() if key in numbers)
