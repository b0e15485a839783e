"""What trajectories say: numbers of series and runs, spectra, correlations, topological charge."""

from hpcspin.analysis.quantities import QUANTITIES
from hpcspin.analysis.spectra import dispersion, dynamical_structure_factor, spin_correlation

__all__ = ["QUANTITIES", "dispersion", "dynamical_structure_factor", "spin_correlation"]
