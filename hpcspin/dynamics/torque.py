r"""The Landau–Lifshitz–Gilbert equation, written as a rotation.

.. math:: \dot S = -\gamma\, S \times H + \alpha\, S \times \dot S
          \iff \dot S = -\frac{\gamma}{1+\alpha^2} [S \times H + \alpha\, S \times (S \times H)]
          = \Omega \times S,
          \qquad \Omega = \frac{\gamma}{1+\alpha^2} (H + \alpha\, S \times H)

with gamma = 1.  An integrator only needs the angular velocity Omega.

Vectors are tensors of shape (nx, ny, 3), stored component by component (see `components_first`), which makes the
arithmetic below contiguous. It uses only elementwise sums and products, one kernel each: no fused multiply-add can
enter, so that a site's numbers are the same in a block of any size, on any device.
"""

from __future__ import annotations

import torch
from torch import Tensor


def components_first(vectors: Tensor) -> Tensor:
    """The same vectors, shape (nx, ny, 3), with the memory of each component contiguous."""
    return vectors.permute(2, 0, 1).contiguous().permute(1, 2, 0)


def cross(a: Tensor, b: Tensor) -> Tensor:
    """Vector product a x b over the last axis."""
    product = torch.empty_like(a)
    ax, ay, az = a.unbind(-1)
    bx, by, bz = b.unbind(-1)
    x, y, z = product.unbind(-1)
    torch.sub(ay * bz, az * by, out=x)
    torch.sub(az * bx, ax * bz, out=y)
    torch.sub(ax * by, ay * bx, out=z)
    return product


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Scalar product over the last axis, which is kept with length 1."""
    ax, ay, az = (a * b).split(1, dim=-1)
    return ax + ay + az


def normalise(vectors: Tensor) -> Tensor:
    """Vectors of the same directions and unit length."""
    return vectors / dot(vectors, vectors).sqrt()


def angular_velocity(spins: Tensor, field: Tensor, damping: float) -> Tensor:
    """Angular velocity Omega of spins in a field, shape (nx, ny, 3), with damping; see the module's equation."""
    if damping == 0:
        return field
    return (field + damping * cross(spins, field)) * (1 / (1 + damping**2))
