"""``hpcspin torque``: spin-transfer torque against angle and voltage, and the voltage at which it switches a magnet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from hpcspin.analysis.series import first_passage
from hpcspin.assembly.outputs import recorded_job
from hpcspin.assembly.system import build_lattice, build_system, build_vacancies
from hpcspin.config import Config, DynamicsSection, SwitchingSection, TorqueSection
from hpcspin.drawing.tables import write_csv
from hpcspin.drawing.torque import draw_runs, draw_switching, draw_torque
from hpcspin.dynamics import EXIT_REQUEUE
from hpcspin.dynamics.fields import FieldEvaluator
from hpcspin.dynamics.spin_transfer import SpinTransfer, largest_growth, spin_transfer, stability_matrix, zero_crossing
from hpcspin.dynamics.step_bounds import drives_of
from hpcspin.dynamics.torque import components_first
from hpcspin.electrons.settings import ElectronsSettings
from hpcspin.errors import HpcspinError
from hpcspin.lattice import Lattice
from hpcspin.lattice.settings import chosen_sites
from hpcspin.parallel.domain import Domain
from hpcspin.parallel.world import World
from hpcspin.potential import load_force, weights_digest
from hpcspin.storage import TRAJECTORY, FrameReader, read_labels, write_json
from hpcspin.workflows.label import write_label_file
from hpcspin.workflows.simulate import simulate_from

Array = NDArray[np.float64]
Row = dict[str, Any]
EXACT, LEARNED, MACROSPIN = "exact", "learned", "macrospin"


class _StoppedError(Exception):
    """The labels were stopped by a signal."""


def torque_directory(config: Config, output: Path, world: World) -> int:
    """Label a uniform magnet at all angles and voltages, find where it becomes unstable, simulate it, draw.

    The directory receives ``labels/NUMBER.h5`` and ``switching/NUMBER.h5`` per voltage, ``runs/FIELD_VOLTAGE`` per run,
    ``torque.csv``, ``switching.csv``, ``runs.csv``, ``numbers.json`` and the figures.
    """
    config.need("electrons")
    switching, magnet = config.section(TorqueSection).switching, Magnet.of(config)
    if switching:
        _require_symmetry(config, switching, magnet)
    _require_voltages(config, magnet)
    with recorded_job(output, world, config, ("torque.model", "dynamics.duration")):
        try:
            numbers = _torques(config, magnet, output, world)
            if switching:
                numbers |= _switching(config, switching, magnet, output, world)
        except _StoppedError:
            return EXIT_REQUEUE
        if switching and switching.precision:
            code, found = _runs(config, switching, switching.precision, magnet, output, world)
            if code:
                return code
            numbers |= found
        if world.rank == 0:
            write_json(output / "numbers.json", numbers)
            world.log_result(f"{output / 'numbers.json'}: {_summary(numbers)}")
    return 0


@dataclass(frozen=True)
class Magnet:
    """Spins of some columns that are turned together relative to the axis, along which all other spins point.

    The axis is a unit vector, shape (3,); the masks, shape (Lx, Ly), are those of the sites that have a spin, and of
    the sites of the magnet whose spins the dynamics moves.
    """

    lattice: Lattice
    axis: Array
    free: slice
    occupied: NDArray[np.bool_]
    moving: NDArray[np.bool_]

    @classmethod
    def of(cls, config: Config) -> Self:
        """The magnet of a config; raises HpcspinError if it has no axis, or columns beyond the lattice."""
        lattice, section = build_lattice(config.lattice), config.section(TorqueSection)
        first, last = section.free or (0, lattice.size[0] - 1)
        if not 0 <= first <= last < lattice.size[0]:
            raise HpcspinError(
                f"torque.free: [{first}, {last}] are no columns of a lattice with the columns 0 to "
                f"{lattice.size[0] - 1}; give the first and the last one"
            )
        free, vacancies = slice(first, last + 1), build_vacancies(config, lattice)
        occupied = lattice.mask("all") if vacancies is None else ~vacancies
        moving = occupied & ~chosen_sites(lattice, config.dynamics.pinned if config.dynamics else (), "dynamics.pinned")
        moving[: free.start], moving[free.stop :] = False, False
        return cls(lattice, _axis(config, section), free, occupied, moving)

    def turned(self, angle: float) -> Array:
        """Spins with the magnet at an angle in degrees to the axis, the others along it, shape (Lx, Ly, 3)."""
        helper = np.eye(3)[np.argmin(np.abs(self.axis))]
        across = helper - self.axis * (helper @ self.axis)
        spins = np.tile(self.axis, (*self.lattice.size, 1))
        turn = np.deg2rad(angle)
        spins[self.free] = np.cos(turn) * self.axis + np.sin(turn) * across / np.linalg.norm(across)
        return spins

    def deviations(self, angle: float, tilt: float) -> Array:
        """Snapshots of the magnet at an angle, each with a different one of its moving spins at the angle + tilt."""
        whole, tilted = self.turned(angle), self.turned(angle + tilt)
        x, y = np.nonzero(self.moving)
        spins = np.tile(whole, (len(x), 1, 1, 1))
        spins[np.arange(len(x)), x, y] = tilted[x, y]
        return spins

    def transfer(self, spins: Array, field: Array) -> SpinTransfer:
        """Coefficients of the field per row, summed over the magnet's columns; shape (...) of snapshots."""
        split = spin_transfer(spins[..., self.free, :, :], field[..., self.free, :, :], self.axis)
        return SpinTransfer(*(part.sum(-2).mean(-1) for part in split))


def _axis(config: Config, section: TorqueSection) -> Array:
    vectors = [np.array(one.polarization) for one in config.section(ElectronsSettings).reservoirs]
    vectors = [vector for vector in vectors if vector.any()] if section.axis is None else [np.array(section.axis)]
    axes = [vector / length for vector in vectors if (length := np.linalg.norm(vector))]
    if not axes or any(np.linalg.norm(np.cross(axis, axes[0])) > 1e-9 for axis in axes):
        raise HpcspinError("torque.axis: the reservoirs have no common direction of polarisation; give the axis")
    return axes[0]


def at_voltage(config: Config, voltage: float) -> Config:
    """The config with each reservoir's share of a voltage in its potential."""
    electrons, shares = config.section(ElectronsSettings), config.section(TorqueSection).shares
    reservoirs = electrons.reservoirs
    unknown = shares.keys() - {one.name for one in reservoirs}
    if unknown:
        names = ", ".join(one.name for one in reservoirs)
        raise HpcspinError(f"torque.shares: there is no reservoir {min(unknown)!r}; choose from {names}")
    moved = tuple(
        one.model_copy(update={"potential": one.potential + voltage * shares.get(one.name, 0.0)}) for one in reservoirs
    )
    return config.model_copy(update={"electrons": electrons.model_copy(update={"reservoirs": moved})})


def _require_voltages(config: Config, magnet: Magnet) -> None:
    """Raise HpcspinError, before anything is written, if electrons at a voltage, or the model, do not fit."""
    section = config.section(TorqueSection)
    model = load_force(section.model) if section.model else None
    for voltage in (*section.voltages, *(section.switching.voltages if section.switching else ())):
        system = build_system(at_voltage(config, voltage))
        if model:
            model.field(magnet.turned(section.angles[0]), system)


def _torques(config: Config, magnet: Magnet, output: Path, world: World) -> dict[str, Any]:
    """Label, split, compare with the model; a table and a figure."""
    section, rows = config.section(TorqueSection), list[Row]()
    spins = np.stack([magnet.turned(angle) for angle in section.angles])
    for number, voltage in enumerate(section.voltages):
        fields, exact = _fields(config, voltage, spins, output / "labels" / f"{number:02d}.h5", world)
        # A field with the error e of each component may be off by sqrt(3) e, at all sites of a row in one direction.
        error = np.sqrt(3) * len(magnet.occupied[magnet.free]) * exact["error"] / np.sin(np.deg2rad(section.angles))
        for name, field in fields.items():
            a, b = magnet.transfer(spins, field)
            columns = {"angle": section.angles, "damping_like": a, "field_like": b, "current": exact["current"]}
            columns |= {"torque_error": error} if name == EXACT else {}
            columns |= {"current_error": exact["current_error"]}
            rows += [
                {"field": name, "voltage": voltage} | dict(zip(columns, values, strict=True))
                for values in zip(*columns.values(), strict=True)
            ]
    if world.rank == 0:
        write_csv(rows, output / "torque.csv")
        draw_torque(rows, output / "torque.png")
    return _torque_numbers(rows)


def _fields(
    config: Config, voltage: float, spins: Array, file: Path, world: World
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Exact and learned fields of snapshots; errors of the exact ones, currents per row out of the first share, theirs.

    Raises `_StoppedError` on all ranks if a signal stops the labels.
    """
    section, biased = config.section(TorqueSection), at_voltage(config, voltage)
    system = build_system(biased)
    if not world.broadcast(file.exists()):  # A file server may show it to some ranks first.
        stored = {"config": biased.model_dump(mode="json")}
        if write_label_file(system, lambda n: spins[n : n + 1], len(spins), file, stored, world, config.device):
            raise _StoppedError
        world.barrier()
    labels = read_labels(file, config.lattice.size)
    names = [one.name for one in biased.section(ElectronsSettings).reservoirs]
    others, rows = labels.others, config.lattice.size[1]
    unknown = np.full(len(spins), np.nan)  # Older labels have no errors of their currents.
    exact = {
        "error": others["error"],
        "current": others["current"][:, names.index(next(iter(section.shares)))] / rows,
        "current_error": others.get("current_error", unknown) / rows,
    }
    fields = {EXACT: labels.field}
    if section.model:
        fields[LEARNED] = load_force(section.model).field(spins, system)
    return fields, exact


def _torque_numbers(rows: Sequence[Row]) -> dict[str, Any]:
    """Slonczewski's coefficient of each voltage, the part that is even in V, the learned field's error."""
    found: dict[str, Any] = {}
    columns = ("damping_like", "angle", "torque_error")
    curves = {
        case: np.array([[r.get(c, np.nan) for c in columns] for r in rows if (r["field"], r["voltage"]) == case]).T
        for case in dict.fromkeys((row["field"], row["voltage"]) for row in rows)
    }
    for (name, voltage), (torque, angle, error) in curves.items():
        weights = np.sin(np.deg2rad(angle)) ** 2
        coefficient = float(np.average(torque, weights=weights))
        found.setdefault("slonczewski", []).append(
            {
                "field": name,
                "voltage": voltage,
                "coefficient": coefficient,
                **({"coefficient_error": float(np.average(error, weights=weights))} if name == EXACT else {}),
                "deviation": float(np.sqrt(np.average((torque - coefficient) ** 2, weights=weights))),
            }
        )
        if name == EXACT and (name, -voltage) in curves:
            even = float(np.abs(torque + curves[name, -voltage][0]).max() / 2)
            both = float((error + curves[name, -voltage][2]).max() / 2)
            for key, value in {"largest_even_part": even, "largest_even_part_error": both}.items():
                found[key] = max(value, found.get(key, 0.0))
        exact = curves[EXACT, voltage][0]
        if name == LEARNED and voltage:
            deviation = float(np.abs(torque - exact).max() / np.abs(exact).max())
            found.setdefault("learned_error", {})[f"{voltage:g}"] = deviation
    return found


def _switching(config: Config, section: SwitchingSection, magnet: Magnet, output: Path, world: World) -> dict[str, Any]:
    """Largest growth rate of a deviation from the direction along the axis at each voltage."""
    rows, dynamics = list[Row](), config.section(DynamicsSection)
    spins = magnet.deviations(_start(section), section.tilt)
    classical = _classical(dynamics, magnet, spins)
    for number, voltage in enumerate(sorted(section.voltages, key=abs)):
        fields, exact = _fields(config, voltage, spins, output / "switching" / f"{number:02d}.h5", world)
        # Of an element of the matrix: a torque from the field's error sqrt(3) e, by the sine of the tilt.
        error = np.sqrt(3) * exact["error"].max() / np.hypot(1, dynamics.damping) / np.sin(np.deg2rad(section.tilt))
        for name, field in fields.items():
            acting = (field + classical)[:, magnet.moving]
            matrix = stability_matrix(spins[:, magnet.moving], acting, magnet.axis, dynamics.damping)
            growth, off = largest_growth(matrix, error)
            row = {"field": name, "voltage": voltage, "growth": growth}
            if name == EXACT:
                rigid = {"field": MACROSPIN, "growth": float(matrix.sum().real / len(matrix))}
                rows += [row | {"growth_error": off}, row | rigid | {"growth_error": len(matrix) * error}]
            else:
                rows.append(row)
    growths = {
        field: {row["voltage"]: row["growth"] for row in rows if row["field"] == field}
        for field in dict.fromkeys(row["field"] for row in rows)
    }
    critical = {
        field: zero_crossing(*np.array(list(growth.items())).T) or outside({v: rate >= 0 for v, rate in growth.items()})
        for field, growth in growths.items()
    }
    if world.rank == 0:
        write_csv(rows, output / "switching.csv")
        draw_switching(rows, output / "switching.png")
    return {"critical_voltage": critical}


def _require_symmetry(config: Config, section: SwitchingSection, magnet: Magnet) -> None:
    """Raise HpcspinError unless all that acts on the spins turns with them about the axis, for `stability_matrix`."""
    dynamics, electrons = config.section(DynamicsSection), config.section(ElectronsSettings)
    if not magnet.moving.any():
        raise HpcspinError("torque.free: no spin in these columns can move; leave spins out of dynamics.pinned")
    spins = magnet.deviations(_start(section), section.tilt)[:1]
    field, turned = (_classical(dynamics, magnet, part) for part in (spins, _quarter_turn(magnet.axis, spins)))
    across = [np.linalg.norm(np.cross(one.polarization, magnet.axis)) for one in electrons.reservoirs or ()]
    if any(drive.strength for term in dynamics.classical.terms(magnet.lattice) for drive in drives_of(term)):
        what = "dynamics.classical.drives"
    elif not np.allclose(turned, _quarter_turn(magnet.axis, field), rtol=0, atol=1e-9 * max(1.0, np.abs(field).max())):
        what = "dynamics.classical"
    elif electrons.rashba:
        what = "electrons.rashba"
    elif max(across, default=0.0) > 1e-9:
        what = "a polarisation of electrons.reservoirs"
    else:
        return
    raise HpcspinError(
        "torque.switching: the stability analysis needs all that acts on the spins to be constant and symmetric "
        f"under rotations about the axis {magnet.axis.tolist()}, and {what} is not; change it, or leave "
        "torque.switching out"
    )


def _quarter_turn(axis: Array, vectors: Array) -> Array:
    """Vectors of shape (..., 3), turned by 90 degrees about a unit vector."""
    return np.cross(axis, vectors) + (vectors @ axis)[..., None] * axis


def _start(section: SwitchingSection) -> float:
    return 0.0 if section.start == "parallel" else 180.0


def _runs(
    config: Config, section: SwitchingSection, precision: float, magnet: Magnet, output: Path, world: World
) -> tuple[int, dict[str, Any]]:
    """Exit code, and the critical voltage at which runs begin to leave their direction, by bisection for each field."""
    rows, curves, critical = list[Row](), list[tuple[str, float, Array, Array]](), dict[str, float | str]()
    learned = config.section(TorqueSection).model
    for name, model in {EXACT: None, **({LEARNED: learned} if learned else {})}.items():
        leaves, pending = dict[float, bool](), list(section.voltages)
        while pending:
            for voltage in pending:
                directory = output / "runs" / f"{name}_{voltage:g}"
                code, time, along = _run(config, section, magnet, voltage, model, directory, world)
                if code:
                    return code, {}
                passed = first_passage(time, -along, 0.0)
                leaves[voltage] = passed is not None or bool(along[-1] < along[len(along) // 2])
                curves.append((name, voltage, time, along))
                last = float(along[-1])
                row = {"leaves": leaves[voltage], "switching_time": passed, "last_along_start": last}
                rows.append({"field": name, "voltage": voltage, **row})
            between = bracket(leaves)
            wide = between is not None and abs(between[1] - between[0]) > precision
            pending = [float(np.mean(between))] if between and wide else []
        critical[name] = float(np.mean(between)) if between else outside(leaves)
    if world.rank == 0:
        write_csv(rows, output / "runs.csv")
        draw_runs(curves, rows, output / "runs.png")
    return 0, {"critical_voltage_of_runs": critical}


def bracket(leaves: Mapping[float, bool]) -> tuple[float, float] | None:
    """Neighbouring voltages between which a magnet begins to leave its direction; None if at none or all of them."""
    ordered = sorted(leaves, key=abs)
    first = next((number for number, voltage in enumerate(ordered) if leaves[voltage]), 0)
    return (ordered[first - 1], ordered[first]) if first else None


def outside(unstable: Mapping[float, bool]) -> str:
    """Where the critical voltage lies, if not between two of these voltages."""
    least, most = min(unstable, key=abs), max(unstable, key=abs)
    return f"|V| < {abs(least):g}" if unstable[least] else f"|V| > {abs(most):g}"


def _run(
    config: Config,
    section: SwitchingSection,
    magnet: Magnet,
    voltage: float,
    model: str | None,
    directory: Path,
    world: World,
) -> tuple[int, Array, Array]:
    """Exit code, times of the frames, and the mean of the magnet's spins along the direction that they start near."""
    start = _start(section)
    spins = magnet.turned(start + section.tilt)
    fixed = tuple((x, y) for x, y in np.argwhere(magnet.occupied & ~magnet.moving).tolist())
    changes = {"field": "learned" if model else "electrons", "model": model, "pinned": fixed}
    dynamics = config.section(DynamicsSection).model_copy(update=changes)
    config = at_voltage(config, voltage).model_copy(update={"dynamics": dynamics})
    whose = {"spins": spins.tolist(), "weights": weights_digest(model) if model else None}
    outcome = simulate_from(spins, config, directory, world, config.model_dump(mode="json") | whose)
    if not outcome.finished:
        return outcome.exit_code, np.empty(0), np.empty(0)
    world.barrier()
    with FrameReader(directory / TRAJECTORY) as frames:
        along = np.cos(np.deg2rad(start)) * (frames.spins[:][:, magnet.moving] @ magnet.axis).mean(1)
        return 0, frames.time[:], along


def _classical(dynamics: DynamicsSection, magnet: Magnet, spins: Array) -> Array:
    """Field of the classical terms on snapshots, shape (n, Lx, Ly, 3)."""
    found, occupied = np.zeros_like(spins), torch.from_numpy(magnet.occupied)[..., None]
    for term in dynamics.classical.terms(magnet.lattice):
        evaluate = FieldEvaluator(term, Domain.cut(magnet.lattice, World(), term.halo), occupied)
        found += np.stack([evaluate(components_first(torch.from_numpy(one)), 0.0).numpy() for one in spins])
    return found


def _summary(numbers: Mapping[str, Any]) -> str:
    shown: dict[str, Callable[[Any], str]] = {
        "largest_even_part": lambda value: f"even part of the torque at most {value:.1e}",
        "learned_error": lambda value: f"learned torques within {max(value.values()):.1%} of the largest one",
        "critical_voltage": lambda value: f"critical voltage {_each(value)}",
        "critical_voltage_of_runs": lambda value: f"of runs {_each(value)}",
    }
    return "; ".join(say(numbers[key]) for key, say in shown.items() if key in numbers) or "the numbers"


def _each(critical: Mapping[str, float | str]) -> str:
    return ", ".join(f"{v if isinstance(v, str) else f'{v:.3g}'} ({field})" for field, v in critical.items())
