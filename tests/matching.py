"""Detections of two programs compared: the same ones, whatever the order of those whose scores are equal up to rounding."""

from __future__ import annotations

import torch
from torch import Tensor

Found = tuple[Tensor, Tensor, Tensor]
"""Boxes (D, 4), scores (D,) and labels (D,)."""


def same_detections(found: Found, expected: Found, pixels: float = 1e-3, score: float = 1e-4) -> None:
    """Fail unless each detection has its counterpart: the same label, boxes within `pixels`, scores within `score`."""
    boxes, scores, labels = found
    assert len(scores) == len(expected[1])
    distance = (boxes[:, None] - expected[0]).abs().amax(dim=2).masked_fill(labels[:, None] != expected[2], torch.inf)
    nearest = distance.argmin(dim=1)
    assert sorted(nearest.tolist()) == list(range(len(scores))), "some detections have no counterpart"
    assert float(distance.amin(dim=1).max()) <= pixels
    torch.testing.assert_close(scores, expected[1][nearest], rtol=0, atol=score)
    torch.testing.assert_close(scores, expected[1], rtol=0, atol=score)
