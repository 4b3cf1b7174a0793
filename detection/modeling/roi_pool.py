"""RoI pooling: a fixed number of cells from each region of a feature map.

N images, R RoIs in all, C channels, S x S cells. RoIs are proposals, refined boxes or whole images: for each
image one tensor (P, 4) of xyxy pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from detection.config import Pooling
from detection.modeling.roi_align import roi_align
from detection.modeling.roi_max_pool import roi_max_pool


def pool_rois(
    features: Tensor,
    rois: Sequence[Tensor],
    output_size: int,
    stride: int,
    pooling: Pooling,
    sampling_ratio: int = 0,
    cell_stride: int = 1,
) -> Tensor:
    """The cells of each RoI: (N, C, H, W) and N x (P, 4) -> (R, C, S, S). Differentiable in the features.

    `stride` is pixels / features. A RoI has `output_size` cells per side; each `cell_stride`-th of them is computed, from the
    first on, as a convolution of that stride takes them: S is output_size / cell_stride, rounded up.

    "max": Fast R-CNN's RoI max pooling, cells rounded to whole features. "align": RoIAlign with continuous cells, the
    mean of sampling_ratio^2 bilinear samples each (0: one sample per feature).
    """
    boxes_float32 = [boxes.float() for boxes in rois]
    if features.device.type == "cpu":
        if pooling == "max":
            return roi_max_pool(features, boxes_float32, output_size, 1 / stride, cell_stride)
        return roi_align(features, rois, output_size, 1 / stride, sampling_ratio, cell_stride)
    from torchvision import ops  # slow to import, and a CPU needs none of it

    # Its kernels are fast on a GPU, but know fp32 and fp16 only.
    with torch.autocast(features.device.type, enabled=False):
        if pooling == "max":
            pooled = ops.roi_pool(features.float(), boxes_float32, output_size, 1 / stride)
        else:
            pooled = ops.roi_align(features.float(), boxes_float32, output_size, 1 / stride, sampling_ratio, aligned=True)
    return pooled[:, :, ::cell_stride, ::cell_stride].to(features.dtype)
