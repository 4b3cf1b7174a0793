"""The detector: RPN and per-RoI head on a C4 backbone."""

from detection.modeling.faster_rcnn import FasterRCNN, build_detector

__all__ = ["FasterRCNN", "build_detector"]
