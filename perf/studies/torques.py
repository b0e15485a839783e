"""Which of the two torques drives the wall: sizes near it, what each moves it by at once, and dynamics of each alone.

    python perf/study.py torques LABELS.h5 ... [--model driven_sd_pair] [--starts 4] [--duration 40] [--figure FILE.png]

LABELS are exact labels, one file a trajectory, of the lattice and electrons of ``configs/driven_sd.yaml``. On their
frames the model says T^eq = S x ∂E/∂S and T^neq = S x (S x ∂G/∂S) (the paper's Eq. 4). Three things are measured:

- |T^neq| / |T^eq| of the sites near the wall (Fig. 5b of the paper);
- the rate at which the wall moves under each part of the field, and under the exact one: the wall's position is a
  function of the spins, and its change along Ṡ, which is linear in the field, is a sum over its parts. Noise and what
  it does to the mean are not in it. Errors are over the trajectories;
- how far walls travel from the middle frame of some of the files under E alone, G alone and both, with the same noise.

Writes ``perf/results/torques.json`` and the figure.
"""

from __future__ import annotations

import argparse
import copy
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from shared import RESULTS, wall_rate

import hpcspin as hs
from hpcspin.analysis.series import Estimate
from hpcspin.config import load_config
from hpcspin.drawing.comparison import ComparedRun
from hpcspin.drawing.driven import torque_ratio
from hpcspin.drawing.style import save
from hpcspin.lattice import Lattice, has_wall
from hpcspin.potential import ForceField, load_force
from hpcspin.storage import provenance, read_labels, write_json

Array = NDArray[np.float64]
ROOT = Path(__file__).resolve().parents[2]


def alone(model: ForceField, potential: int) -> ForceField:
    """The model with E (0) or G (1) alone, the other one switched off."""
    part = copy.deepcopy(model)
    with torch.no_grad():
        part.networks[-1].layers[-1].weight[1 - potential] = 0  # type: ignore[index, operator]
    return part


def rates(lattice: Lattice, spins: Array, field: Array, damping: float) -> Array:
    """Columns per ħ/t at which a field moves the wall of each frame, shape (n,)."""
    return np.array([wall_rate(lattice, *frame, damping) for frame in zip(spins, field, strict=True)])


def on_frames(model: ForceField, path: Path, lattice: Lattice, bias: float, damping: float) -> dict[str, Array]:
    """Ratios of the torques near the wall, and the wall's rates under each field, on a file's frames with walls."""
    labels = read_labels(path, lattice.size)
    chosen = has_wall(lattice, labels.spins)
    spins, exact = labels.spins[chosen], labels.field[chosen]
    said = model.predict(spins, lattice, bias)
    fields = {"exact": exact, "E": said.equilibrium, "G": said.nonequilibrium, "both": said.field}
    parts = {name: rates(lattice, spins, field, damping) for name, field in fields.items()}
    precession = rates(lattice, spins, said.equilibrium, 0.0) / (1 + damping**2)
    ratio = torque_ratio(lattice, ComparedRun(np.arange(float(len(spins))), spins, exact), said)
    return {"ratio": ratio, **parts, "E, precession": precession, "E, damping": parts["E"] - precession}


def travelled(model: ForceField, spins: Array, seed: int, duration: float) -> dict[str, list[float]]:
    """Wall positions over time under E, G and both, from the same spins with the same noise."""
    system, dynamics = hs.load_system(ROOT / "configs" / "driven_sd.yaml"), _dynamics()
    settings = {key: getattr(dynamics, key) for key in ("damping", "temperature", "step", "integrator")}
    models = {"E": alone(model, 0), "G": alone(model, 1), "both": model}
    return {
        name: hs.simulate(
            system, field=one, spins=spins, seed=seed, duration=duration, record_interval=5, **settings
        ).wall_position.tolist()
        for name, one in models.items()
    }


def _dynamics() -> Any:
    return load_config(ROOT / "configs" / "driven_sd.yaml").dynamics


def estimates(samples: dict[str, list[float]]) -> dict[str, dict[str, float | None]]:
    """Mean and standard error of each list."""
    return {name: vars(Estimate.of(values)) for name, values in samples.items()}


def draw(
    ratios: Array, moved: dict[str, Any], walls: list[dict[str, list[float]]], duration: float, path: Path
) -> None:
    """Histogram of the ratio, and the rates and ways of the wall under each field."""
    figure = Figure(figsize=(9.6, 3.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    left.hist(np.log10(ratios[ratios > 0]), bins=60, density=True)
    left.set(xlabel=r"$\log_{10}\,|T^\mathrm{neq}| / |T^\mathrm{eq}|$ near the wall", ylabel="probability density")
    names = ["exact", "both", "E", "G"]
    middle.bar(names, [moved[name]["mean"] for name in names], yerr=[moved[name]["error"] for name in names])
    middle.set(ylabel="rate of the wall (columns per ħ/t)")
    for number, name in enumerate(("both", "E", "G")):
        ways = np.array([run[name] for run in walls])
        ways, times = ways - ways[:, :1], np.linspace(0, duration, ways.shape[1])
        right.plot(times, ways.T, color=f"C{number}", linewidth=0.7)
        right.plot(times, ways.mean(0), color=f"C{number}", linewidth=2, label=name)
    right.set(xlabel="time (ħ/t)", ylabel="distance travelled (columns)")
    right.legend(frameon=False)
    save(figure, path)


def main() -> None:
    """Enter from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path, nargs="+")
    parser.add_argument("--model", default="driven_sd_pair")
    parser.add_argument("--starts", type=int, default=4)
    parser.add_argument("--duration", type=float, default=40.0)
    parser.add_argument("--figure", type=Path, default=ROOT / "docs" / "figures" / "torques.png")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    system, model = hs.load_system(ROOT / "configs" / "driven_sd.yaml"), load_force(arguments.model)
    assert isinstance(model, ForceField)
    damping = _dynamics().damping
    found = [on_frames(model, path, system.lattice, system.bias, damping) for path in arguments.labels]
    ratios = np.concatenate([one.pop("ratio") for one in found])
    moved = estimates({name: [float(one[name].mean()) for one in found] for name in found[0]})
    walls = []
    for seed, path in enumerate(arguments.labels[: arguments.starts], 1):
        frames = read_labels(path, system.lattice.size).spins
        walls.append(travelled(model, frames[len(frames) // 2], seed, arguments.duration))
    ways = estimates({name: [run[name][-1] - run[name][0] for run in walls] for name in ("E", "G", "both")})
    quartiles = np.quantile(ratios, (0.25, 0.5, 0.75)).tolist()
    measured = {
        "provenance": provenance(),
        "load": os.getloadavg()[0],
        "model": arguments.model,
        "frames": sum(len(one["exact"]) for one in found),
        "ratio": {"quartiles": quartiles, "share_above_1": float((ratios > 1).mean()), "sites": len(ratios)},
        "rates": moved,
        "duration": arguments.duration,
        "travelled": ways,
        "walls": walls,
    }
    write_json(RESULTS / "torques.json", measured)
    draw(ratios, moved, walls, arguments.duration, arguments.figure)
    print(f"|T^neq| / |T^eq|: {quartiles}, above 1: {measured['ratio']['share_above_1']:.4f}")
    for what, values in (("rate", moved), ("travelled", ways)):
        for name, value in values.items():
            print(f"{what}, {name}: {value['mean']:.4f} ± {value['error'] or float('nan'):.4f}")


if __name__ == "__main__":
    main()
