"""Numbers of a run, and maps of it, frame by frame from its file, finished or not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpcspin.analysis.runs import reservoir_names
from hpcspin.assembly.system import lattice_of, vacancies_of
from hpcspin.drawing import page
from hpcspin.drawing.lattice_figures import BONDS, CHIRALITY
from hpcspin.errors import HpcspinError
from hpcspin.lattice import Lattice, bond_map, has_wall, nearest_bonds, scalar_chirality, wall_position
from hpcspin.lattice.measures import mean_of_known
from hpcspin.storage import FrameReader, trajectory_file
from hpcspin.storage.datasets import DATASETS

Array = NDArray[np.float64]
Curves = dict[str, dict[str, Array]]
"""For each quantity its curves by name; the name is empty where there is only one."""

_MOST_FRAMES = 1000
"""Largest number of frames of a run that are measured, equally spaced."""
_FRAMES = 120
_CELLS = 1_200_000
"""Largest number of frames times cells of a film."""
_MEASURED = {"time", "step", "wall_position", "magnetization", "mean_bond", "mean_chirality", "current", "energy"}


@dataclass(frozen=True)
class Quantity:
    """A number of each site: its name in plain words and as a formula, and how it is measured.

    ``measure`` is a function of a lattice, the frames of a file and the number of one of them, with values of shape
    (Lx, Ly). The colours go from -reach to +reach, or from the smallest to the largest number.
    """

    name: str
    label: str
    measure: Callable[[Lattice, FrameReader, int], Array]
    reach: float | None = None

    def there(self, frames: FrameReader) -> bool:
        """Whether a file holds the data that it is measured from."""
        needed = {"density": {"density"}, "field error": {"field_error", "spread"}}.get(self.name)
        return needed is None or not needed.isdisjoint(frames.names)

    @property
    def colours(self) -> str:
        """Name of a matplotlib colour map."""
        return "viridis" if self.reach is None else "RdBu_r"

    def limits(self, maps: Array) -> tuple[float, float]:
        """Numbers of the first and of the last colour."""
        if self.reach is not None:
            return -self.reach, self.reach
        finite = maps[np.isfinite(maps)]
        return (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)


def present_spins(lattice: Lattice, frames: FrameReader, number: int) -> Array:
    """Spins of a frame, NaN at vacancies."""
    return np.where(vacancies_of(frames.attributes, lattice)[..., None], np.nan, frames.spins[number])


def _field_error(lattice: Lattice, frames: FrameReader, number: int) -> Array:
    """Distance of the learned from the exact field perpendicular to the spins, or the committee's estimate of it."""
    return np.asarray((frames.field_error if "field_error" in frames.names else frames.spread)[number])


QUANTITIES = {
    "bonds": Quantity(
        "bonds", BONDS, lambda lattice, frames, n: bond_map(lattice, present_spins(lattice, frames, n)), 1.0
    ),
    "chirality": Quantity(
        "chirality",
        CHIRALITY,
        lambda lattice, frames, n: scalar_chirality(lattice, present_spins(lattice, frames, n)),
        0.77,
    ),
    "sz": Quantity("spin along z", r"$S_z$", lambda lattice, frames, n: present_spins(lattice, frames, n)[..., 2], 1.0),
    "density": Quantity("density", "electrons per site", lambda lattice, frames, n: frames.density[n]),
    "error": Quantity("field error", "field error perpendicular to the spin (t)", _field_error),
}
"""By their names on the command line."""


@dataclass(frozen=True)
class Series:
    """Numbers of a run against time, or of a path against the distance along it; arrays have the shape (n,)."""

    name: str
    lattice: Lattice
    time: Array
    """Times, or distances."""
    curves: Curves
    axis: str = "time (ħ/t)"
    """What ``time`` is, for the figures."""


def caption(frames: FrameReader, number: int) -> str:
    """Caption of a frame: its time, its distance along a path, or its number."""
    if "time" in frames.names:
        return f"t = {frames.time[number]:.5g} ħ/t"
    return f"{frames.distance[number]:.3g} rad" if "distance" in frames.names else f"snapshot {number}"


def some_frames(count: int, most: int) -> list[int]:
    """Numbers of at most ``most`` frames, equally spaced, the first and the last among them."""
    found: list[int] = np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()
    return found


def read_series(source: Path) -> Series:
    """Measure the frames of a simulation or a path, given by its directory or its file, finished or not.

    Returns what its observers have recorded as one number per frame; mean bond, chirality and magnetisation in any
    case; and the wall position where there is a wall, NaN at times without.
    """
    path = trajectory_file(source)
    lattice = lattice_of(path)
    with FrameReader(path) as frames:
        if len(frames) and {"distance", "energy", "force"} <= set(frames.names):
            curves: Curves = {
                "energy above the first image (t)": {"": frames.energy[:] - frames.energy[0]},
                "residual force (t)": {"": frames.force[:]},
            }
            return Series(source.name, lattice, frames.distance[:], curves, "distance along the path (rad)")
        if not len(frames) or "time" not in frames.names:
            raise HpcspinError(f"{path}: holds no frame with a time yet; give a simulation with frames, or a path")
        chosen = some_frames(len(frames), _MOST_FRAMES)
        rows = [_numbers(lattice, present_spins(lattice, frames, number)) for number in chosen]
        measured = {name: np.array([row[name] for row in rows]) for name in rows[0]}
        curves = _curves(measured, frames, chosen, lattice)
        return Series(source.name, lattice, frames.time[:][chosen], curves)


def _numbers(lattice: Lattice, spins: Array) -> dict[str, Array | float]:
    wall = float(wall_position(lattice, spins)) if has_wall(lattice, spins) else np.nan
    return {
        "wall": wall,
        "bond": mean_of_known(nearest_bonds(lattice, spins)),
        "chirality": mean_of_known(scalar_chirality(lattice, spins)),
        "spin": np.nanmean(spins, axis=(0, 1)),
    }


def _curves(measured: dict[str, Array], frames: FrameReader, chosen: list[int], lattice: Lattice) -> Curves:
    spin = measured["spin"]
    curves: Curves = {
        "wall position (columns)": {"": measured["wall"]},
        "mean bond": {"": measured["bond"]},
        "mean chirality": {"": measured["chirality"]},
        "magnetisation": {**dict(zip("xyz", spin.T, strict=True)), "length": np.linalg.norm(spin, axis=-1)},
    }
    if "current" in frames.names:
        names = reservoir_names(frames.attributes)
        curves["current out of a reservoir (t/ħ)"] = dict(zip(names, frames.current[:][chosen].T, strict=False))
    if "energy" in frames.names:
        curves["energy per site (t)"] = {
            "": frames.energy[:][chosen] / np.sum(~vacancies_of(frames.attributes, lattice))
        }
    for name in sorted(set(frames.names) - _MEASURED):
        if getattr(frames, name).shape[1:] == ():
            curves[labelled(name)] = {"": np.asarray(getattr(frames, name)[:][chosen], dtype=float)}
    kept = (
        (what, {key: one for key, one in found.items() if np.isfinite(one).any()}) for what, found in curves.items()
    )
    return {what: found for what, found in kept if found}


def labelled(name: str) -> str:
    """Label of a dataset with one number per frame, or of an entry of one (`frame_series`), with its unit."""
    dataset = max((known for known in DATASETS if f"{name}_".startswith(f"{known}_")), key=len, default="")
    entry = name.removeprefix(dataset).removeprefix("_")
    words = {"error": "estimated error of the exact field", "current": f"current out of {entry}"}.get(dataset)
    unit = DATASETS[dataset].units.replace("hbar", "ħ") if dataset else "1"
    words = words or name.replace("_", " ")
    return words if unit == "1" else f"{words} ({unit})"


def film_of(path: Path) -> str:
    """A film of a file's frames; snapshots without a time are numbered."""
    lattice = lattice_of(path)
    with FrameReader(path) as frames:
        if not len(frames):
            return page.warnings([f"{path.name}: holds no frame yet"])
        chosen = some_frames(len(frames), _FRAMES)
        captions = [caption(frames, number) for number in chosen]
        coarse = math.ceil(math.sqrt(len(chosen) * lattice.num_sites / _CELLS))
        shown = [one for one in QUANTITIES.values() if one.there(frames)]
        maps = {
            one.name: np.stack([averaged(one.measure(lattice, frames, number), coarse) for number in chosen])
            for one in shown
        }
    limits = {one.name: one.limits(maps[one.name]) for one in shown}
    note = f"Each cell is the mean of {coarse}×{coarse} sites." if coarse > 1 else ""
    colours = {one.name: one.colours for one in shown}
    return page.film(lattice, captions, maps, limits, colours, coarse, note)


def averaged(values: Array, coarse: int) -> Array:
    """Means over squares of sites, NaN where no site has a number; the last square of a side may be smaller."""
    if coarse == 1:
        return values
    padded = np.pad(values, [(0, -length % coarse) for length in values.shape], constant_values=np.nan)
    squares = padded.reshape(padded.shape[0] // coarse, coarse, padded.shape[1] // coarse, coarse)
    number = np.isfinite(squares).sum(axis=(1, 3))
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nansum(squares, axis=(1, 3)) / number)
