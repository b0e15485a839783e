"""What trajectories say: numbers of time series, of a run, and of several runs."""
