"""RoI pooling: a fixed number of cells from each region of a feature map.

N images, R RoIs in all, C channels, S x S cells. Proposals are given as one (P, 4) tensor of image pixels per image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torchvision import ops

from detection.modeling.roi_align import roi_align


def pool_rois(
    features: Tensor,
    proposals: Sequence[Tensor],
    stride: int,
    size: int,
    pooling: Literal["max", "align"],
    sampling_ratio: int = 0,
) -> Tensor:
    """(N, C, H, W) and N x (P, 4) -> (R, C, S, S), in the order of the proposals. Differentiable in the features.

    "max": Fast R-CNN's RoI max pooling, cells rounded to whole features. "align": RoIAlign with continuous cells, the
    mean of sampling_ratio^2 bilinear samples each (0: one sample a feature cell).
    """
    if pooling == "align" and features.device.type == "cpu":
        images = zip(features, proposals, strict=True)
        return torch.cat([roi_align(image, boxes, 1 / stride, size, sampling_ratio) for image, boxes in images])
    # torchvision's kernels for the GPU are faster than matrix products, but know fp32 and fp16 only.
    rois = [boxes.float() for boxes in proposals]
    with torch.autocast(features.device.type, enabled=False):
        if pooling == "max":
            pooled = ops.roi_pool(features.float(), rois, size, 1 / stride)
        else:
            pooled = ops.roi_align(features.float(), rois, size, 1 / stride, sampling_ratio, aligned=True)
    return pooled.to(features.dtype)
