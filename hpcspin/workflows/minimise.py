"""``hpcspin minimise``: spins at rest under a field that derives from an energy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hpcspin.analysis.minimise import Point, descend, require_progress
from hpcspin.assembly.landscape import Landscape, build_landscape, require_own, stored_states, write_states
from hpcspin.assembly.outputs import recorded_job
from hpcspin.assembly.system import initial_spins
from hpcspin.config import Config, DynamicsSection, MinimiseSection
from hpcspin.dynamics import EXIT_REQUEUE
from hpcspin.dynamics.interrupt import StopRequest
from hpcspin.lattice import nearest_bonds, perpendicular
from hpcspin.lattice.settings import InitialSettings
from hpcspin.parallel.progress import progress
from hpcspin.parallel.world import World
from hpcspin.storage import MINIMUM, write_json

MINUTES = 1.0
"""Minutes between two writes of the states from which a killed job continues."""


def minimise_directory(config: Config, output: Path, world: World) -> int:
    """Follow the energy downhill from the initial spins, or continue the minimisation in the directory.

    The directory receives ``minimum.h5`` and ``numbers.json``. The ranks share the work of exact labels; for other
    fields each does all of it. It is an error if the torque does not fall below ``minimise.tolerance`` within
    ``minimise.evaluations``.
    """
    initial, seed = config.section(InitialSettings), config.section(DynamicsSection).seed
    settings, path = config.minimise or MinimiseSection(), output / MINIMUM
    config = config.model_copy(update={"minimise": settings})
    require_own(path)
    landscape = build_landscape(config, world)
    with recorded_job(output, world, config, ("minimise.tolerance", "minimise.evaluations")):
        going_on = stored_states(
            path, lambda file, about: (file["spins"][0], float(about["step"]), int(about["evaluations"]))
        )
        if going_on is None:
            spins = initial_spins(initial, landscape.lattice, seed, ~landscape.occupied)
            tilt = settings.tilt * np.random.default_rng(seed).standard_normal(spins.shape)
            spins = spins + perpendicular(spins, tilt) * landscape.free[..., None]
            going_on = (spins / np.linalg.norm(spins, axis=-1, keepdims=True), 1.0, 0)
        world.barrier()

        def write(point: Point, *, finished: bool) -> None:
            energy, field = landscape(point.spins)  # All ranks: they may share it.
            if world.rank > 0:
                return
            arrays = {"spins": [point.spins], "field": [field], "energy": [energy], "torque": [point.torque]}
            about = {"config": config.model_dump(mode="json"), "step": point.step, "evaluations": point.evaluations}
            write_states(path, arrays, about, finished=finished)
            if finished:
                write_json(output / "numbers.json", _numbers(landscape, point, energy))
                world.log_result(f"{path}: at rest, torque {point.torque:.2g}, energy {energy:.8g}")

        with StopRequest(output / "STOP", world, MINUTES) as stop, progress(world, "minimise", None) as bar:
            for point in descend(landscape.slope, *going_on):
                if point.torque <= settings.tolerance:
                    break
                bar.advance(note=f"torque {point.torque:.2g}")
                spent = point.evaluations >= settings.evaluations
                if (stopped := stop.requested()) or stop.overdue or spent:
                    write(point, finished=False)
                require_progress(point.torque, point.evaluations, settings.tolerance, settings.evaluations)
                if stopped:
                    return EXIT_REQUEUE
        write(point, finished=True)
    return 0


def _numbers(landscape: Landscape, point: Point, energy: float) -> dict[str, Any]:
    seen = np.where(landscape.occupied[..., None], point.spins, np.nan)
    return {
        "energy": energy,
        "energy_per_site": energy / int(landscape.occupied.sum()),
        "torque": point.torque,
        "evaluations": point.evaluations,
        "magnetization": dict(zip("xyz", np.nanmean(seen, axis=(0, 1)).tolist(), strict=True)),
        "mean_bond": float(np.nanmean(nearest_bonds(landscape.lattice, seen)))
        if landscape.lattice.num_sites > 1
        else None,
    }
