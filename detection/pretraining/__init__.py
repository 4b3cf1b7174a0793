"""The classification stage, whose weights detectors start from: `train_classifier(config)`."""

from detection.pretraining.train import PretrainResult, train_classifier

__all__ = ["PretrainResult", "train_classifier"]
