"""``hpcspin path``: the minimum-energy path between two states of the spins, and its barrier."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hpcspin.analysis.minimise import Array, require_progress
from hpcspin.analysis.path import Band, geodesic, relax, require_path
from hpcspin.assembly.landscape import (
    Landscape,
    build_landscape,
    images_of_teams,
    require_own,
    stored_states,
    write_states,
)
from hpcspin.assembly.outputs import recorded_job
from hpcspin.config import Config, DynamicsSection, PathSection
from hpcspin.dynamics import EXIT_REQUEUE
from hpcspin.dynamics.interrupt import StopRequest
from hpcspin.errors import HpcspinError
from hpcspin.parallel.devices import form_teams
from hpcspin.parallel.progress import progress
from hpcspin.parallel.world import World
from hpcspin.storage import PATH, SpinsFile, write_json
from hpcspin.workflows.minimise import MINUTES


def path_directory(config: Config, first: Path, last: Path, output: Path, world: World) -> int:
    """Relax a band of images between two states, or continue with the band in the directory.

    The ends are the last spins of two files or directories. The directory receives ``path.h5`` and ``numbers.json``.
    The ranks share the images. It is an error if the residual force does not fall below ``path.tolerance`` within
    ``path.evaluations``.
    """
    settings, path = config.path or PathSection(), output / PATH
    config = config.model_copy(update={"path": settings})
    teams = min(world.size, settings.images - 2)
    number, team = form_teams(world, teams, config.device)
    require_own(path)
    landscape = build_landscape(config, team)
    ends = _ends(landscape, first, last)
    require_path(ends[0], ends[1], settings.images)
    evaluate = images_of_teams(landscape, number, teams, team, world)
    with recorded_job(output, world, config, ("path.tolerance", "path.evaluations")):
        images, band = stored_states(path, _going_on) or (
            geodesic(ends[0], ends[1], settings.images, settings.tilt, config.section(DynamicsSection).seed),
            {},
        )
        if not np.array_equal(images[[0, -1]], ends):
            raise HpcspinError(f"{output}: holds a path between other ends; give these, or another --output")
        _warn_of_ends(landscape, ends, settings.tolerance, world)
        world.barrier()

        def write(band: Band, *, finished: bool) -> None:
            field = evaluate(band.spins)[1]  # All ranks: they share it.
            if world.rank > 0:
                return
            arrays = {name: getattr(band, name) for name in ("spins", "energy", "distance", "force")}
            about: dict[str, Any] = {name: getattr(band, name) for name in ("spring", "step", "climbs", "evaluations")}
            about["config"] = config.model_dump(mode="json")
            write_states(path, {**arrays, "field": field}, about, finished=finished)
            if finished:
                if not band.has_saddle:
                    world.log(
                        "warning: no image is above both ends: there is no saddle between them, and the higher end "
                        "need not be a minimum; run hpcspin minimise on it, with a minimise.tilt"
                    )
                write_json(output / "numbers.json", _numbers(band))
                world.log_result(f"{path}: barrier {band.barrier:.6g}, residual force {band.force.max():.2g}")

        with StopRequest(output / "STOP", world, MINUTES) as stop, progress(world, "path", None) as bar:
            for now in relax(evaluate, images, settings.tolerance, **band):
                bar.advance(settings.images - 2, f"barrier {now.barrier:.5g}, residual force {now.force.max():.2g}")
                spent = now.evaluations >= settings.evaluations
                if (stopped := stop.requested()) or stop.overdue or spent:
                    write(now, finished=False)
                require_progress(float(now.force.max()), now.evaluations, settings.tolerance, settings.evaluations)
                if stopped:
                    return EXIT_REQUEUE
        write(now, finished=True)
    return 0


def _ends(landscape: Landscape, first: Path, last: Path) -> Array:
    lattice = landscape.lattice
    places, empty = lattice.cartesian(lattice.sites), ~landscape.occupied
    start, end = (SpinsFile(path, lattice.size, places, lattice.kind, empty).read(-1)[0] for path in (first, last))
    return landscape.ends(start, end)


def _warn_of_ends(landscape: Landscape, ends: Array, tolerance: float, world: World) -> None:
    for which, end in zip(("--from", "--to"), ends, strict=True):
        torque = float(np.linalg.norm(landscape.slope(end), axis=-1).max())
        if torque > tolerance:
            world.log(f"warning: {which}: a torque of {torque:.2g} is left there; run hpcspin minimise on these spins")


def _going_on(file: Any, about: Mapping[str, Any]) -> tuple[Array, dict[str, Any]]:
    kinds = {"spring": float, "step": float, "climbs": bool, "evaluations": int}
    return file["spins"][:], {name: kind(about[name]) for name, kind in kinds.items()}


def _numbers(band: Band) -> dict[str, Any]:
    return {
        "barrier": band.barrier,
        "barrier_back": band.barrier_back,
        "saddle": band.top if band.has_saddle else None,
        "residual_force": float(band.force.max()),
        "length": float(band.distance[-1]),
        "evaluations": band.evaluations,
    }
