"""Whether another runtime gives what PyTorch gives, up to rounding. D and D' detections of one image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from detection.structures import Detections

BOX_TOLERANCE, SCORE_TOLERANCE = 1e-2, 1e-4  # pixels, probability
FEATURE_TOLERANCE = 1e-3  # of the greatest value
# Where two boxes have nearly the same score, rounding decides which of them suppresses the other.
AGREEING_SHARE = 0.98

Outputs = Sequence[Tensor]
Verdict = tuple[bool, str]
"""Whether outputs are near enough to PyTorch's, and how near they are."""


def compare_detections(found: Detections, expected: Detections) -> Verdict:
    """Nearly all detections of one image must have a partner on the other side."""
    boxes = (found.boxes[:, None] - expected.boxes).abs().amax(dim=2)  # (D, D')
    scores = (found.scores[:, None] - expected.scores).abs()
    agree = (found.labels[:, None] == expected.labels) & (boxes <= BOX_TOLERANCE) & (scores <= SCORE_TOLERANCE)
    most = max(len(found), len(expected))
    if most == 0:
        return True, "nothing is found, as by PyTorch"
    count = min(int(agree.any(dim=1).sum()), int(agree.any(dim=0).sum()))
    sentence = f"{count} of {most} detections agree with PyTorch's"
    if count:
        sentence += f", boxes to {boxes[agree].max():.1g} px, scores to {scores[agree].max():.1g}"
    return count >= AGREEING_SHARE * most, sentence


def compare_features(found: Outputs, expected: Outputs) -> Verdict:
    """The greatest difference, in units of the map's greatest value."""
    differences = [
        float((one - other).abs().max() / other.abs().max().clamp(min=1e-6)) if one.shape == other.shape else torch.inf
        for one, other in zip(found, expected, strict=True)
    ]
    worst = max(differences)
    return worst <= FEATURE_TOLERANCE, f"features differ from PyTorch's by {worst:.1g} of the greatest at most"
