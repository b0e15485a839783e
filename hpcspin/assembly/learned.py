"""A force field, in the form that the dynamics uses; on request with exact labels that check it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcspin.dynamics.fields import BoundField
from hpcspin.dynamics.torque import components_first
from hpcspin.electrons import Solver
from hpcspin.lattice import Halo, Lattice, perpendicular
from hpcspin.parallel.domain import Domain, choose_blocks
from hpcspin.parallel.messages import NeighbourMessages
from hpcspin.parallel.world import World
from hpcspin.potential import Block, Committee, Drive, ForceField, Neighbourhood, at_filling

_AT_ONCE = 1 << 14
"""About as many sites have features in memory at once."""


class LearnedField:
    """A force field in evaluation mode, or the mean of a committee, in the form that the dynamics uses.

    ``alarmed`` is the largest share of sites outside the training data that the log has warned of.
    """

    def __init__(self, model: ForceField | Committee, drive: Drive) -> None:
        self.model, self._drive = model, drive
        self.alarmed = 0.0
        self.halo: Halo = model.halo

    def bind(self, domain: Domain) -> BoundField:
        """See :class:`hpcspin.dynamics.fields.Field`."""
        self.model.forget_derived()
        table, like = self._table(domain), next(self.model.parameters())
        if table.borders:
            table.exchange = NeighbourMessages(domain, table.borders.shapes, like)
        return _BoundLearned(self.model, table, self._bias(like.device), domain)

    def energy_and_field(self, lattice: Lattice, spins: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """E and the field of spins of shape (Lx, Ly, 3), from one evaluation of a model that has an E."""
        found = self.model.predict(spins[None], lattice, self._drive)
        assert found.potentials is not None
        return float(found.potentials.energy[0]), found.field[0]

    def energy(self, lattice: Lattice, spins: NDArray[np.float64]) -> float | None:
        """E of spins of shape (Lx, Ly, 3), from which h^eq derives; None for a model that has none."""
        return self.potentials(lattice, spins)[0] if self.model.has_potentials else None

    def potentials(self, lattice: Lattice, spins: NDArray[np.float64]) -> tuple[float, float]:
        """E and G of spins of shape (Lx, Ly, 3); raises HpcspinError if the model has none."""
        potentials = self.model.potentials(spins[None], lattice, self._drive)
        return float(potentials.energy[0]), float(potentials.nonequilibrium[0])

    def on_lattice(
        self, lattice: Lattice, spins: Tensor, measure: Callable[[Tensor, Neighbourhood, Tensor], Tensor]
    ) -> NDArray[np.float64]:
        """Apply a function of spins, neighbourhood and bias to a whole lattice; spins of shape (Lx, Ly, 3)."""
        device = next(self.model.parameters()).device
        given = spins.reshape(1, -1, 3).to(device), self.model.neighbourhood(lattice)
        values = measure(*given, at_filling(self.model, *given, self._bias(device), lattice.num_sites)[0])[0]
        return values.double().cpu().numpy().reshape(*lattice.size, *values.shape[1:])

    def outside(self, lattice: Lattice, spins: NDArray[np.float64]) -> NDArray[np.float64]:
        """`ForceField.outside` of each site, for spins of shape (Lx, Ly, 3), without the ranks.

        Features take kilobytes a site: they are computed for blocks of the lattice, one after the other.
        """
        found, whole = np.empty(lattice.size), torch.tensor(spins, device=next(self.model.parameters()).device)
        count = 1 << (-(-lattice.num_sites // _AT_ONCE) - 1).bit_length()  # Some blocks along x times some along y.
        blocks = choose_blocks(lattice.size, count, (0, 0))
        for number in range(count):
            domain = Domain(lattice, World(number, count), blocks)
            given = domain.window(whole, self.halo).reshape(1, -1, 3), self._table(domain), self._bias(whole.device)
            found[domain.slices] = self.model.outside(*given).cpu().reshape(domain.shape)
        return found

    def _table(self, domain: Domain) -> Neighbourhood:
        whole = (domain.blocks[0] == 1, domain.blocks[1] == 1)
        columns = (domain.slices[0].start, domain.lattice.size[0])
        return self.model.window(Block(domain.shape, whole, domain.lattice.periodic, columns))

    def _bias(self, device: torch.device) -> Tensor:
        return torch.tensor(self._drive, dtype=torch.float64, device=device).reshape(1, -1)


class _BoundLearned:
    """A learned field on a block; its interior is computed while the halo is exchanged."""

    def __init__(self, model: ForceField | Committee, table: Neighbourhood, bias: Tensor, domain: Domain) -> None:
        self._model, self._table, self._bias, self._domain = model, table, bias, domain
        self._at_filling = bool(bias.isnan()[:, 0].any())
        self._interior: Any = ()

    def compute_interior(self, spins: Tensor, time: float) -> None:
        """See :class:`hpcspin.dynamics.fields.Overlapped`."""
        self._interior = self._model.interior(*self._arguments(spins), self._bias)

    def __call__(self, spins: Tensor, time: float) -> Tensor:
        interior, self._interior = self._interior, ()
        given, domain, drive = self._arguments(spins), self._domain, (self._bias, interior)
        if self._at_filling:
            # The chemical potential is that of all spins: all ranks find it together.
            drive = at_filling(self._model, *given, self._bias, domain.lattice.num_sites, domain.world.sum)
        predicted = self._model(*given, *drive).field
        return components_first(predicted.reshape(*domain.shape, 3).to(spins.device, spins.dtype))

    def _arguments(self, spins: Tensor) -> tuple[Tensor, Neighbourhood]:
        # Those of a minimisation are on the host, wherever the model is.
        return spins.reshape(1, -1, 3).to(self._bias.device), self._table


class CheckedField(LearnedField):
    """A learned field that is compared with the exact one at some of the recorded frames, which changes no trajectory.

    Its observables are the data of exact labels, such as ``exact_field``, that of the electrons alone, and
    ``exact_error``; ``field_error`` (Lx, Ly), the length of the difference perpendicular to each spin; and
    ``deviation``, the root mean square of one of its components. All are without classical terms, and NaN between
    checks, which are ``interval`` steps apart. All ranks share the work of the solver.
    """

    def __init__(
        self,
        model: ForceField | Committee,
        drive: Drive,
        lattice: Lattice,
        solver: Solver[Any, Any],
        interval: int,
        world: World,
    ) -> None:
        super().__init__(model, drive)
        self._lattice, self._solver, self._interval, self._world = lattice, solver, interval, world
        self.observable_shapes: dict[str, tuple[int, ...]] = {
            "exact_field": (*lattice.size, 3),
            **{f"exact_{name}": shape for name, shape in solver.system.result_shapes.items()},
            "field_error": lattice.size,
            "deviation": (),
        }

    def observe(self, step: int, whole: Callable[[], Tensor]) -> dict[str, NDArray[np.float64]]:
        """See :class:`hpcspin.dynamics.fields.Observed`."""
        if step % self._interval:
            return {name: np.full(shape, np.nan) for name, shape in self.observable_shapes.items()}
        spins = whole().detach().to("cpu", torch.float64).contiguous()
        # Discard the solver's state of earlier frames, so that a restart gives the same bits.
        self._solver.reset()
        self._solver.number = step
        exact = self._solver.solve(spins.numpy()[None])
        learned = self.on_lattice(self._lattice, spins, lambda *given: self.model(*given).field)
        error = learned - exact.field[0]
        deviation = _rms(spins, error)
        self._world.log(
            f"step {step}: rms error of a perpendicular component of the learned field {deviation:.1e} t, "
            f"rms of the exact one {_rms(spins, exact.field[0]):.1e} t"
        )
        labelled = {
            name: getattr(exact, name.removeprefix("exact_"))[0]
            for name in self.observable_shapes
            if name.startswith("exact_")
        }
        across = np.linalg.norm(np.cross(spins, error), axis=-1)
        return {**labelled, "field_error": across, "deviation": np.asarray(deviation)}


def _rms(spins: Tensor, field: NDArray[np.float64]) -> float:
    """Root mean square of a perpendicular component; both shape (Lx, Ly, 3)."""
    # Two components share the square.
    return float((perpendicular(spins, torch.from_numpy(field)).square().sum(-1).mean() / 2).sqrt())
