"""Exact exchange fields of a small driven lattice, two ways that must agree."""

import numpy as np

import hpcspin as hs

system = hs.load_system("configs/driven_sd_small.yaml")
spins = system.texture("wall", position=4, seed=1)
recursive = system.solve(spins, solver="negf", tolerance=1e-7)
closed = system.solve(spins, solver="closed_form")
print("currents out of the reservoirs:", recursive.current)
print("largest difference of the fields:", np.abs(recursive.field - closed.field).max())
