"""What a config says of the lattice and of the spins at time zero."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from hpcspin.lattice.lattice import LATTICES
from hpcspin.lattice.textures import TEXTURES
from hpcspin.registry import Choice
from hpcspin.settings import Count, Flag, Section


class LatticeSettings(Section):
    """The lattice."""

    kind: Annotated[str, AfterValidator(LATTICES.check)] = "square"
    """``square`` (4 neighbours), ``triangular`` (6), or another registered one."""
    size: tuple[Count, Count]
    """Sites along x, the transport direction, and along y."""
    periodic: tuple[Flag, Flag] = (False, True)


class InitialSettings(Choice):
    """The spins at time zero: a texture with its parameters, such as the ``position`` and ``tilt`` of a wall."""

    registry = TEXTURES
    kind: Annotated[str, AfterValidator(TEXTURES.check)]
    """``wall``, ``antiferromagnet``, ``ferromagnet``, ``order_120``, ``tetrahedral``, ``stripes``, ``puddles``,
    ``skyrmions``, ``random``, ``file`` (with a ``path``), or another registered texture."""
