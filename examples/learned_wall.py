"""A domain wall that a voltage drives, under a learned field: compare with the exact field, then simulate."""

import numpy as np

import hpcspin as hs

system = hs.load_system("configs/driven_sd.yaml")
spins = system.texture("wall", position=8, seed=1)
model = hs.load_model("driven_sd_fast")
learned, exact = model.field(spins, system), system.solve(spins, tolerance=1e-2).field
print("root mean square error of the field:", np.sqrt(np.mean((learned - hs.perpendicular(spins, exact)) ** 2)))
run = hs.simulate(system, field=model, spins=spins, damping=0.2, temperature=0.01, step=0.4, duration=40)
print("wall:", run.wall_position[0], "->", run.wall_position[-1])
