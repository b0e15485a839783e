"""A field without electrons: a ferromagnet precesses about a field and is damped into it."""

import numpy as np

import hpcspin as hs
from hpcspin.dynamics import Heisenberg, Zeeman
from hpcspin.lattice import make_texture

lattice = hs.make_lattice("square", (16, 16), (True, True))
fields = [Heisenberg(1.0, lattice.bonds), Zeeman((0.0, 0.0, 0.5))]
spins = make_texture("ferromagnet", lattice, seed=1, tilt=0.05)
run = hs.simulate(lattice, fields, spins, damping=0.1, temperature=0.0, step=0.05, duration=40)
print("m_z:", np.round(run.magnetization[::40, 2], 3))
