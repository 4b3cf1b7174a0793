"""Faster R-CNN on ResNet backbones. What other code uses is exported here; everything else is reached by its module."""

import os
from typing import TYPE_CHECKING, Any

from detection.config import Config, load_config

if TYPE_CHECKING:
    from detection.inference.detector import Detector, Ensemble, build_detector, load_detector

# torch's large tensors on huge pages, where Linux has them: else every step on a CPU waits for a million small ones. It looks
# there once, before its first tensor.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

__all__ = ["Config", "Detector", "Ensemble", "build_detector", "load_config", "load_detector"]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import; reading a config or printing a command's help does not need it.
    if name in __all__:
        from detection.inference import detector

        return getattr(detector, name)
    raise AttributeError(f"module 'detection' has no attribute '{name}'")
