"""A system of one's own from objects: a triangular lattice between a magnetised and a plain electrode."""

import hpcspin as hs

lattice = hs.make_lattice("triangular", (8, 6))
left, right, everywhere = (lattice.mask(where) for where in ("left", "right", "all"))
reservoirs = [
    hs.Reservoir("left", left, width=1.0, potential=-1.0, polarization=(0.5, 0.0, 0.0)),
    hs.Reservoir("right", right, width=1.0, potential=0.0),
    hs.Reservoir("bath", everywhere, width=0.01, potential=0.0),
]
system = hs.DrivenLattice(lattice, hopping=1.0, exchange=2.5, temperature=0.02, reservoirs=reservoirs)
run = hs.simulate(system, spins=system.texture("random", seed=3), damping=0.1, temperature=0.0, step=0.2, duration=1)
print("magnetisation:", run.magnetization[-1], "error of the fields:", run.error.max())
