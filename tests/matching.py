"""Detections of two programs compared: the same ones, whatever the order of those whose scores are equal up to rounding."""

from __future__ import annotations

import torch
from torch import Tensor

Found = tuple[Tensor, Tensor, Tensor]
"""Boxes (D, 4), scores (D,) and labels (D,)."""


def same_detections(found: Found, expected: Found, pixels: float = 1e-3, score: float = 1e-4) -> Tensor:
    """The index (D,) of each found one's counterpart among those expected.

    Fails unless each has one: the same label, boxes within `pixels`, scores within `score`.
    """
    boxes, scores, labels = found
    assert len(scores) == len(expected[1])
    distance = (boxes[:, None] - expected[0]).abs().amax(dim=2).masked_fill(labels[:, None] != expected[2], torch.inf)
    nearest = distance.argmin(dim=1)
    assert sorted(nearest.tolist()) == list(range(len(scores))), "some detections have no counterpart"
    assert float(distance.amin(dim=1).max()) <= pixels
    torch.testing.assert_close(scores, expected[1][nearest], rtol=0, atol=score)
    torch.testing.assert_close(scores, expected[1], rtol=0, atol=score)
    return nearest


def same_masks(found: Tensor, probabilities: Tensor, threshold: float = 0.5) -> None:
    """Fail unless masks (D, H, W) bool are where the probabilities (D, H, W) are at least the threshold, up to rounding.

    Pixels whose probability is within 1e-4 of the threshold are left out; they must be few.
    """
    close = (probabilities - threshold).abs() <= 1e-4
    expected = probabilities >= threshold
    assert 0.02 < float(expected.float().mean()) < 0.9, "masks of almost nothing or everything compare nothing"
    assert float(close.float().mean()) < 1e-3
    intersection = (found & expected & ~close).flatten(1).sum(dim=1)
    union = ((found | expected) & ~close).flatten(1).sum(dim=1)
    assert bool((intersection >= 0.999 * union).all())
