"""How smoothly the field of given spins depends on the voltage, exact and learned.

    python perf/study.py smoothness CONFIG LABELS:FRAME ... [--family driven_sd_family] [--step 0.1] [--until 4.4]
        [--output perf/results/smoothness.json]

The potential of the left electrode goes from 0 to minus ``--until``; spins stay as they are. For each voltage: root
mean squares, over the components across the spins, of the field's change by one step and of the learned field's error,
and the change of that change, both per hopping of voltage (dh/dV and the jump of dh/dV between neighbouring steps). A
field that is smooth at this scale has jumps in proportion to the step; where an edge of the energy window crosses an
edge of a band they stand out. Writes the JSON, and a figure beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from shared import parser_of

from hpcspin.assembly.system import build_solver, build_system
from hpcspin.config import load_config
from hpcspin.drawing.style import save
from hpcspin.parallel.progress import progress
from hpcspin.parallel.world import World
from hpcspin.potential import load_force
from hpcspin.storage import provenance, read_labels, write_json

Array = NDArray[np.float64]
_ACROSS = 2
"""Components across a spin."""


def across(field: Array, spins: Array) -> Array:
    """Without the part along each spin."""
    return field - (field * spins).sum(-1, keepdims=True) * spins


def rms(field: Array) -> list[float]:
    """Root mean square of a component across the spins, of each voltage."""
    sites = field.shape[1] * field.shape[2]
    return np.sqrt((field**2).sum((1, 2, 3)) / (_ACROSS * sites)).tolist()


def scan(path: Path, spins: Array, voltages: Array, family: str) -> dict[str, Any]:
    """Exact and learned fields of one frame at all voltages, compared."""
    model, fields = load_force(family), {"exact": list[Array](), "learned": list[Array]()}
    world = World()
    with progress(world, "smoothness", len(voltages)) as bar:
        for voltage in voltages:
            config = load_config(path, [f"electrons.reservoirs.left.potential={-voltage}"])
            system = build_system(config)
            fields["exact"].append(build_solver(config, system, world).solve(spins[None]).field[0])
            fields["learned"].append(model.field(spins, system))
            bar.advance()
    found = {name: across(np.array(each), spins) for name, each in fields.items()}
    step = voltages[1] - voltages[0]
    slopes = {name: np.diff(each, axis=0) / step for name, each in found.items()}
    return {
        "variance": [value**2 for value in rms(found["exact"])],
        "error": rms(found["learned"] - found["exact"]),
        "slope": {name: rms(slope) for name, slope in slopes.items()},
        "jump": {name: rms(np.diff(slope, axis=0)) for name, slope in slopes.items()},
    }


def draw(voltages: Array, frames: dict[str, dict[str, Any]], output: Path) -> None:
    """Slopes, jumps and errors against the voltage, a row for each frame."""
    figure = Figure(figsize=(9.0, 2.6 * len(frames)), layout="constrained")
    middle = (voltages[1:] + voltages[:-1]) / 2
    for axes, (name, found) in zip(figure.subplots(len(frames), 3, squeeze=False), frames.items(), strict=True):
        for axis, key, at in ((axes[0], "slope", middle), (axes[1], "jump", voltages[1:-1])):
            for label, values in found[key].items():
                axis.plot(at, values, label=label)
            axis.legend()
        axes[0].set(title="frame {1} of {0}".format(*name.rsplit(":", 1)), ylabel="rms of dh/dV (e)")
        axes[1].set(ylabel="rms jump of dh/dV a step (e)")
        axes[2].semilogy(voltages, np.sqrt(found["variance"]), color="C0", label="field")
        axes[2].semilogy(voltages, found["error"], color="C2", label="error")
        axes[2].set(ylabel="rms of a component (t)")
        axes[2].legend()
        for axis in axes:
            axis.set(xlabel="voltage (t/e)")
    save(figure, output.with_suffix(".png"))


def main() -> None:
    """Enter from the command line."""
    parser = parser_of(__doc__, "smoothness.json")
    parser.add_argument("config", type=Path)
    parser.add_argument("frames", nargs="+", metavar="LABELS:FRAME")
    parser.add_argument("--family", default="driven_sd_family")
    parser.add_argument("--step", type=float, default=0.1)
    parser.add_argument("--until", type=float, default=4.4)
    arguments = parser.parse_args()
    voltages = np.linspace(0.0, arguments.until, round(arguments.until / arguments.step) + 1)
    found = {}
    for frame in arguments.frames:
        file, number = frame.rsplit(":", 1)
        found[f"{Path(file).name}:{number}"] = scan(
            arguments.config, read_labels(Path(file)).spins[int(number)], voltages, arguments.family
        )
    machine = {"family": arguments.family, "voltages": voltages.tolist(), **provenance()}
    write_json(arguments.output, {**machine, "frames": found})
    draw(voltages, found, arguments.output)
    print(*(f"{name}: {one}" for name, one in found.items()), sep="\n")


if __name__ == "__main__":
    main()
