"""Base class of all descriptors.

A descriptor maps the spins in the slots of a neighbourhood to features that are invariant under global rotations of the
spins and under the symmetry operations of the site. A new descriptor is one class, registered by its name, that needs
only a `forward`.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hpcspin.errors import HpcspinError
from hpcspin.lattice import Lattice
from hpcspin.potential.irreps import slot_permutations
from hpcspin.potential.polynomials import Polynomials
from hpcspin.potential.tiles import is_present, product
from hpcspin.registry import Registry

DESCRIPTORS: Registry[type[Descriptor]] = Registry("potential.descriptor")
_CENTRES = 4
"""Centres on which a descriptor of a plugin is tried."""


class Descriptor(nn.Module):
    """Base of all descriptors.

    Parameters
    ----------
    lattice
        Lattice; its geometry matters, its size does not.
    offsets
        Lattice offset of each slot, the centre first, shape (slots, 2).
    operations
        Symmetry operations, shape (operations, 2, 2).
    even
        Whether the features must be even under time reversal, S -> -S.
    """

    name: ClassVar[str]
    presence_counts: Tensor
    parity: NDArray[np.int64]
    """Sign of each feature under time reversal, shape (features,)."""

    def __init_subclass__(cls, *, registered: bool = True) -> None:
        if registered:
            DESCRIPTORS.add(cls.name, cls)

    def __init__(self, lattice: Lattice, offsets: NDArray[np.int64], operations: NDArray[np.int64], even: bool) -> None:
        super().__init__()
        self.constant("presence_counts", axis_presence(offsets, operations))

    def constant(self, name: str, array: NDArray[np.float64]) -> None:
        """Register an array that follows from the architecture: it moves with the module and is not saved."""
        self.register_buffer(name, torch.tensor(array, dtype=torch.float64), persistent=False)

    def presence(self, spins: Tensor, tile: int) -> Tensor:
        """Counts of existing neighbours, shape (counts, centres): see `axis_presence`.

        At an open edge the zero of a missing bond would otherwise look like a right angle.
        """
        return product(self.presence_counts, is_present(spins), tile)

    def forward(self, spins: Tensor, tile: int) -> Tensor:
        """Features of each centre.

        Parameters
        ----------
        spins
            Spins in the slots, zero where a site is missing, shape (slots, 3, centres).
        tile
            Centres in a tile of matrix products.

        Returns
        -------
        Tensor
            Shape (features, centres).
        """
        raise NotImplementedError

    def polynomials(self) -> Polynomials | None:
        """The features as sums of products for the kernels in C, as the last rows.

        None for a descriptor that is not written in this way, which PyTorch evaluates.
        """
        return None


def require_features(descriptor: Descriptor, slots: int, dtype: torch.dtype) -> None:
    """Refuse a descriptor whose features, on random spins, are not those it promises: number, rotations, S -> -S."""
    where, parity = f"potential.descriptor: {descriptor.name}", np.asarray(getattr(descriptor, "parity", ()))
    spins = np.random.default_rng(1).standard_normal((slots, 3, _CENTRES))
    spins /= np.linalg.norm(spins, axis=1, keepdims=True)
    views = [torch.tensor(one, dtype=dtype) for one in (spins, spins[:, [1, 2, 0]], -spins)]  # As they are, turned, -S.
    with torch.inference_mode():
        features, turned, reversed_ = (descriptor(view, _CENTRES) for view in views)
    if not isinstance(features, Tensor) or features.shape != (len(parity), _CENTRES) or features.dtype != dtype:
        found = (
            f"{tuple(features.shape)}, {features.dtype}" if isinstance(features, Tensor) else type(features).__name__
        )
        raise HpcspinError(
            f"{where}: forward gives {found} for {_CENTRES} centres; give {(len(parity), _CENTRES)}, {dtype}, "
            "a feature for each entry of parity"
        )
    close = 1e-3 * max(1.0, float(features.abs().max()))
    if not torch.allclose(turned, features, rtol=0.0, atol=close):
        raise HpcspinError(f"{where}: its features change when all spins turn together; make them of products S_i·S_j")
    if not torch.allclose(reversed_, torch.tensor(parity[:, None], dtype=dtype) * features, rtol=0.0, atol=close):
        raise HpcspinError(f"{where}: its features have other signs under S -> -S than its parity says; correct it")


def axis_presence(offsets: NDArray[np.int64], operations: NDArray[np.int64]) -> NDArray[np.float64]:
    """Counts of neighbours that show the distance to open edges, as a map from the presence of each slot.

    Edges run along the lattice's axes, so that the neighbours on the axes suffice; equivalent ones are counted
    together. The map has zeros and ones, shape (counts, slots).
    """
    permutations = slot_permutations(offsets, operations)
    on_axis = [slot for slot in range(1, len(offsets)) if not offsets[slot].all()]
    orbits = sorted({tuple(sorted(set(permutations[:, slot].tolist()))) for slot in on_axis})
    counts = np.zeros((len(orbits), len(offsets)))
    for number, orbit in enumerate(orbits):
        counts[number, list(orbit)] = 1
    return counts
