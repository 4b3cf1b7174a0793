"""Non-maximum suppression by torchvision's compiled operator, in one class or in several.

Importing torchvision takes longer than many a prediction, since it imports torch's compiler and all its models too. This
operator is all of it that a detector needs on a CPU, so only the library that holds it is loaded.
"""

from __future__ import annotations

import importlib.util
import sys
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

# Beyond this many boxes those of different classes take a CPU longer to compare than the classes take one after another.
MOST_AT_ONCE = 1000


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Indices, int64, by descending score (P,), of the boxes (P, 4) that no better kept one overlaps above the threshold."""
    return torch.ops.torchvision.nms(boxes, scores, iou_threshold)


def batched_nms(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """`nms` among the boxes of each label by themselves; labels: int64 (P,)."""
    if not len(boxes):
        return labels.new_empty(0)
    if boxes.device.type == "cpu" and len(boxes) > MOST_AT_ONCE:
        classes = [(labels == label).nonzero().squeeze(1) for label in labels.unique()]
        kept = torch.cat([members[nms(boxes[members], scores[members], iou_threshold)] for members in classes]).sort().values
        return kept[scores[kept].argsort(descending=True)]
    # Classes are moved to where they do not meet.
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
