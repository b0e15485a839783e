"""Observers of learned fields and of electron transport.

The first tell when a learned field can no longer be trusted: spins whose surroundings lie outside the training data,
and members of a committee that disagree. Those of transport cost one dense eigenproblem for each recorded frame, which
observers of the same energies share.
"""

from __future__ import annotations

import logging

import numpy as np
import torch
from numpy.typing import NDArray

from hpcspin.assembly.learned import LearnedField
from hpcspin.dynamics import CorrectedField
from hpcspin.dynamics.fields import terms_of
from hpcspin.dynamics.observers import Frame, a_site, observer
from hpcspin.electrons import DrivenLattice, ElectronSystem, Transport
from hpcspin.electrons.transport import transport
from hpcspin.errors import HpcspinError
from hpcspin.lattice import Lattice
from hpcspin.potential import Committee
from hpcspin.settings import Finite

logger = logging.getLogger("hpcspin")
Real = NDArray[np.float64]
_ALARM = 0.05
"""Share of the sites outside the training data at which the log first warns; it warns again at each doubling."""


@observer("spread", a_site)
def spread(frame: Frame) -> Real:
    """Disagreement of a learned field's committee: an estimate of its error on every site."""
    field = _learned(frame, "spread")
    if not isinstance(field.model, Committee):
        raise HpcspinError(
            "dynamics.observers: spread is the disagreement of a committee; let dynamics.model be the directory "
            "of one, or leave the observer out"
        )
    return field.on_lattice(frame.lattice, torch.tensor(frame.spins), field.model.spread)


@observer("outside", a_site)
def outside(frame: Frame) -> Real:
    """How far each site's surroundings lie outside the training data; 0 inside. See `ForceField.outside`."""
    if "outside" in frame.shared:  # The observer of the share has asked for it.
        return frame.shared["outside"]
    field = _learned(frame, "outside")
    if not field.model.has_envelope:
        raise HpcspinError(
            "dynamics.observers: outside needs a model that knows the range of its training data, which this one does "
            "not; train it again, or leave the observer out"
        )
    distances = frame.shared["outside"] = field.outside(frame.lattice, frame.spins)
    share = float(np.mean(distances > 0))
    if share > max(_ALARM, 2 * field.alarmed):
        field.alarmed = share
        logger.warning(
            f"warning: at time {frame.time:g} the surroundings of {share:.0%} of the sites are outside the range of "
            "the model's training data"
        )
    return distances


@observer("nonequilibrium_potential")
def nonequilibrium_potential(frame: Frame) -> float:
    """Potential G of a learned field, from which h^neq derives; `energy` is E."""
    return _learned(frame, "nonequilibrium_potential").potentials(frame.lattice, frame.spins)[1]


@observer("outside_share")
def outside_share(frame: Frame) -> float:
    """Share of the sites whose surroundings lie outside the training data."""
    return float(np.mean(outside(frame) > 0))


def _learned(frame: Frame, name: str) -> LearnedField:
    for term in terms_of(frame.source):
        field = term.cheap if isinstance(term, CorrectedField) else term
        if isinstance(field, LearnedField):
            return field
    raise HpcspinError(f"dynamics.observers: {name} needs dynamics.field: learned or corrected; leave it out")


def _vectors(lattice: Lattice) -> tuple[int, ...]:
    return (*lattice.size, 3)


@observer("charge_current", _vectors)
def charge_current(frame: Frame) -> Real:
    """Particle current through each site, a vector in the plane: half the current through each of its bonds."""
    along = _through_sites(frame, _flows(frame, "charge_current").bond_current)
    return np.pad(along, ((0, 0), (0, 0), (0, 1)))


@observer("spin_current_x", _vectors)
def spin_current_x(frame: Frame) -> Real:
    """Spin current along x through each site, with spin in units of hbar."""
    return _through_sites(frame, _flows(frame, "spin_current_x").bond_spin_current)[..., 0, :]


@observer("spin_current_y", _vectors)
def spin_current_y(frame: Frame) -> Real:
    """Spin current along y through each site, with spin in units of hbar."""
    return _through_sites(frame, _flows(frame, "spin_current_y").bond_spin_current)[..., 1, :]


@observer("flow_error")
def flow_error(frame: Frame) -> float:
    """Estimate of the largest error of a component of the currents through sites, from that of the bonds."""
    vectors = [frame.lattice.cartesian(term.offset) for term in _system(frame, "flow_error").hopping_terms]
    # Both bonds of a site along an offset contribute half.
    return float(_flows(frame, "flow_error").flow_error * np.abs(vectors).sum(axis=0).max())


@observer("ldos", lambda lattice, energies: (len(energies), *a_site(lattice)))
def ldos(frame: Frame, energies: tuple[Finite, ...]) -> Real:
    """Local density of states at some energies, in states per unit of energy; see `Transport`."""
    return _flows(frame, "ldos", energies).ldos


@observer("transmission", lambda lattice, energies, source, drain: (len(energies),))
def transmission(frame: Frame, energies: tuple[Finite, ...], source: str, drain: str) -> Real:
    """Transmission from one reservoir into another at some energies."""
    system = _system(frame, "transmission")
    if not isinstance(system, DrivenLattice):
        raise HpcspinError(
            "dynamics.observers: transmission is between reservoirs, and a closed lattice has none; leave it out"
        )
    names = [reservoir.name for reservoir in system.reservoirs]
    for name in (source, drain):
        if name not in names:
            raise HpcspinError(
                f"dynamics.observers: transmission: {name!r} is no reservoir; choose from {', '.join(names)}"
            )
    return _flows(frame, "transmission", energies).transmission[:, names.index(drain), names.index(source)]


def _system(frame: Frame, name: str) -> ElectronSystem:
    if not isinstance(frame.electrons, ElectronSystem):
        raise HpcspinError(
            f"dynamics.observers: {name} needs electrons; add the section electrons, or leave the observer out"
        )
    return frame.electrons


def _flows(frame: Frame, name: str, energies: tuple[float, ...] = ()) -> Transport:
    key = ("transport", *energies)
    if key not in frame.shared:
        frame.shared[key] = transport(_system(frame, name), np.nan_to_num(frame.spins), energies)
    return frame.shared[key]


def _through_sites(frame: Frame, flow: Real) -> Real:
    """Flow through each site from the flow along bonds, shape (bonds, Lx, Ly, ...) to (Lx, Ly, 2, ...).

    Each bond contributes half its flow, times the bond's vector, to both of its sites.
    """
    lattice, rest = frame.lattice, flow.shape[3:]
    total = np.zeros((lattice.num_sites, 2, *rest))
    for term, along in zip(_system(frame, "").hopping_terms, flow.reshape(len(flow), -1, *rest), strict=True):
        vector = lattice.cartesian(term.offset).reshape(2, *([1] * len(rest)))
        half = vector * along[:, None] / 2
        target = lattice.shift(term.offset)[:, 0]
        total += half
        np.add.at(total, target[target >= 0], half[target >= 0])
    return total.reshape(*lattice.size, 2, *rest)
