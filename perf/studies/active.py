"""Active against plain learning: test error against the number of exact labels, from the same first labels.

    python perf/study.py active --directory DIR [--seeds 2] [--rounds 3] [--output perf/results/active.json]

`hpcspin learn` runs in DIR with ``learning.selection: spread``, which labels the
frames on which the committee disagrees most, and with ``time``, which labels
random frames. Both train committees of two, so that only the choice of frames
differs. The committee of each round is judged by one set of exact labels: frames
of trajectories that the shipped model drives from starts of their own. Run
again on the same DIR it goes on where it stopped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from shared import parser_of, table, write_section

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
WALLS = (3.0, 9.0, 5.0, 13.0, 7.0, 11.0)
"""Columns of the walls from which trajectories start."""
SYSTEM = (
    "lattice.size=[20,8]",
    "dynamics.duration=120",
    "dynamics.record_interval=6",
    "potential.radius=3.0",
    "potential.hidden=[64,64,64]",
    "training.epochs=20",
    "training.members=2",
    "training.ema=0.99",
    "learning.trajectories=6",
    "learning.labels=40",
    f"learning.initial={json.dumps([{'kind': 'wall', 'position': x} for x in WALLS])}",
)
TEST = {"trajectories": 10, "frames": 6}
SELECTIONS = {"spread": "largest disagreement", "time": "random"}


def config(*overrides: str) -> Config:
    """Config of the small system."""
    return load_config(CONFIGS / "driven_sd_strips.yaml", [*SYSTEM, *overrides])


def make_test(directory: Path) -> list[Path]:
    """Label files of the trajectories that judge."""
    files, model = [], CONFIGS / "models" / "driven_sd_strips.safetensors"
    for number in range(TEST["trajectories"]):
        place = directory / f"test-{number:02d}"
        start = f"initial={json.dumps({'kind': 'wall', 'position': 2.5 + 1.2 * number})}"
        driven = config(f"dynamics.seed={900 + number}", start, "dynamics.field=learned", f"dynamics.model={model}")
        driven = driven.model_copy(update={"potential": None, "training": None, "learning": None})
        simulate_directory(driven, place, World())
        if not (place / "spins.h5").exists():
            with open_hdf5(place / "trajectory.h5") as file, h5py.File(place / "spins.h5", "w") as spins:
                count = len(file["spins"])
                spins["spins"] = file["spins"][
                    np.linspace(count // TEST["frames"], count - 1, TEST["frames"], dtype=int)
                ]
        files.append(place / "labels.h5")
        if not files[-1].exists():
            label_file(driven, place / "spins.h5", files[-1], World())
    return files


def watch(model: Committee, files: list[Path]) -> dict[str, float]:
    """Share of the sites outside the training data, and root mean square error of the others and of them."""
    outside, errors = [], []
    for path in files:
        labels, source = read_labels(path), read_source(path, "square", 0.0)
        spins, field = (torch.from_numpy(array).flatten(1, 2) for array in (labels.spins, labels.field))
        table = model.neighbourhood(source.lattice)
        bias = torch.full((len(spins),), source.drive[0])
        outside.append(model.outside(spins, table, bias).numpy() > 0)
        wrong = model(spins, table, bias).field - field
        errors.append(perpendicular(spins, wrong).square().sum(-1).numpy() / 2)
    flagged, square = np.concatenate(outside), np.concatenate(errors)
    inside, beyond = (float(np.sqrt(square[those].mean())) for those in (~flagged, flagged))
    return {"share_outside": float(flagged.mean()), "rms_error_inside": inside, "rms_error_outside": beyond}


def run(directory: Path, selection: str, seed: int, rounds: int, test: list[Path]) -> list[dict[str, Any]]:
    """All rounds of one choice of frames: labels so far, and the error on each trajectory that judges."""
    place = directory / f"{selection}-{seed}"
    seeds = (f"learning.seed={seed}", f"training.seed={10 * seed}")
    learn_directory(config(f"learning.selection={selection}", f"learning.rounds={rounds}", *seeds), place, World())
    sizes = {shard.file: shard.snapshots for shard in read_manifest(place / "data", verify=False)}
    measured = []
    for number in range(rounds + 1):
        model = load_force(place / f"round-{number:02d}" / "model")
        errors = examine(model, test, World(), torch.device("cpu"))
        labels = sum(count for name, count in sizes.items() if int(name[-5:-3]) <= number)
        mse = [float(np.mean(values)) for values in errors.snapshot_mse.values()]
        assert isinstance(model, Committee)
        measured.append({"round": number, "labels": labels, "mse_of_trajectories": mse, **watch(model, test)})
    return measured


def series(runs: list[list[dict[str, Any]]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Labels of each round, and errors of shape (seeds, rounds, trajectories)."""
    errors = np.array([[record["mse_of_trajectories"] for record in one] for one in runs])
    return np.array([record["labels"] for record in runs[0]], dtype=float), errors


def estimate(errors: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean over seeds and trajectories of (seeds, rounds, trajectories), and its standard error over trajectories."""
    by_trajectory = errors.mean(0)
    return by_trajectory.mean(1), by_trajectory.std(1, ddof=1) / np.sqrt(by_trajectory.shape[1])


def report(measured: dict[str, Any]) -> str:
    """Text for ``perf/README.md``."""
    labels, spread = series(measured["runs"]["spread"])
    _, time = series(measured["runs"]["time"])
    rows = []
    columns = [estimate(errors) for errors in (spread, time, spread - time)]
    for number, count in enumerate(labels):
        cells = [f"{mean[number] * 1e5:.1f} ± {error[number] * 1e5:.1f}" for mean, error in columns]
        watched = [one[number] for runs in measured["runs"].values() for one in runs]
        share = f"{np.mean([record['share_outside'] for record in watched]):.1%}"
        inside, beyond = (
            f"{np.mean([record[name] for record in watched]) * 1e3:.1f}"
            for name in ("rms_error_inside", "rms_error_outside")
        )
        rows.append([f"{count:.0f}", *cells, share, inside, beyond])
    header = [
        "labels",
        "MSE, largest disagreement",
        "MSE, random frames",
        "difference",
        "sites outside the training data",
        "rms error inside, 1e-3",
        "rms error outside, 1e-3",
    ]
    return (
        f"Test MSE in 1e-5 on {TEST['trajectories'] * TEST['frames']} labels of {TEST['trajectories']} independent "
        f"trajectories of 20x8; errors over the trajectories, of the difference paired. Seeds of the trainings and "
        f"choices: {len(spread)}; what other seeds would change is not in the errors. Labels count those kept for "
        "validation; sites of the test labels are inside or outside by the observer `outside`.\n\n"
        f"{table(header, rows)}"
    )


def draw(measured: dict[str, Any], path: Path) -> None:
    """Test error against the number of labels."""
    figure = Figure(figsize=(4.6, 3.4), layout="constrained")
    axis = figure.subplots()
    for selection, name in SELECTIONS.items():
        labels, errors = series(measured["runs"][selection])
        mean, error = estimate(errors)
        axis.errorbar(labels, mean, error, fmt="o-", capsize=3, label=name)
    axis.set(xlabel="exact labels", ylabel="test MSE", yscale="log")
    axis.legend(frameon=False)
    save(figure, path)


def main() -> None:
    """Enter from the command line."""
    parser = parser_of(__doc__, "active.json")
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    test = make_test(arguments.directory)
    runs: dict[str, list[list[dict[str, Any]]]] = {selection: [] for selection in SELECTIONS}
    for seed in range(1, arguments.seeds + 1):
        for selection in SELECTIONS:
            runs[selection].append(run(arguments.directory, selection, seed, arguments.rounds, test))
            print(selection, seed, json.dumps(runs[selection][-1]), flush=True)
    measured = {"provenance": provenance(), "system": SYSTEM, "test": TEST, "runs": runs}
    arguments.output.write_text(json.dumps(measured, indent=2) + "\n")
    draw(measured, arguments.output.with_suffix(".png"))
    write_section("active.py", report(measured))


if __name__ == "__main__":
    main()
