"""What a random split of one trajectory hides: errors on its other frames, and on an independent trajectory.

    python perf/study.py same_trajectory CONFIG --output DIR [KEY=VALUE ...]

Runs exact dynamics twice, from walls at two columns with seeds of their own,
records every step of the first run, trains on three quarters of its frames,
chosen at random, and judges the force field on the other quarter (the protocol
of arXiv:2112.12124) and on the second run, with standard errors over the
frames. A stopped run continues. Writes ``perf/results/same_trajectory.json``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from shared import RESULTS, parser_of

from hpcspin.config import Config, load_config
from hpcspin.parallel.world import World
from hpcspin.storage import Labels, provenance, read_labels, write_labels, write_manifest
from hpcspin.workflows.evaluate import evaluate_files
from hpcspin.workflows.simulate import simulate_directory
from hpcspin.workflows.train import train_directory

RUNS = {"same": {"position": 8.0, "seed": 301, "every": 1}, "other": {"position": 5.0, "seed": 302, "every": 16}}
"""Initial wall, seed, and steps between recorded frames of both runs."""
TAUGHT = 0.75


def exact_run(config: Config, directory: Path, position: float, seed: int, every: int) -> Labels:
    """Frames of one exact trajectory with their fields."""
    assert config.dynamics is not None
    assert config.initial is not None
    changes = {"field": "electrons", "seed": seed, "record_interval": every, "observers": ("wall_position",)}
    run = config.model_copy(
        update={
            "initial": config.initial.model_copy(update={"position": position}),
            "dynamics": config.dynamics.model_copy(update=changes),
        }
    )
    code = simulate_directory(run, directory, World())
    if code:
        raise SystemExit(code)
    return read_labels(directory / "trajectory.h5", config.lattice.size)


def write_part(frames: Labels, chosen: np.ndarray, path: Path, config: Config) -> None:
    """Some frames as a label file."""
    assert config.electrons is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    attributes = {
        "config": frames.attributes["config"],
        "precision": frames.attributes["precision"],
        "reservoirs": [reservoir.name for reservoir in config.electrons.reservoirs],
    }
    write_labels(path, frames.spins[chosen], frames.field[chosen], attributes)


def main() -> None:
    """Run, train, judge."""
    parser = parser_of(__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--output", type=Path, required=True, help="directory for trajectories and the model")
    arguments = parser.parse_intermixed_args()
    config = load_config(arguments.config, arguments.overrides)
    config.need("electrons", "initial", "dynamics", "potential", "training")
    assert config.training is not None
    root: Path = arguments.output
    frames = {name: exact_run(config, root / name, **run) for name, run in RUNS.items()}
    count = len(frames["same"].spins)
    order = np.random.default_rng(1).permutation(count)
    taught, held = np.sort(order[: round(TAUGHT * count)]), np.sort(order[round(TAUGHT * count) :])
    if not (root / "data" / "manifest.json").exists():
        write_part(frames["same"], taught, root / "data" / "taught.h5", config)
        write_part(frames["same"], held, root / "data" / "held.h5", config)
        write_part(frames["other"], np.arange(len(frames["other"].spins)), root / "other.h5", config)
        write_manifest(root / "data")
    training = config.training.model_copy(update={"validation": ("held.h5",)})
    code = train_directory(config.model_copy(update={"training": training}), [root / "data"], root / "model", World())
    if code:
        raise SystemExit(code)
    measured: dict[str, Any] = {"frames_taught": len(taught), "overrides": arguments.overrides}
    for name, labels in (("same trajectory", root / "data" / "held.h5"), ("independent trajectory", root / "other.h5")):
        target = labels.with_suffix(".errors.json")
        evaluate_files(root / "model", labels, target, World(), force=True)
        errors = json.loads(target.read_text())
        measured[name] = {key: errors[key] for key in ("mse", "mse_error", "sigma", "variance_fraction", "snapshots")}
    measured |= {"load_after": os.getloadavg()[0], "provenance": provenance()}
    (RESULTS / "same_trajectory.json").write_text(json.dumps(measured, indent=2) + "\n")
    print(json.dumps(measured, indent=2))


if __name__ == "__main__":
    main()
