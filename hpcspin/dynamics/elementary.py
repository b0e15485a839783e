"""Logarithm, sine and cosine in double precision with the same bits on every device.

Math libraries of CPUs and GPUs differ in the last bit, and vectorised ones may differ between the body
of a loop and its end.  These use nothing but sums, products and quotients, which IEEE 754 rounds one
way, with the polynomials of FDLIBM (Sun Microsystems, 1993; errors below one unit in the last place).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_LOG = (
    6.666666666666735130e-01,
    3.999999999940941908e-01,
    2.857142874366239149e-01,
    2.222219843214978396e-01,
    1.818357216161805012e-01,
    1.531383769920937332e-01,
    1.479819860511658591e-01,
)
_SIN = (
    -1.66666666666666324348e-01,
    8.33333333332248946124e-03,
    -1.98412698298579493134e-04,
    2.75573137070700676789e-06,
    -2.50507602534068634195e-08,
    1.58969099521155010221e-10,
)
_COS = (
    4.16666666666666019037e-02,
    -1.38888888888741095749e-03,
    2.48015872894767294178e-05,
    -2.75573143513906633035e-07,
    2.08757232129817482790e-09,
    -1.13596475577881948265e-11,
)
# pi/2 in two pieces, the first with its last 21 bits zero: n times it is exact for n up to two million.
_HALF_PI_HIGH, _HALF_PI_LOW = 1.57079632673412561417e00, 6.07710050650619224932e-11


def _polynomial(coefficients: Sequence[float], z: Tensor) -> Tensor:
    value = z * coefficients[-1]
    for coefficient in reversed(coefficients[1:-1]):
        value = (value + coefficient) * z
    return value + coefficients[0]


def log(x: Tensor) -> Tensor:
    """Natural logarithm of positive normal numbers."""
    mantissa, exponent = torch.frexp(x)
    small = mantissa < math.sqrt(0.5)
    f = torch.where(small, mantissa + mantissa, mantissa) - 1
    k = (exponent - small.to(exponent.dtype)).to(x.dtype)
    s = f / (f + 2)
    z = s * s
    half_square = f * f * 0.5
    series = s * (half_square + z * _polynomial(_LOG, z)) + k * _LN2_LOW
    return k * _LN2_HIGH - ((half_square - series) - f)


def sincos_quarter(turns: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Sine and cosine of ``turns`` quarter turns (int64) plus an angle within [-pi/4, pi/4]."""
    z = angle * angle
    sine = angle + angle * z * _polynomial(_SIN, z)
    cosine = (1 - z * 0.5) + z * z * _polynomial(_COS, z)
    odd, negative_sine, negative_cosine = turns & 1 != 0, turns & 2 != 0, (turns + 1) & 2 != 0
    s, c = torch.where(odd, cosine, sine), torch.where(odd, sine, cosine)
    return torch.where(negative_sine, -s, s), torch.where(negative_cosine, -c, c)


def sincos(x: Tensor) -> tuple[Tensor, Tensor]:
    """Sine and cosine of angles below a million."""
    turns = torch.round(x * (2 / math.pi))
    return sincos_quarter(turns.to(torch.int64), (x - turns * _HALF_PI_HIGH) - turns * _HALF_PI_LOW)
