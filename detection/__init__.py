"""Faster R-CNN on ResNet backbones. What other code uses is exported here; everything else is reached by its module."""

import importlib
import os
from typing import TYPE_CHECKING, Any

from detection.config import Config, load_config

if TYPE_CHECKING:
    from detection.engine.callbacks import Callback, StopTraining
    from detection.engine.result import TrainResult
    from detection.inference.detector import Detector, build_detector, load_detector
    from detection.inference.ensemble import Ensemble
    from detection.inference.evaluate import EvaluationResult, evaluate
    from detection.inference.results import ImageDetections
    from detection.training.new import new_experiment
    from detection.training.result import DetectorResult
    from detection.training.train import train_detector

# torch's large tensors on huge pages, where Linux has them: else every step on a CPU waits for a million small ones. It looks
# there once, before its first tensor.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

__all__ = [
    "Callback",
    "Config",
    "Detector",
    "DetectorResult",
    "Ensemble",
    "EvaluationResult",
    "ImageDetections",
    "StopTraining",
    "TrainResult",
    "build_detector",
    "evaluate",
    "load_config",
    "load_detector",
    "new_experiment",
    "train_detector",
]

_HOMES = {
    "Callback": "engine.callbacks",
    "Detector": "inference.detector",
    "DetectorResult": "training.result",
    "Ensemble": "inference.ensemble",
    "EvaluationResult": "inference.evaluate",
    "ImageDetections": "inference.results",
    "StopTraining": "engine.callbacks",
    "TrainResult": "engine.result",
    "build_detector": "inference.detector",
    "evaluate": "inference.evaluate",
    "load_detector": "inference.detector",
    "new_experiment": "training.new",
    "train_detector": "training.train",
}


def __getattr__(name: str) -> Any:
    # torch takes seconds to import; reading a config or printing a command's help does not need it.
    if name in _HOMES:
        return getattr(importlib.import_module(f"detection.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'detection' has no attribute '{name}'")
