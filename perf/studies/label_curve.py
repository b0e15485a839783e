"""Error against the number of labels: what a direct field, one potential and two learn from as many labels.

    python perf/study.py label_curve CONFIG --data DIR [DIR ...] --validation FILE [FILE ...] --test FILE [FILE ...]
        --runs RUNS [--counts 100 400 1600] [--kinds direct conservative pair] [--seeds 1 2] [--steps 1500]
        [KEY=VALUE ...]

Labels are taken evenly spread over the files of the directories, but for those that validate and choose the epoch.
The force fields differ in the kind alone: layers, channels and training are those of the config. All make the same
number of steps, however few the labels are, so that none is trained less. Errors are those of each test file; their
standard errors are over the independent snapshots of the file, and ± of the table is half the range over the seeds. A
stopped study continues in RUNS.
"""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from shared import choose_labels, publish, table, training_parser_of

from hpcspin.config import Config, load_config
from hpcspin.parallel.world import World
from hpcspin.potential import load_force
from hpcspin.storage import provenance
from hpcspin.training import evaluate
from hpcspin.workflows.train import train_directory


def train(config: Config, data: Path, kind: str, count: int, seed: int, steps: int, output: Path) -> Any:
    """Train one force field for a number of steps."""
    assert config.training is not None
    epochs = max(1, round(steps * config.training.batch / count))
    changes = {
        "seed": seed,
        "epochs": epochs,
        "checkpoint_interval": max(1, epochs // 8),
        "validation": tuple(sorted(path.name for path in data.glob("validation-*.h5"))),
    }
    potential = {**config.model_dump(mode="json", include={"potential"})["potential"], "kind": kind}
    chosen = Config.model_validate(
        {
            **config.model_dump(mode="json", exclude_unset=True),
            "potential": potential,
            "training": {**config.training.model_dump(mode="json"), **changes},
        }
    )
    if code := train_directory(chosen, [data], output, World()):
        raise SystemExit(code)
    return load_force(output)


def summary(found: dict[str, Any]) -> str:
    """What ``perf/README.md`` says: means and half the range over the seeds."""
    tests = list(found["runs"][0]["tests"])
    rows = []
    for kind, count in dict.fromkeys((run["kind"], run["labels"]) for run in found["runs"]):
        mine = [run for run in found["runs"] if (run["kind"], run["labels"]) == (kind, count)]
        values = [[run["tests"][test]["mse"] for run in mine] for test in tests]
        rows.append([kind, str(count), *(f"{np.mean(one):.2e} ± {np.ptp(one) / 2:.0e}" for one in values)])
    return table(["kind", "labels", *tests], rows)


def main() -> None:
    """Enter from the command line."""
    parser = training_parser_of(__doc__, "label_curve.json")
    parser.add_argument("--validation", type=Path, nargs="+", required=True, help="files of the data that validate")
    parser.add_argument("--counts", type=int, nargs="+", default=[100, 400, 1600])
    parser.add_argument("--kinds", nargs="+", default=["direct", "conservative", "pair"])
    parser.add_argument("--steps", type=int, default=1500)
    arguments = parser.parse_intermixed_args()
    config = load_config(arguments.config, arguments.overrides)
    validation = [path.resolve() for path in arguments.validation]
    files = [path.resolve() for directory in arguments.data for path in sorted(directory.glob("*.h5"))]
    learned = [path for path in files if path not in validation]
    runs = []
    for count, kind, seed in product(arguments.counts, arguments.kinds, arguments.seeds):
        data = arguments.runs / f"labels-{count}"
        choose_labels(learned, validation, count, data)
        model = train(config, data, kind, count, seed, arguments.steps, arguments.runs / f"{kind}-{count}-{seed}")
        tests = {path.stem: evaluate(model, [path], World(), torch.device("cpu")) for path in arguments.test}
        runs.append({"kind": kind, "labels": count, "seed": seed, "tests": tests})
    measured = {
        "config": config.model_dump(mode="json", include={"potential", "training"}),
        "steps": arguments.steps,
        "runs": runs,
        "load_after": os.getloadavg()[0],
        "provenance": provenance(),
    }
    publish("label_curve.py", measured, arguments.output, summary)


if __name__ == "__main__":
    main()
