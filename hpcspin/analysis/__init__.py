"""What trajectories say: numbers of series and runs, spectra, correlations, charge; spins at rest."""

from hpcspin.analysis.minimise import Minimum, minimise
from hpcspin.analysis.quantities import QUANTITIES
from hpcspin.analysis.spectra import dispersion, dynamical_structure_factor, spin_correlation

__all__ = ["QUANTITIES", "Minimum", "dispersion", "dynamical_structure_factor", "minimise", "spin_correlation"]
