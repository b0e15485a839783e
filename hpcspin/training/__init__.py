"""Training of force fields on labelled shards, and their errors."""

from hpcspin.training.data import find_data
from hpcspin.training.dataset import TrainingData
from hpcspin.training.evaluation import calibrate, evaluate, examine
from hpcspin.training.loop import require_possible, train
from hpcspin.training.metrics import Errors
from hpcspin.training.overlap import is_new, learned_files, spin_digests
from hpcspin.training.settings import TrainingOutcome, TrainingSettings

__all__ = [
    "Errors",
    "TrainingData",
    "TrainingOutcome",
    "TrainingSettings",
    "calibrate",
    "evaluate",
    "examine",
    "find_data",
    "is_new",
    "learned_files",
    "require_possible",
    "spin_digests",
    "train",
]  # fmt: skip
