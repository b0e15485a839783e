"""The fused kernel once, on few energies, to be run under compute-sanitizer; the argument is m.

python perf/gpu_sanitized.py [--pretend] 48
"""

from __future__ import annotations

import sys

import numpy as np
from gpu_checks import kernel_error, small_kernels
from gpu_systems import dense_columns, kernel_problem

COLUMNS, ENERGIES = 3, 5


def main() -> None:
    """Enter from the command line."""
    kernel = next(one for one in small_kernels() if one.orbitals == int(sys.argv[-1]))
    if "--pretend" in sys.argv:
        error = float(not np.isfinite(dense_columns(kernel, kernel_problem(kernel, COLUMNS, ENERGIES))).all())
    else:
        error = kernel_error(kernel, COLUMNS, ENERGIES)
    print(f"m = {kernel.orbitals}: deviation from dense inverses {error:.1e}")
    sys.exit(int(not error < 1e-10))


if __name__ == "__main__":
    main()
