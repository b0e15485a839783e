"""Predictions of force fields on whole lattices, from arrays to arrays."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hpcspin.errors import HpcspinError, shown
from hpcspin.lattice import Halo, Lattice, as_snapshots, make_lattice, perpendicular
from hpcspin.potential.architecture import Architecture
from hpcspin.potential.equations import Prediction
from hpcspin.potential.grand import GrandPotential, at_filling
from hpcspin.potential.irreps import symmetry_operations
from hpcspin.potential.neighbourhood import Neighbourhood
from hpcspin.potential.window import Block, offsets_within, reach_of
from hpcspin.settings import checked
from hpcspin.storage import (
    POLARIZATIONS,
    Electrons,
    check_spins,
    chemical_potential,
    electrons_of,
    require_learned,
    require_spin_rotations,
    stored_electrons,
    voltages,
)

Drive = float | Sequence[float]
"""Voltages of a system in hoppings: see `Predictor.drive`."""


class System(Protocol):
    """What a force field must know of a lattice of electrons, which never changes."""

    @property
    def lattice(self) -> Lattice:
        """The lattice."""
        ...

    @property
    def bias(self) -> float:
        """Largest minus smallest chemical potential."""
        ...

    def as_config(self) -> dict[str, Any]:
        """Its ``lattice`` and ``electrons`` sections of a config."""
        ...


@dataclass(frozen=True)
class Potentials:
    """Both potentials of snapshots, E and G (the paper's Eq. 5), in hoppings; arrays of shape (n,)."""

    energy: NDArray[np.float64]
    """E = Σ_i ε_i, from which h^eq derives. Its constant per site, which fields do not determine, is that of the
    energies in the training data, or 0 if there were none."""
    nonequilibrium: NDArray[np.float64]
    """G = Σ_i χ_i, from which h^neq derives; zero for a conservative model."""


@dataclass(frozen=True)
class PredictedFields:
    """Both parts of a learned field, H = h^eq + h^neq (the paper's Eq. 3); arrays of shape (n, Lx, Ly, 3)."""

    equilibrium: NDArray[np.float64]
    """h^eq = -∂E/∂S; the whole field if the model has no potentials."""
    nonequilibrium: NDArray[np.float64]
    """h^neq = -S x ∂G/∂S."""
    potentials: Potentials | None = None
    """Both potentials; None of a model that has none."""

    @property
    def field(self) -> NDArray[np.float64]:
        """H = h^eq + h^neq."""
        return self.equilibrium + self.nonequilibrium


class Predictor(nn.Module):
    """Base of force fields and committees: predictions on whole lattices."""

    card: dict[str, Any]
    """Its card: training data, errors, provenance; empty for a model that was not read from a file."""
    offsets: NDArray[np.int64]
    """Lattice offset of each slot of a neighbourhood, the centre first, shape (slots, 2)."""
    reaches: tuple[int, int]
    """Distance, along x and y, to the farthest spin that a centre sees, in multiples of the reach of a neighbourhood:
    1, or more through the neighbourhoods of several layers."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.card = {}
        self.architecture = architecture
        self.geometry = make_lattice(architecture.lattice, (1, 1), (False, False))
        self.operations = symmetry_operations(self.geometry, architecture.settings.symmetry)
        self.offsets = offsets_within(self.geometry, architecture.settings.radius)
        self._latest: tuple[Lattice, Neighbourhood] | None = None
        self._allowed: tuple[System, set[str], Drive] | None = None

    def __repr__(self) -> str:
        settings, weights = self.architecture.settings, sum(one.numel() for one in self.parameters())
        keys = ("radius", "descriptor", "layers", "channels", "hidden")
        shape = (f"{key} {getattr(settings, key)}" for key in keys if hasattr(settings, key))
        return (
            f"<{settings.kind} force field, {self.architecture.lattice} lattice: {', '.join(shape)}, {weights} weights>"
        )

    @checked(allow=tuple[str, ...])
    def field(self, spins: Any, system: System, allow: Collection[str] = ()) -> Any:
        """Exchange field perpendicular to the spins, H - S (S·H), in hoppings.

        The component along a spin does not turn it, and force fields do not learn it.

        Parameters
        ----------
        spins
            Unit vectors, shape (Lx, Ly, 3) or (n, Lx, Ly, 3), NumPy or torch.
        system
            The driven or closed lattice.
        allow
            Keys of the electrons, such as ``"electrons.exchange"``, that may differ from those of the training data.

        Returns
        -------
        array
            Same shape as the spins; a tensor if they are one.

        Raises
        ------
        HpcspinError
            If the spins do not fit the lattice, the lattice does not fit the model, or the model was trained on other
            electrons than the system's.
        """
        drive = self._drive_within(system, allow)
        snapshots, restore = as_snapshots(spins, system.lattice.size)
        found = self.predict(check_spins(snapshots, None, "spins"), system.lattice, drive).field
        return restore(perpendicular(snapshots, found))

    @checked(allow=tuple[str, ...])
    def energy(self, spins: Any, system: System, allow: Collection[str] = ()) -> Any:
        """Energy E from which h^eq derives, in hoppings.

        For a model trained on labels with energies it is the energy of the labels, the grand potential or, at a fixed
        filling, the free energy; otherwise it is determined up to a constant per site. For both E and G see
        `potentials`.

        Parameters
        ----------
        spins, system, allow
            As for `field`.

        Returns
        -------
        float or array
            Of one snapshot, or an array of shape (n,); a tensor if the spins are one.

        Raises
        ------
        HpcspinError
            As for `field`, or if the model has no potential that is a sum over the lattice.
        """
        drive = self._drive_within(system, allow)
        snapshots, restore = as_snapshots(spins, system.lattice.size)
        energies = self.potentials(check_spins(snapshots, None, "spins"), system.lattice, drive).energy
        return restore(energies) if len(np.shape(spins)) == 4 else float(energies[0])

    @property
    def reach(self) -> int:
        """Lattice steps from a centre to its farthest neighbour."""
        return reach_of(self.offsets)

    @property
    def halo(self) -> Halo:
        """Lattice steps along x and y from a site to the farthest spin that its centre sees.

        With several layers it sees through all their neighbourhoods, some of which are dilated along x. The field of
        potentials of a descriptor, to which all centres around a site contribute, needs no wider halo: the terms of
        foreign centres come from their blocks, see `TermExchange`.
        """
        return self.reaches[0] * self.reach, self.reaches[1] * self.reach

    def neighbourhood(self, lattice: Lattice) -> Neighbourhood:
        """Neighbour table of a whole lattice for this model's cutoff; the table of the latest lattice is kept."""
        if self._latest is None or self._latest[0] != lattice:
            # On small lattices a table takes longer to build than the field.
            layers = self.architecture.layers
            beyond = self.reach * max(layers) if self.sees == "polarized" else 0
            self._latest = lattice, Neighbourhood.of_lattice(lattice, self.offsets, layers, beyond)
        return self._latest[1]

    def window(self, block: Block) -> Neighbourhood:
        """Neighbour table of a block inside this model's halo; see `Window.around`.

        For a model that sees polarised electrodes the halo extends beyond the ends of x, even if one block spans x.
        """
        if self.sees == "polarized":
            block = block._replace(whole=(False, block.whole[1]))
        return Neighbourhood.of_window(block, self.halo, self.offsets, self.architecture.layers)

    @property
    def has_potentials(self) -> bool:
        """Whether the field, or its part h^eq, derives from an energy of the whole lattice."""
        return self.architecture.settings.kind in ("conservative", "pair")

    @property
    def grand_potential(self) -> GrandPotential | None:
        """Reference values of the polynomials of a learned grand potential; None for any other force field."""
        return self.architecture.grand_potential

    def terms(self, spins: torch.Tensor, neighbourhood: Any) -> tuple[torch.Tensor, Sequence[Any]]:
        """ε_ki of the outputs of a learned grand potential, (batch, outputs, terms), in hoppings, in double precision.

        The second result is the forward pass, which does not depend on the chemical potential, for `ForceField.forward`
        as ``interior``.
        """
        raise NotImplementedError

    @property
    def energy_of_a_site(self) -> float | None:
        """Energy per site, in hoppings, that labels with energies add to E; None for a model trained without them."""
        return None

    def potentials(self, spins: NDArray[np.float64], lattice: Lattice, drive: Drive) -> Potentials:
        """E and G of snapshots of shape (n, Lx, Ly, 3), in evaluation mode, on the model's device.

        Raises
        ------
        HpcspinError
            If the model has none.
        """
        if not self.has_potentials:
            raise HpcspinError("energy: this model has no energy; take one of kind pair or conservative")
        found = self.predict(spins, lattice, drive).potentials
        assert found is not None
        return found

    def drive(self, system: System) -> tuple[float, ...]:
        """The drive of a system that this model takes as input, such as the bias; see `drive_of`.

        Raises HpcspinError as `drive_of`, and if a given chemical potential lies outside the training data.
        """
        found = self.drive_of(electrons_of(system.as_config(), "the system"), system.bias, "the system")
        if self.grand_potential is not None:
            self.grand_potential.require(found[0])
        return found

    def drive_of(self, electrons: Electrons | None, bias: float, where: str) -> tuple[float, ...]:
        """The drive of electrons as files store them, see `hpcspin.storage.electrons_of`, with this bias.

        It is the bias; for a model with another drive it is `hpcspin.storage.voltages`, in the order of the reservoirs
        in its training data, or `hpcspin.storage.chemical_potential`. ``where`` names the electrons in messages. Raises
        HpcspinError if the model sees the potentials of the reservoirs, and these electrons or its card do not state
        them.
        """
        if self.sees == "bias":
            return (bias,)
        if self.sees == "chemical_potential" and electrons is not None:
            return chemical_potential(electrons, where)
        learned = stored_electrons(self.card.get("electrons"), "the model")
        if not learned or electrons is None:
            raise HpcspinError(
                f"{where}: the model sees the potential of each reservoir, and {'this' if learned else 'its card'} "
                "does not say which there are; label the spins with a config"
            )
        return voltages(learned[0], electrons, where, self.sees)

    @property
    def sees(self) -> str:
        """Kind of drive: ``bias``, ``potentials``, ``polarized`` or ``chemical_potential``, see the settings."""
        return self.architecture.drive

    def _drive_within(self, system: System, allow: Collection[str]) -> Drive:
        """The drive of a system; HpcspinError if its electrons are not those of the training data.

        The latest answer is kept: for a small lattice the comparison takes as long as the field.
        """
        if not hasattr(system, "as_config"):
            raise HpcspinError(f"{shown(system)} is no system; give a DrivenLattice or a ClosedLattice")
        if self._allowed is None or self._allowed[0] is not system or self._allowed[1] != set(allow):
            known = stored_electrons(self.card.get("electrons"), "the model")
            given = electrons_of(system.as_config(), "the system")
            require_spin_rotations(given, "the system", self.sees)
            if known and given:
                require_learned(known, given, self.sees, allow, ("the model", "the system"), in_config=False)
            self._allowed = system, set(allow), self.drive(system)
        return self._allowed[2]

    def predict(self, spins: NDArray[np.float64], lattice: Lattice, drive: Drive) -> PredictedFields:
        """Both parts of the field on snapshots of shape (n, Lx, Ly, 3), in evaluation mode, on the model's device."""
        self.require(lattice, "spins")
        if self.training:  # To set this anew in all layers takes a twentieth of a small field's time.
            self.eval()
        self.forget_derived()
        device, table = next(self.parameters()).device, self.neighbourhood(lattice)
        bias = torch.tensor(drive, dtype=torch.float64, device=device).reshape(1, -1)
        seen = self.architecture.drives + (POLARIZATIONS if self.sees == "polarized" else 0)
        if self.sees != "chemical_potential" and bias.shape[1] != seen:  # Kernels would read beyond its end.
            raise HpcspinError(f"drive: the model sees {seen} numbers, not {bias.shape[1]}: give those of model.drive")
        spins = spins if spins.flags.writeable else spins.copy()  # PyTorch warns of arrays that it must not change.
        parts, sums = [], []
        for frame in torch.from_numpy(spins).flatten(1, 2).to(device):
            given = frame[None], table
            found: Prediction = self(*given, *at_filling(self, *given, bias, lattice.num_sites))
            pair = torch.stack([found.equilibrium[0], found.nonequilibrium[0]])
            parts.append(pair.double().cpu().numpy().reshape(2, *lattice.size, 3))
            sums.append((float(found.energy[0]), float(found.toroidal[0])))
        equilibrium, nonequilibrium = np.stack(parts, axis=1)
        energy, toroidal = np.array(sums).T
        potentials = Potentials(energy + lattice.num_sites * (self.energy_of_a_site or 0.0), toroidal)
        return PredictedFields(equilibrium, nonequilibrium, potentials if self.has_potentials else None)

    def forget_derived(self) -> None:
        """Forget data derived from weights on a GPU, where no comparison tells that ``.data`` has changed these."""
        if next(self.parameters()).device.type != "cpu":
            for part in self.modules():
                getattr(part, "_derived", {}).clear()

    def require(self, lattice: Lattice, where: str) -> None:
        """Check that the model was trained for this kind of lattice, and that the lattice has the electrodes it sees.

        ``where`` is what the message names: a file, a config key. Raises HpcspinError if one of the two is not the
        case.
        """
        if lattice.kind != self.architecture.lattice:
            raise HpcspinError(
                f"{where}: the spins are on a {lattice.kind} lattice, and the model is for a "
                f"{self.architecture.lattice} one; lattice.kind must be the same for both"
            )
        if self.sees == "polarized" and lattice.periodic[0]:
            raise HpcspinError(
                f"{where}: the model sees polarised electrodes beyond the ends of x, and this lattice is periodic "
                "there; train one with drive: potentials"
            )
        if self.architecture.settings.electrode_range and lattice.periodic[0]:
            raise HpcspinError(
                f"{where}: the model measures the distance to electrodes at the ends of x, this lattice is periodic "
                "there; train one with electrode_range: 0"
            )
