"""Faster R-CNN on ResNet backbones. What other code uses is exported here; everything else is reached by its module."""

from detection.config import Config
from detection.config_files import load_config

__all__ = ["Config", "load_config"]
