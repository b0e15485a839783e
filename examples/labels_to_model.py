"""From exact labels to a force field of one's own: simulate, train, judge. Half a minute on two cores."""

import hpcspin as hs

config = "configs/driven_sd_small.yaml"
system = hs.load_system(config)
moving = dict(damping=0.2, temperature=0.01, step=0.4, duration=8)
runs = ["runs/example/1", "runs/example/2"]  # The fields of exact runs are labels.
for seed, path in enumerate(runs, 1):
    spins = system.texture("wall", position=4, seed=seed)
    hs.simulate(system, spins=spins, path=path, seed=seed, **moving)
model = hs.train(config, runs, "runs/example/model", "training.validation=[runs/example/2/trajectory.h5]")
print("mean squared error of a component:", hs.evaluate(model, "runs/example/2")["mse"])
