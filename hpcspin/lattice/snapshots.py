"""Spins and fields in NumPy or torch: one snapshot or many, the part of a field that turns the spins, short reprs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from hpcspin.errors import HpcspinError

Restore = Callable[[NDArray[Any]], Any]
"""Converts an array whose first axis counts snapshots to the form in which the spins were given."""


def as_snapshots(spins: Any, size: tuple[int, int]) -> tuple[NDArray[np.float64], Restore]:
    """Spins as an array of snapshots, and the inverse conversion for results.

    Parameters
    ----------
    spins
        Shape (Lx, Ly, 3) or (n, Lx, Ly, 3); a NumPy array, anything that NumPy converts to one, or a torch tensor.
    size
        Lattice size (Lx, Ly).

    Returns
    -------
    tuple of ndarray and callable
        Spins of shape (n, Lx, Ly, 3), and a function for results of shape (n, ...): it drops the first axis if
        one snapshot was given, and returns a tensor, on the device of the spins, if they were a tensor.

    Raises
    ------
    HpcspinError
        If the shape is wrong, or the spins are not real numbers or some of them are masked.
    """
    if np.ma.is_masked(spins):
        raise HpcspinError("spins: some are masked, and would count; fill them, at vacancies with any unit vector")
    tensor = spins if hasattr(spins, "detach") else None
    try:
        array = np.asarray(spins if tensor is None else tensor.detach().cpu())
    except (TypeError, ValueError) as failure:
        raise HpcspinError(f"spins: are no array of numbers; give shape {_shapes(size)}") from failure
    if array.dtype.kind not in "fiu" or array.ndim not in (3, 4) or array.shape[-3:] != (*size, 3) or not array.size:
        raise HpcspinError(f"spins: have shape {array.shape} and type {array.dtype}; give {_shapes(size)} real numbers")
    single = array.ndim == 3

    def restore(result: NDArray[Any]) -> Any:
        chosen = result[0] if single else result
        if tensor is None:
            return chosen
        import torch

        return torch.as_tensor(chosen).to(tensor.device)

    return array.reshape(-1, *size, 3).astype(np.float64), restore


def one_snapshot(spins: Any, size: tuple[int, int], purpose: str = "start") -> NDArray[np.float64]:
    """Spins of shape (Lx, Ly, 3), or (1, Lx, Ly, 3), as one snapshot of shape (Lx, Ly, 3).

    Raises
    ------
    HpcspinError
        If there are more, or for the reasons of `as_snapshots`.
    """
    snapshots, _ = as_snapshots(spins, size)
    if len(snapshots) != 1:
        raise HpcspinError(f"spins: {len(snapshots)} snapshots cannot be one {purpose}; give shape (Lx, Ly, 3)")
    return snapshots[0]


@dataclass(frozen=True)
class Results:
    """Base of dataclasses of results, most of them arrays."""

    def __repr__(self) -> str:
        """One line: numbers, shapes of arrays, and of errors the largest."""
        parts = (_in_short(name, value) for name, value in vars(self).items())
        return f"<{type(self).__name__}: {', '.join(parts)}>"

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The results of several parts in one, whose arrays are joined along their first axis."""
        return cls(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)})

    def map(self, function: Callable[[NDArray[Any]], Any]) -> Self:
        """The same with a function applied to each array."""
        return type(self)(**{name: function(value) for name, value in vars(self).items()})


def _in_short(name: str, value: Any) -> str:
    if name.endswith("error"):
        return f"largest {name.replace('_', ' ')} {float(value.max()):.1e}"
    if shape := tuple(np.shape(value)):
        return f"{name} {shape}"
    return f"{name} {value}" if isinstance(value, int) else f"{name} {float(value):.6g}"


def _shapes(size: tuple[int, int]) -> str:
    return f"({size[0]}, {size[1]}, 3) or (n, {size[0]}, {size[1]}, 3)"


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
        If the shapes do not fit, or only one is a tensor.
    """
    given: list[Any] = [one if hasattr(one, "shape") else np.asarray(one) for one in (spins, field)]
    if len({hasattr(one, "detach") for one in given}) > 1:
        raise HpcspinError("perpendicular: one of spins and field is a torch tensor; give two of them, or none")
    of_spins, of_field = (tuple(one.shape) for one in given)
    if of_spins[-1:] != (3,) or of_field[-len(of_spins) :] != of_spins:
        raise HpcspinError(f"perpendicular: a field of shape {of_field} is not on spins of shape {of_spins}")
    unit, total = given
    return total - unit * (unit * total).sum(-1)[..., None]
