"""From exact labels to a force field of one's own: simulate, label, train, judge. Half a minute on two cores."""

import hpcspin as hs

config = "configs/driven_sd_small.yaml"
system = hs.load_system(config)
for seed in (1, 2):
    spins = system.texture("wall", position=4, seed=seed)
    run = hs.simulate(system, spins=spins, damping=0.2, temperature=0.01, step=0.4, duration=8, seed=seed)
    hs.label(system, run.spins, f"runs/example/data/{seed}.h5")
model = hs.train(config, "runs/example/data", "runs/example/model", "training.validation=[2.h5]")
print("mean squared error of a component:", hs.evaluate(model, "runs/example/data/2.h5")["mse"])
