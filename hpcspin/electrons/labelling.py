"""Solution of many snapshots, shared by the ranks, for `hpcspin label` and `ElectronSystem.solve`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from hpcspin.electrons.solver import SOLVERS, State, make_solver
from hpcspin.electrons.system import ElectronSystem
from hpcspin.electrons.transport import Transport, transport
from hpcspin.parallel.devices import form_teams, pick_device
from hpcspin.parallel.progress import progress
from hpcspin.parallel.world import World

Frame = Callable[[int], NDArray[np.float64]]
"""Returns the spins of a snapshot, shape (1, Lx, Ly, 3), given its number."""


def label_snapshots(
    system: ElectronSystem,
    frame: Frame,
    count: int,
    world: World,
    device: str = "auto",
    done: int = 0,
    energies: Sequence[float] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Iterator[tuple[NDArray[np.float64], State, Transport | None]]:
    """Spins, electronic state and, on request, currents of each snapshot, in order, on rank 0.

    The ranks form as many teams as there are snapshots left, at most one for each rank, or fewer if one rank cannot
    hold the lattice; each team solves one snapshot at a time, and its ranks share the energies or the columns of
    sites. A label does not depend on the snapshots before it. All ranks iterate together.

    Parameters
    ----------
    system
        The lattice of electrons, with the solver, tolerance and precision to use.
    frame
        Function that returns the spins; called on every rank.
    count
        Number of snapshots.
    world
        The ranks.
    device
        See `pick_device`.
    done
        Number of snapshots to skip at the start.
    energies
        See `ElectronSystem.transport`; None to leave out the transport.
    stop
        Function that all ranks call before each round of labels; none follow once it returns True.

    Raises
    ------
    HpcspinError
        If the spins do not fit, or a label misses its tolerance.
    """
    needed = SOLVERS[system.solver].ranks_needed(system, world, pick_device(world, device))
    teams = max(1, min(world.size // needed, count - done))
    number, team = form_teams(world, teams, device)
    solver = make_solver(system.solver, system, system.tolerance, team, pick_device(world, device), system.precision)
    with progress(world, "label", count, done) as bar:
        for first in range(done, count, teams):
            if stop is not None and stop():
                return
            mine = first + number
            solver.reset()
            solver.number = mine
            found = None
            if mine < count:
                state = solver.solve(frame(mine))
                if team.rank == 0:
                    flows = None if energies is None else transport(system, frame(mine)[0], energies)
                    found = state, flows
            solved = [one for one in world.gather(found) or () if one is not None]
            for snapshot, (state, flows) in enumerate(solved, first):
                yield frame(snapshot), state, flows
                bar.advance(note=f"error {state.error.max():.1e}")
