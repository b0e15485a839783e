"""From labelled shards to the weights of a force field, and how wrong it is."""

from hpcspin.training.evaluation import calibrate, evaluate, examine
from hpcspin.training.loop import Outcome, Settings, train
from hpcspin.training.metrics import Errors, perpendicular

__all__ = ["Errors", "Outcome", "Settings", "calibrate", "evaluate", "examine", "perpendicular", "train"]
