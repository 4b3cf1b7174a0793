"""The losses of both stages (appendix C): a logistic loss of the scores and smooth L1 of the boxes, for one class per image.

S sampled anchors or RoIs of the whole batch, P positives among them, N images, G objects of an image, M anchors, K classes.
Both losses are sums divided by S, so that they keep one scale. With `other_classes: negative` the scores' loss is summed over
the K classes of an anchor before: the image's own class weighs as much as where the others are ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from detection.config.localiser import LocRpnConfig
from detection.modeling.boxes import encode_boxes
from detection.modeling.fixed_sizes import counts_of_finite
from detection.modeling.matching import POSITIVE, match_anchors, sample_matches


@dataclass(frozen=True)
class AnchorSample:
    """The anchors of a batch that enter the loss, those of an image together, its positives first."""

    images: Tensor  # (S,) int64: the image of each
    anchors: Tensor  # (S,) int64: its place among the M anchors
    is_positive: Tensor  # (S,) bool
    targets: Tensor  # (P, 4) float32: the deltas to the object of each positive


@torch.no_grad()
def sample_anchors(anchors: Tensor, boxes: Sequence[Tensor], config: LocRpnConfig) -> AnchorSample:
    """`config.sample_size` random anchors of each image: anchors (M, 4), and objects N x (G, 4) of the image's own class.

    Anchors that cross the image's border count, unlike in Faster R-CNN: in a crop of 224 pixels nearly all do.
    """
    parts = [_sample_of_image(anchors, own, config) for own in boxes]
    indices = torch.cat([chosen for chosen, _, _ in parts])
    counts = torch.tensor([len(chosen) for chosen, _, _ in parts], device=anchors.device)
    images = torch.arange(len(parts), device=anchors.device).repeat_interleave(counts)
    return AnchorSample(images, indices, *(torch.cat([part[place] for part in parts]) for place in (1, 2)))


def _sample_of_image(anchors: Tensor, boxes: Tensor, config: LocRpnConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Indices (S,) of sampled anchors, which of them are positive (S,), and the deltas (P, 4) of these."""
    match_labels, matched = match_anchors(anchors, boxes, config.positive_iou, config.negative_iou)
    chosen, sampled = sample_matches(match_labels, config.sample_size, config.positive_fraction)
    is_positive = (match_labels[chosen] == POSITIVE) & sampled
    num_sampled, num_positive = counts_of_finite([sampled.sum(), is_positive.sum()], None)
    chosen, is_positive, positive = chosen[:num_sampled], is_positive[:num_sampled], chosen[:num_positive]
    # Without objects there is none to take, and no positive that would want one.
    targets = encode_boxes(boxes[matched[positive]], anchors[positive]) if len(positive) else anchors[:0]
    return chosen, is_positive, targets


def score_loss(logits: Tensor, is_positive: Tensor) -> Tensor:
    """Logistic loss of the own class's logits (S,): the mean, 0 where nothing was sampled."""
    loss = F.binary_cross_entropy_with_logits(logits, is_positive.to(logits.dtype), reduction="sum")
    return loss / max(len(logits), 1)


def score_loss_of_all_classes(logits: Tensor, labels: Tensor, is_positive: Tensor) -> Tensor:
    """Logistic loss of all classes' logits (S, K), summed over the classes: the mean over the S, 0 where there are none.

    Only the own class (S,) of a positive is true.
    """
    truth = F.one_hot(labels, logits.shape[1]).to(logits.dtype) * is_positive[:, None]
    return F.binary_cross_entropy_with_logits(logits, truth, reduction="sum") / max(len(logits), 1)


def box_loss(deltas: Tensor, targets: Tensor, num_sampled: int, beta: float) -> Tensor:
    """Smooth L1 between the deltas (P, 4) of positives and those they should be, summed and divided by the number sampled."""
    return F.smooth_l1_loss(deltas, targets, beta=beta, reduction="sum") / max(num_sampled, 1)
