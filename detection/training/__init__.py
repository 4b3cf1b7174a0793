"""A detector trained by its config, jointly or in the paper's four alternating steps."""

from detection.training.fit import fit
from detection.training.train import train_detector

__all__ = ["fit", "train_detector"]
