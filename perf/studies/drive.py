"""What is nonequilibrium: the field's change with the voltage, beside h^neq of a pair of potentials.

    python perf/study.py drive CONFIG LABELS [--pair driven_sd_pair] [--family MODEL] [--frames 12]
        [--output perf/results/drive.json]

h(V) - h(0), the field of the electrons at their voltages less that of the same
spins with all reservoirs at the potential of the bath, is the drive and needs no
gauge; h^neq = -S x dG/dS of the pair is the smallest part that is no gradient.
Both are measured on frames of a label file with walls: the ratio of their torques
to those of the rest of the field near the wall, their overlap, and which share of
the wall's velocity each part gives at that instant. ``--family`` names a force
field that sees the potentials, whose h(V) - h(0) then stands beside the exact one.
Frames of one trajectory are not independent: the errors, over the frames, are
lower bounds. Writes the JSON, with maps and histograms beside it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from shared import parser_of, wall_rate

from hpcspin.analysis.series import Estimate
from hpcspin.assembly.system import build_solver, build_system
from hpcspin.config import Config, load_config
from hpcspin.drawing.comparison import ComparedRun
from hpcspin.drawing.driven import torque_ratio
from hpcspin.drawing.figures import histograms
from hpcspin.drawing.style import save
from hpcspin.electrons import DrivenLattice
from hpcspin.lattice import has_wall
from hpcspin.parallel.progress import progress
from hpcspin.parallel.world import World
from hpcspin.potential import PredictedFields, load_force
from hpcspin.storage import provenance, read_labels, write_json

Array = NDArray[np.float64]


def without_voltage(system: DrivenLattice) -> DrivenLattice:
    """The same electrons with all reservoirs at the potential of the bath."""
    (bath,) = (one.potential for one in system.reservoirs if np.all(one.sites))
    reservoirs = tuple(dataclasses.replace(one, potential=bath) for one in system.reservoirs)
    return dataclasses.replace(system, reservoirs=reservoirs)


def split_fields(
    config: Config, spins: Array, exact: Array, pair: str, family: str | None
) -> dict[str, PredictedFields]:
    """Ways to divide the field of some frames into a part without the voltage and one that it drives."""
    system, world = build_system(config), World()
    assert isinstance(system, DrivenLattice)
    still = without_voltage(system)
    solver = build_solver(config, still, world)
    equilibrium = []
    with progress(world, "drive", len(spins)) as bar:
        for one in spins:
            equilibrium.append(solver.solve(one[None]).field[0])
            bar.advance()
    model = load_force(pair)
    found = {
        "exact h(V) - h(0)": PredictedFields(np.array(equilibrium), exact - np.array(equilibrium)),
        "h^neq of the pair": model.predict(spins, system.lattice, model.drive(system)),
    }
    if family is not None:
        model = load_force(family)
        fields = [model.predict(spins, system.lattice, model.drive(one)).field for one in (still, system)]
        found["learned h(V) - h(0)"] = PredictedFields(fields[0], fields[1] - fields[0])
    return found


def measure(config: Config, spins: Array, exact: Array, split: dict[str, PredictedFields]) -> dict[str, Any]:
    """Torque ratios near the wall, overlap with the exact drive, parts of the wall's velocity."""
    lattice = build_system(config).lattice
    assert config.dynamics is not None
    damping, run = config.dynamics.damping, ComparedRun(np.arange(float(len(spins))), spins, exact)
    drive = np.cross(spins, split["exact h(V) - h(0)"].nonequilibrium)
    found: dict[str, Any] = {}
    for name, parts in split.items():
        torque = np.cross(spins, parts.nonequilibrium)
        rates = {
            key: [wall_rate(lattice, one, field, damping) for one, field in zip(spins, fields, strict=True)]
            for key, fields in (
                ("rest", parts.equilibrium), ("this_part", parts.nonequilibrium), ("whole", parts.field)
            )
        }  # fmt: skip
        found[name] = {
            "quartiles_of_ratio_near_wall": np.quantile(torque_ratio(lattice, run, parts), (0.25, 0.5, 0.75)).tolist(),
            "rms_torque": float(np.sqrt((torque**2).sum(-1).mean())),
            "overlap_with_exact_drive": float((torque * drive).sum() / np.sqrt((torque**2).sum() * (drive**2).sum())),
            "wall_velocity": {key: dataclasses.asdict(Estimate.of(values)) for key, values in rates.items()},
        }
    return found


def draw(config: Config, spins: Array, exact: Array, split: dict[str, PredictedFields], output: Path) -> None:
    """Histograms near the wall, and maps of the torques of both parts on the first frame."""
    lattice = build_system(config).lattice
    run = ComparedRun(np.arange(float(len(spins))), spins, exact)
    ratios = {name: torque_ratio(lattice, run, parts) for name, parts in split.items()}
    label = r"$\log_{10}$ (torque / torque of the rest of the field), near the wall"
    logarithms = {
        name.replace("h^neq", r"$h^\mathrm{neq}$"): np.log10(ratio[ratio > 0]) for name, ratio in ratios.items()
    }
    histograms({label: logarithms}, output.with_name(f"{output.stem}_histogram.png"))
    figure = Figure(figsize=(4.2 * len(split), 3.0), layout="constrained")
    for axis, (name, parts) in zip(figure.subplots(1, len(split)), split.items(), strict=True):
        torque = np.linalg.norm(np.cross(spins[0], parts.nonequilibrium[0]), axis=-1)
        image = axis.imshow(torque.T, origin="lower", cmap="viridis")
        axis.set(title=name.replace("h^neq", r"$h^\mathrm{neq}$"), xlabel="column", ylabel="row")
        figure.colorbar(image, ax=axis, label="torque (t)", shrink=0.7)
    save(figure, output.with_name(f"{output.stem}_maps.png"))


def main() -> None:
    """Enter from the command line."""
    parser = parser_of(__doc__, "drive.json")
    parser.add_argument("config", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--pair", default="driven_sd_pair")
    parser.add_argument("--family")
    parser.add_argument("--frames", type=int, default=12)
    arguments = parser.parse_args()
    config = load_config(arguments.config)
    labels = read_labels(arguments.labels, config.lattice.size)
    walled = np.flatnonzero(has_wall(build_system(config).lattice, labels.spins))
    chosen = walled[np.unique(np.linspace(0, len(walled) - 1, arguments.frames).round().astype(int))]
    spins, exact = labels.spins[chosen], labels.field[chosen]
    split = split_fields(config, spins, exact, arguments.pair, arguments.family)
    found = measure(config, spins, exact, split)
    write_json(arguments.output, {"frames": len(spins), **found, "provenance": provenance()})
    draw(config, spins, exact, split, arguments.output)
    for name, numbers in found.items():
        velocity = {key: str(Estimate(**value)) for key, value in numbers["wall_velocity"].items()}
        print(
            f"{name}: median ratio {numbers['quartiles_of_ratio_near_wall'][1]:.2g}, overlap with the exact drive "
            f"{numbers['overlap_with_exact_drive']:.2f}, wall velocity {velocity}"
        )


if __name__ == "__main__":
    main()
