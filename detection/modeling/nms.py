"""Non-maximum suppression by torchvision's compiled operator, in one class or in each of several.

Importing torchvision takes longer than many a prediction, because it also imports torch's compiler and all its models. On a
CPU a detector needs nothing of it but this operator, so only the compiled library that holds the operator is loaded.
"""

from __future__ import annotations

import importlib.util
import sys
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

# With more boxes a CPU is faster with one NMS per class than with one for all, which compares boxes of different classes too.
MAX_BOXES_IN_ONE_NMS = 1000


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Indices (int64, by descending score) of the boxes that NMS keeps: boxes (P, 4) and scores (P,).

    A box is dropped where its IoU with a kept box of a higher score is above the threshold.
    """
    return torch.ops.torchvision.nms(boxes, scores, iou_threshold)


def batched_nms(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """Indices (int64, by descending score) of the boxes that NMS keeps in each class by itself; labels (P,) int64."""
    if not len(boxes):
        return labels.new_empty(0)
    if boxes.device.type == "cpu" and len(boxes) > MAX_BOXES_IN_ONE_NMS:
        classes = [(labels == label).nonzero().squeeze(1) for label in labels.unique()]
        kept = torch.cat([members[nms(boxes[members], scores[members], iou_threshold)] for members in classes]).sort().values
        return kept[scores[kept].argsort(descending=True)]
    # Shifted by more than the largest coordinate, boxes of different classes never overlap.
    return nms(boxes + (labels.to(boxes) * (boxes.max() + 1))[:, None], scores, iou_threshold)


def _load_operators() -> None:
    """Make torchvision's operators known to torch. Where its library is not found as expected, torchvision is imported."""
    if "torchvision" not in sys.modules and (spec := importlib.util.find_spec("torchvision")):
        for folder in spec.submodule_search_locations or ():
            for library in sorted(Path(folder).glob("_C*")):
                if library.suffix in (".so", ".pyd", ".dylib"):
                    with suppress(OSError):
                        torch.ops.load_library(library)
    if not hasattr(torch.ops.torchvision, "nms"):
        import torchvision  # noqa: F401  it has the library elsewhere, or says what is wrong


_load_operators()
