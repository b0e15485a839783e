"""Active against plain learning: test error against the number of exact labels, from the same first labels.

    python perf/study.py active --directory DIR [--system voltages] [--seeds 2] [--rounds 3]
        [--output perf/results/active.json]

`hpcspin learn` runs in DIR with a ``learning.selection`` that labels the frames on which the committee disagrees most
(``spread``; at many voltages ``pool``, which chooses spins and voltage together), and with ``time``, which labels
random frames. Both train committees of two, so that only the choice of frames differs. The committee of each round is
judged by one set of exact labels: frames of trajectories that a shipped model drives from starts, and at voltages, of
their own. The cost of the labels is the processor time of every eighth of them, solved again. Run again on the same
DIR it goes on where it stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from shared import parser_of, table, write_section

from hpcspin.assembly.system import build_system
from hpcspin.config import Config, load_config
from hpcspin.drawing.style import save
from hpcspin.lattice import perpendicular
from hpcspin.parallel.world import World
from hpcspin.potential import Committee, load_force
from hpcspin.storage import open_hdf5, provenance, read_labels, read_manifest
from hpcspin.training.evaluation import examine
from hpcspin.training.sources import read_source
from hpcspin.workflows.label import label_file
from hpcspin.workflows.learn import learn_directory
from hpcspin.workflows.simulate import simulate_directory

CONFIGS = Path(__file__).parents[2] / "configs"
LEFT = "electrons.reservoirs.left.potential"
COMMON = ("lattice.size=[20,8]", "training.epochs=20", "training.members=2", "training.ema=0.99")


@dataclass(frozen=True)
class Study:
    """What is learned, and what judges it."""

    selection: str
    """The active choice of frames."""
    model: str
    """Shipped model that drives the trajectories that judge."""
    overrides: tuple[str, ...]
    """Of ``configs/driven_sd_strips.yaml``."""
    tests: tuple[tuple[str, ...], ...]
    """Overrides for each trajectory that judges."""
    section: str
    """Name of its part of ``perf/README.md``."""


def walls(*positions: float, **parameters: float) -> list[dict[str, Any]]:
    """Initial walls."""
    return [{"kind": "wall", "position": x, **parameters} for x in positions]


def start(initial: dict[str, Any]) -> str:
    """Override of the initial spins."""
    return f"initial={json.dumps(initial)}"


AFM = {"kind": "antiferromagnet"}
STUDIES = {
    "wall": Study(
        selection="spread",
        model="driven_sd_strips",
        overrides=(
            *COMMON,
            "dynamics.duration=120",
            "dynamics.record_interval=6",
            "potential.radius=3.0",
            "potential.hidden=[64,64,64]",
            "learning.trajectories=6",
            "learning.labels=40",
            f"learning.initial={json.dumps(walls(3.0, 9.0, 5.0, 13.0, 7.0, 11.0))}",
        ),
        tests=tuple((start(walls(2.5 + 1.2 * number)[0]),) for number in range(10)),
        section="active.py",
    ),
    "voltages": Study(
        selection="pool",
        model="driven_sd_family",
        overrides=(
            *COMMON,
            "dynamics.duration=96",
            "dynamics.record_interval=6",
            'potential={"kind": "pair", "drive": "potentials", "layers": [1, 2], "channels": 8, "radius": 1.5, '
            '"symmetry": "bias", "electrode_range": 6.0, "hidden": [32]}',
            "training.optimiser=muon",
            "training.weight_decay=0.1",
            "learning.trajectories=16",
            "learning.validation=2",
            "learning.labels=64",
            f"learning.vary={json.dumps({LEFT: [-4.0, 0.0, -2.8, -3.6, -2.4, -4.4, -1.2, -3.2]})}",
            # The first labels are of these spins alone: without larger tilts the model would know nothing else.
            f"learning.initial={json.dumps([*walls(4.0, 10.0, tilt=0.3), AFM | {'tilt': 0.3}, *walls(7.0, tilt=0.3)])}",
        ),
        tests=tuple(
            (start(initial), f"{LEFT}={-voltage}")
            for voltage in (2.5, 2.9, 3.3, 3.7, 3.9)
            for initial in (walls(5.0 + voltage)[0], AFM)
        ),
        section="active.py voltages",
    ),
}
FRAMES = 6
"""Labels of each trajectory that judges."""
NAMES = {"spread": "largest disagreement", "pool": "largest disagreement", "time": "random"}


def config(study: Study, *overrides: str) -> Config:
    """Config of the small system."""
    return load_config(CONFIGS / "driven_sd_strips.yaml", [*study.overrides, *overrides])


def make_test(study: Study, directory: Path) -> list[Path]:
    """Label files of the trajectories that judge."""
    files = []
    for number, overrides in enumerate(study.tests):
        place = directory / f"test-{number:02d}"
        moved = ("dynamics.field=learned", f"dynamics.model={study.model}")
        driven = config(study, f"dynamics.seed={900 + number}", *moved, *overrides)
        driven = driven.model_copy(update={"potential": None, "training": None, "learning": None})
        simulate_directory(driven, place, World())
        if not (place / "spins.h5").exists():
            with open_hdf5(place / "trajectory.h5") as file, h5py.File(place / "spins.h5", "w") as spins:
                count = len(file["spins"])
                spins["spins"] = file["spins"][np.linspace(count // FRAMES, count - 1, FRAMES, dtype=int)]
        files.append(place / "labels.h5")
        if not files[-1].exists():
            label_file(driven, place / "spins.h5", files[-1], World())
    return files


def label_hours(files: Iterable[Path]) -> float:
    """Processor hours that labels take, estimated from every eighth of them."""
    total = 0.0
    for path in files:
        labels = read_labels(path)
        section = Config.model_validate(labels.attributes["config"])
        system, these = build_system(section), labels.spins[::8]
        before = time.process_time()
        for spins in these:
            system.solve(spins)
        total += (time.process_time() - before) * len(labels.spins) / len(these)
    return total / 3600


def watch(model: Committee, files: list[Path]) -> dict[str, float]:
    """Share of the sites outside the training data, and root mean square error of the others and of them."""
    outside, errors = [], []
    for path in files:
        labels, source = read_labels(path), read_source(path, "square", 0.0)
        spins, field = (torch.from_numpy(array).flatten(1, 2) for array in (labels.spins, labels.field))
        table = model.neighbourhood(source.lattice)
        drive = torch.tensor(model.drive_of(source.electrons, source.drive[0], str(path))).expand(len(spins), -1)
        outside.append(model.outside(spins, table, drive).numpy() > 0)
        wrong = model(spins, table, drive).field - field
        errors.append(perpendicular(spins, wrong).square().sum(-1).numpy() / 2)
    flagged, square = np.concatenate(outside), np.concatenate(errors)
    inside, beyond = (float(np.sqrt(square[those].mean())) for those in (~flagged, flagged))
    return {"share_outside": float(flagged.mean()), "rms_error_inside": inside, "rms_error_outside": beyond}


def run(
    study: Study, directory: Path, selection: str, seed: int, rounds: int, test: list[Path]
) -> list[dict[str, Any]]:
    """All rounds of one choice of frames: labels so far, their cost, and the error on each trajectory that judges."""
    place = directory / f"{selection}-{seed}"
    chosen = (f"learning.selection={selection}", f"learning.rounds={rounds}")
    learned = config(study, *chosen, f"learning.seed={seed}", f"training.seed={10 * seed}")
    learn_directory(learned, place, World())
    sizes = {shard.file: shard.snapshots for shard in read_manifest(place / "data", verify=False)}
    measured = []
    for number in range(rounds + 1):
        model = load_force(place / f"round-{number:02d}" / "model")
        errors = examine(model, test, World(), torch.device("cpu"))
        files = [name for name in sizes if int(name.split("-")[1][:2]) <= number]
        labels, hours = sum(sizes[name] for name in files), label_hours(place / "data" / name for name in files)
        mse = [float(np.mean(values)) for values in errors.snapshot_mse.values()]
        assert isinstance(model, Committee)
        counted = {"round": number, "labels": labels, "label_hours": hours}
        measured.append({**counted, "mse_of_trajectories": mse, **watch(model, test)})
    return measured


def series(runs: list[list[dict[str, Any]]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Labels of each round, and errors of shape (seeds, rounds, trajectories)."""
    errors = np.array([[record["mse_of_trajectories"] for record in one] for one in runs])
    return np.array([record["labels"] for record in runs[0]], dtype=float), errors


def estimate(errors: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean over seeds and trajectories of (seeds, rounds, trajectories), and its standard error over trajectories."""
    by_trajectory = errors.mean(0)
    return by_trajectory.mean(1), by_trajectory.std(1, ddof=1) / np.sqrt(by_trajectory.shape[1])


def report(study: Study, measured: dict[str, Any]) -> str:
    """Text for ``perf/README.md``."""
    active, plain = (measured["runs"][selection] for selection in (study.selection, "time"))
    labels, spread = series(active)
    _, random = series(plain)
    rows = []
    columns = [estimate(errors) for errors in (spread, random, spread - random)]
    for number, count in enumerate(labels):
        cells = [f"{mean[number] * 1e5:.1f} ± {error[number] * 1e5:.1f}" for mean, error in columns]
        hours = [f"{np.mean([one[number]['label_hours'] for one in runs]) * 60:.1f}" for runs in (active, plain)]
        watched = [one[number] for one in (*active, *plain)]
        share = f"{np.mean([record['share_outside'] for record in watched]):.1%}"
        inside, beyond = (
            f"{np.mean([record[name] for record in watched]) * 1e3:.1f}"
            for name in ("rms_error_inside", "rms_error_outside")
        )
        rows.append([f"{count:.0f}", *cells, ", ".join(hours), share, inside, beyond])
    header = [
        "labels",
        "MSE, largest disagreement",
        "MSE, random frames",
        "difference",
        "processor minutes of the labels",
        "sites outside the training data",
        "rms error inside, 1e-3",
        "rms error outside, 1e-3",
    ]
    return (
        f"Test MSE in 1e-5 on {len(study.tests) * FRAMES} labels of {len(study.tests)} independent trajectories of "
        "20x8; errors over the trajectories, of the difference paired. Seeds of the trainings and choices: "
        f"{len(active)}; what other seeds would change is not in the errors. Labels count those kept for validation; "
        f"sites of the test labels are inside or outside by the observer `outside`.\n\n{table(header, rows)}"
    )


def draw(measured: dict[str, Any], path: Path) -> None:
    """Test error against the number of labels."""
    figure = Figure(figsize=(4.6, 3.4), layout="constrained")
    axis = figure.subplots()
    for selection, runs in measured["runs"].items():
        labels, errors = series(runs)
        mean, error = estimate(errors)
        axis.errorbar(labels, mean, error, fmt="o-", capsize=3, label=NAMES[selection])
    axis.set(xlabel="number of exact labels", ylabel="mean squared error of a component (t²)", yscale="log")
    axis.legend(frameon=False)
    save(figure, path)


def main() -> None:
    """Enter from the command line."""
    parser = parser_of(__doc__, "active.json")
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--system", choices=list(STUDIES), default="wall")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    study = STUDIES[arguments.system]
    test = make_test(study, arguments.directory)
    runs: dict[str, list[list[dict[str, Any]]]] = {study.selection: [], "time": []}
    for seed in range(1, arguments.seeds + 1):
        for selection, done in runs.items():
            done.append(run(study, arguments.directory, selection, seed, arguments.rounds, test))
            print(selection, seed, json.dumps(done[-1]), flush=True)
    measured = {"provenance": provenance(), "system": asdict(study), "runs": runs}
    arguments.output.write_text(json.dumps(measured, indent=2) + "\n")
    draw(measured, arguments.output.with_suffix(".png"))
    write_section(study.section, report(study, measured))


if __name__ == "__main__":
    main()
