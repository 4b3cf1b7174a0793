"""The network and its parts: boxes, anchors, matching, pooling, RPN, RoI head."""

from detection.modeling.faster_rcnn import FasterRCNN

__all__ = ["FasterRCNN"]
