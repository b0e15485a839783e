"""The part of a field that turns the spins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hpcspin.errors import HpcspinError

if TYPE_CHECKING:
    from torch import Tensor

Vectors = TypeVar("Vectors", NDArray[Any], "Tensor")


def perpendicular(spins: Vectors, field: Vectors) -> Vectors:
    """Part H - S (S·H) of a field perpendicular to the spins, which exerts the torque; the rest exerts none.

    Learned fields have no other part, exact ones do.

    Parameters
    ----------
    spins
        Unit vectors, shape (..., 3), a NumPy array or a torch tensor.
    field
        Field on them, of the same shape; or several, with more axes in front.

    Raises
    ------
    HpcspinError
        If the shapes do not fit.
    """
    given: list[Any] = [one if hasattr(one, "shape") else np.asarray(one) for one in (spins, field)]
    of_spins, of_field = (tuple(one.shape) for one in given)
    if of_spins[-1:] != (3,) or of_field[-len(of_spins) :] != of_spins:
        raise HpcspinError(f"perpendicular: a field of shape {of_field} is not on spins of shape {of_spins}")
    unit, total = given
    return total - unit * (unit * total).sum(-1)[..., None]
