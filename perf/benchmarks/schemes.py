"""Global potentials on blocks: terms that cross the sides against redundant centres, in whole evaluations of the field.

    mpiexec -n 2 python perf/benchmark.py schemes [--network MODEL] [--output perf/results/schemes.json]

The field on a spin derives from the energies of all centres within one reach, each of which sees one reach further. A
block either evaluates its own centres alone inside a halo of one reach and sends the terms that belong to other blocks
there, as hpcspin does; or it has a halo of two reaches and evaluates the centres of the nearer one, too. Both are
timed in turn, with all that travels, on a lattice of as many square blocks as there are ranks; their bits must agree.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from shared import parser_of, publish, table
from torch import Tensor

from hpcspin.assembly.learned import LearnedField
from hpcspin.dynamics.fields import BoundField, Field, FieldEvaluator
from hpcspin.dynamics.torque import components_first
from hpcspin.lattice import Halo, make_lattice
from hpcspin.parallel.devices import keep_freed_memory, pick_device
from hpcspin.parallel.domain import Domain
from hpcspin.parallel.world import World
from hpcspin.potential import Block, Neighbourhood, PotentialField, load_force
from hpcspin.storage import provenance

SIDES, REPEATS, BIAS = (16, 32, 64, 128, 256), 9, 3.2
PAIR = str(Path(__file__).parents[2] / "configs" / "models" / "driven_sd_strips.safetensors")


class Redundant:
    """A learned field that evaluates the centres around its block itself."""

    def __init__(self, model: PotentialField) -> None:
        self._model, (x, y) = model, model.halo
        self.halo: Halo = (2 * x, 2 * y)

    def bind(self, domain: Domain) -> BoundField:
        """As any field."""
        whole = (domain.blocks[0] == 1, domain.blocks[1] == 1)
        columns = (domain.slices[0].start, domain.lattice.size[0])
        block = Block(domain.shape, whole, domain.lattice.periodic, columns)
        window = Neighbourhood.of_window(block, self.halo, self._model.offsets)
        return _BoundRedundant(self._model, window, domain.shape)


class _BoundRedundant:
    def __init__(self, model: PotentialField, window: Neighbourhood, shape: tuple[int, int]) -> None:
        self._model, self._window, self._shape = model, window, shape
        self._interior: Any = ()

    def compute_interior(self, spins: Tensor, moment: float) -> None:
        self._interior = self._model.interior(*self._arguments(spins))

    def __call__(self, spins: Tensor, moment: float) -> Tensor:
        interior, self._interior = self._interior, ()
        predicted = self._model(*self._arguments(spins), interior).field
        return components_first(predicted.reshape(*self._shape, 3).to(spins.dtype))

    def _arguments(self, spins: Tensor) -> tuple[Tensor, Neighbourhood, Tensor]:
        return spins.reshape(1, -1, 3), self._window, spins.new_full((1,), BIAS)


def evaluators(world: World, model: PotentialField, side: int) -> tuple[list[FieldEvaluator], Domain]:
    """Both fields on one block a rank."""
    px = max(count for count in range(1, world.size + 1) if world.size % count == 0 and count**2 <= world.size)
    blocks = (world.size // px, px)
    lattice = make_lattice("square", (blocks[0] * side, blocks[1] * side), (False, True))
    domain = Domain(lattice, world, blocks)
    fields: list[Field] = [LearnedField(model, BIAS), Redundant(model)]
    return [FieldEvaluator(field, domain) for field in fields], domain


def measure(world: World, model: PotentialField, device: torch.device) -> list[dict[str, Any]]:
    """Seconds of an evaluation in both ways, the slowest rank's, for blocks of all sides."""
    measured = []
    for side in SIDES:
        both, domain = evaluators(world, model, side)
        generator = torch.Generator().manual_seed(world.rank)
        times: list[list[float]] = [[], []]
        for _ in range(1 + max(REPEATS, 2**17 // side**2)):
            spins = torch.randn((*domain.shape, 3), dtype=torch.float64, generator=generator).to(device)
            spins = torch.nn.functional.normalize(spins, dim=-1)
            fields = []
            for evaluate, taken in zip(both, times, strict=True):
                world.barrier()
                start = time.perf_counter()
                fields.append(evaluate(spins, 0.0).cpu())
                taken.append(max(world.allgather(time.perf_counter() - start)))
            if not torch.equal(*fields):
                raise SystemExit(f"blocks of {side}x{side}: the fields of both schemes differ")
        ratios = np.array(times[1][1:]) / times[0][1:]
        measured.append(
            {
                "side": side,
                "blocks": domain.blocks,
                "terms": float(np.median(times[0][1:])),
                "redundant": float(np.median(times[1][1:])),
                "ratio": float(np.median(ratios)),
                "ratio_error": float(ratios.std(ddof=1) / len(ratios) ** 0.5),
            }
        )
    return measured


def summary(measured: dict[str, Any]) -> str:
    """What the JSON says, as Markdown."""
    rows = [
        [
            f"{row['side']}x{row['side']}",
            f"{1e3 * row['terms']:.3g}",
            f"{1e3 * row['redundant']:.3g}",
            f"{row['ratio']:.3f} ± {row['ratio_error']:.3f}",
        ]
        for row in measured["blocks"]
    ]
    header = ["block", "terms that cross: ms", "redundant centres: ms", "ratio"]
    px, py = measured["blocks"][0]["blocks"]
    return "\n".join(
        [
            f"{measured['network']}, reach {measured['reach']}, {px}x{py} ranks of one thread on {measured['device']}, "
            f"load {measured['load_before']:.1f} at the start. Evaluations in turn; the ratio is the median of pairs.",
            "",
            table(header, rows),
        ]
    )


def main() -> None:
    """Enter from the command line."""
    parser = parser_of(__doc__, "schemes.json")
    parser.add_argument("--network", default=PAIR, metavar="MODEL")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    torch.set_num_threads(1)
    keep_freed_memory()
    world = World.detect()
    model = load_force(arguments.network)
    if not isinstance(model, PotentialField):
        parser.error("--network: give a single model of potentials, no committee and no layers")
    device = pick_device(world)
    blocks = measure(world, model.to(device).eval(), device)
    if world.rank == 0:
        measured = {
            "load_before": load,
            "provenance": provenance(),
            "network": Path(arguments.network).name,
            "reach": model.reach,
            "ranks": world.size,
            "device": device.type,
            "blocks": blocks,
        }
        publish("schemes.py", measured, arguments.output, summary)
    world.finish()


if __name__ == "__main__":
    main()
