"""Analysis of trajectories: numbers of runs, spectra, correlations, charge; spins at rest, and paths between them."""

from hpcspin.analysis.minimise import Minimum, minimise
from hpcspin.analysis.path import Band, geodesic, relax
from hpcspin.analysis.spectra import QUANTITIES, dispersion, dynamical_structure_factor, spin_correlation

__all__ = [
    "QUANTITIES", "Band", "Minimum", "dispersion", "dynamical_structure_factor", "geodesic", "minimise", "relax",
    "spin_correlation",
]  # fmt: skip
