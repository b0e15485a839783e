"""Global potentials on blocks: what the redundant centres cost, and what sending derivatives back would cost instead.

    mpiexec -n 2 python perf/schemes.py [--network MODEL] [--output perf/results/schemes.json]

The field on a spin derives from the energies of all centres within one reach, each of which sees one reach further. A
block either has a halo of two reaches and evaluates the centres of the nearer one, too, as hpcspin does; or it has a
halo of one reach, evaluates its own centres alone, and sends six sums of derivatives a halo site back to the owner.
Each rank times both sets of centres for one block cut on all sides, and the exchanges of both schemes along one cut.
Sums that return must add to the same bits on any number of ranks, in fixed point: 8 bytes each.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch
from shared import RESULTS, seconds, table, write_section
from torch import Tensor

from hpcspin.lattice import Halo, make_lattice
from hpcspin.parallel.devices import keep_freed_memory
from hpcspin.parallel.domain import Domain
from hpcspin.parallel.world import World
from hpcspin.potential import Neighbourhood, PotentialField, load_force
from hpcspin.storage import provenance

SIDES, REPEATS = (32, 64, 128, 256), 5
SUMS = 6
PAIR = str(Path(__file__).parents[1] / "configs" / "models" / "driven_sd_pair.safetensors")


def around(model: PotentialField, reaches: int) -> Halo:
    """A halo of so many reaches on all sides."""
    return reaches * model.reach, reaches * model.reach


def evaluation(model: PotentialField, side: int, reaches: int) -> float:
    """Seconds to evaluate the centres that a block cut on all sides needs with a halo of so many reaches."""
    halo = around(model, reaches)
    lattice = (4 * side, 4 * side)
    window = Neighbourhood.of_window(
        (side, side), halo, model.offsets, (False, False), (False, True), (side, lattice[0])
    )
    spins = torch.nn.functional.normalize(torch.randn((1, window.rows, 3), dtype=torch.float64), dim=-1)
    bias = torch.ones(1)

    @torch.inference_mode()
    def work() -> Tensor:
        _, partials = zip(*model._parts(spins, window, bias, 0), strict=True)
        missing = torch.zeros_like(partials[0][..., :1])
        return window.gather(1, 96, spins.device).push(torch.cat([*partials, missing], -1).flatten(1, 2))

    return seconds(work, REPEATS)


def exchange(world: World, side: int, halo: Halo, like: Tensor) -> float:
    """Seconds of an exchange along one cut between two blocks of the given side; the slowest rank's."""
    domain = Domain(make_lattice("square", (world.size * side, side), (False, True)), world, (world.size, 1))
    mine = seconds(lambda: domain.extend(like, halo), 20 * REPEATS)
    return max(world.allgather(mine))


def measure(world: World, model: PotentialField) -> list[dict[str, Any]]:
    """Both schemes for blocks of all sides."""
    found = []
    for side in SIDES:
        spins = torch.ones((side, side, 3), dtype=torch.float64)
        sums = torch.ones((side, side, SUMS), dtype=torch.int64)
        wide, narrow = (max(world.allgather(evaluation(model, side, reaches))) for reaches in (2, 1))
        found.append(
            {
                "side": side,
                "two_reaches": {"centres": wide, "spins": exchange(world, side, around(model, 2), spins)},
                "one_reach": {
                    "centres": narrow,
                    "spins": exchange(world, side, around(model, 1), spins),
                    "sums": exchange(world, side, around(model, 1), sums),
                },
            }
        )
    return found


def summary(found: dict[str, Any]) -> str:
    """What the JSON says, as Markdown."""
    rows = []
    for row in found["blocks"]:
        wide, narrow = row["two_reaches"], row["one_reach"]
        gain = 1 - sum(narrow.values()) / sum(wide.values())
        times = (wide["centres"], wide["spins"], narrow["centres"], narrow["spins"] + narrow["sums"])
        rows.append([f"{row['side']}x{row['side']}", *(f"{1e3 * value:.3g}" for value in times), f"{gain:.0%}"])
    header = ["block", "two reaches: ms of centres", "of halo", "one reach: ms of centres", "of halo and sums", "gain"]
    return "\n".join(
        [
            f"{found['network']}, reach {found['reach']}, {found['ranks']} ranks of one thread, load "
            f"{found['load_before']:.1f} at the start.",
            "",
            table(header, rows),
        ]
    )


def main() -> None:
    """Enter from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default=PAIR, metavar="MODEL")
    parser.add_argument("--output", type=Path, default=RESULTS / "schemes.json")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    torch.set_num_threads(1)
    keep_freed_memory()
    world = World.detect()
    model, _ = load_force(arguments.network)
    if not isinstance(model, PotentialField):
        parser.error("--network: give a single model of potentials, no committee and no layers")
    blocks = measure(world, model.eval())
    if world.rank == 0:
        found = {
            "load_before": load,
            "provenance": provenance(),
            "network": Path(arguments.network).name,
            "reach": model.reach,
            "ranks": world.size,
            "blocks": blocks,
        }
        arguments.output.write_text(json.dumps(found, indent=2) + "\n")
        if arguments.output.parent == RESULTS:
            write_section("schemes.py", summary(found))
        print(summary(found))
    world.finish()


if __name__ == "__main__":
    main()
