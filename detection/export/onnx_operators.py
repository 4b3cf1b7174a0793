"""Operators that `torch.onnx.export` cannot translate by itself: the NMS of a detector's graph, and RoI max pooling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from detection.export import graph

LOWEST_SCORE = -3.0e38  # above -inf, which stands for no box


@torch.library.custom_op(
    "resdet::grouped_nms", mutates_args=(), schema="(Tensor boxes, Tensor scores, float iou_threshold, int limit) -> Tensor"
)
def grouped_nms(boxes: Tensor, scores: Tensor, iou_threshold: float, limit: int) -> Tensor:
    """`graph.grouped_nms` as one operator, for which ONNX has a counterpart; it has none for torchvision's single NMS."""
    return graph.grouped_nms(boxes, scores, iou_threshold, limit)


@grouped_nms.register_fake
def _(boxes: Tensor, scores: Tensor, iou_threshold: float, limit: int) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool)


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Operators of torch and the functions that build them in ONNX, for `torch.onnx.export(custom_translation_table=)`."""
    import onnxscript

    op: Any = onnxscript.opset18  # its type hints do not know that Python's numbers and lists become constants

    def onnx_grouped_nms(boxes: Any, scores: Any, iou_threshold: float, limit: int) -> Any:
        chosen = op.NonMaxSuppression(boxes, op.Unsqueeze(scores, [1]), limit, iou_threshold, LOWEST_SCORE)  # (S, 3)
        places = op.Gather(chosen, [0, 2], axis=1)  # (S, 2): group, box
        ones = op.Expand(1.0, op.Shape(chosen, start=0, end=1))
        return op.Greater(op.ScatterND(op.Expand(0.0, op.Shape(scores)), places, ones), 0.0)

    def onnx_roi_pool(features: Any, rois: Any, spatial_scale: float, pooled_height: int, pooled_width: int) -> Any:
        shape = (pooled_height, pooled_width)
        pooled = op.MaxRoiPool(features, rois, pooled_shape=shape, spatial_scale=spatial_scale)
        return pooled, pooled  # the second is where the maxima were, which only a gradient needs

    return {
        torch.ops.resdet.grouped_nms.default: onnx_grouped_nms,
        torch.ops.torchvision.roi_pool.default: onnx_roi_pool,
    }
