"""Whether another runtime gives what PyTorch gives, up to rounding.

D detections found by the other runtime and D' expected ones, of one image; M x M cells of a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from backbones.modes import evaluating
from detection.modeling import FasterRCNN
from detection.structures import Batch, Detections

BOX_TOLERANCE, SCORE_TOLERANCE = 1e-2, 1e-4  # pixels, probability
MASK_TOLERANCE = 1e-3  # probability
FEATURE_TOLERANCE = 1e-3  # of the largest value
# Where two boxes have nearly the same score, rounding decides which of them suppresses the other.
AGREEING_SHARE = 0.98

Outputs = Sequence[Tensor]


@dataclass(frozen=True)
class Agreement:
    """How near the outputs of another runtime are to PyTorch's."""

    close_enough: bool
    sentence: str  # how near they are, for the user


def compare_detections(found: Detections, expected: Detections) -> Agreement:
    """Close enough where nearly all detections of one image have a partner among the other runtime's, and the reverse."""
    boxes = (found.boxes[:, None] - expected.boxes).abs().amax(dim=2)  # (D, D')
    scores = (found.scores[:, None] - expected.scores).abs()
    agree = (found.labels[:, None] == expected.labels) & (boxes <= BOX_TOLERANCE) & (scores <= SCORE_TOLERANCE)
    most = max(len(found), len(expected))
    if most == 0:
        return Agreement(True, "nothing is found, as by PyTorch")
    count = min(int(agree.any(dim=1).sum()), int(agree.any(dim=0).sum()))
    sentence = f"{count} of {most} detections agree with PyTorch's"
    if count:
        sentence += f", boxes to {boxes[agree].max():.1g} px, scores to {scores[agree].max():.1g}"
    return Agreement(count >= AGREEING_SHARE * most, sentence)


def masks_of(detector: FasterRCNN, image: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
    """PyTorch's masks of what another runtime found in one image (1, 3, H, W) uint8: (D, 4) and (D,) -> (D, M, M), on the
    CPU."""
    batch = Batch(image, [(image.shape[2], image.shape[3])]).to(detector.device)
    with torch.no_grad(), evaluating([detector]):
        features = detector.extract(batch)
        (masks,) = detector.segment(features, [boxes.to(detector.device)], [labels.to(detector.device)])
    return masks.cpu()


def compare_masks(found: Tensor, expected: Tensor) -> Agreement:
    """Close enough where no cell of nearly all masks, (D, M, M) of the same boxes, differs by more than rounding."""
    if found.shape != expected.shape:
        return Agreement(False, f"masks are {tuple(found.shape)}, PyTorch's {tuple(expected.shape)}")
    differences = (found - expected).abs().flatten(1).amax(dim=1)
    agree = differences <= MASK_TOLERANCE
    sentence = f"{int(agree.sum())} of {len(agree)} masks agree"
    if agree.any():
        sentence += f" to {differences[agree].max():.1g}"
    return Agreement(int(agree.sum()) >= AGREEING_SHARE * len(agree), sentence)


def both(one: Agreement, other: Agreement) -> Agreement:
    """Close enough in two things."""
    return Agreement(one.close_enough and other.close_enough, f"{one.sentence}, {other.sentence}")


def compare_features(found: Outputs, expected: Outputs) -> Agreement:
    """Close enough where the largest difference is small in units of the largest value of the feature map."""
    differences = [
        float((one - other).abs().max() / other.abs().max().clamp(min=1e-6)) if one.shape == other.shape else torch.inf
        for one, other in zip(found, expected, strict=True)
    ]
    worst = max(differences)
    return Agreement(worst <= FEATURE_TOLERANCE, f"features differ from PyTorch's by at most {worst:.1g} of the largest value")
