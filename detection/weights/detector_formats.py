"""Detectors of other projects, read with this project's names: the formats, and py-faster-rcnn's ports.

A anchors per cell, K classes. docs/weights.md compares the formats.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from backbones.weights.conversion import CAFFE_PREPROCESSING, NORM_PARTS, STEP_COUNTS, resnet_name
from backbones.weights.files import wrapper_prefixes
from backbones.weights.renaming import RenameRule, State, rename
from detection.errors import CheckpointError
from detection.weights.detectron2_detectors import read_detectron2
from detection.weights.foreign_detector import ForeignDetector, classes_of, rows_of, stage_rule
from detection.weights.torchvision_detectors import read_torchvision


@dataclass(frozen=True)
class _DetectorFormat:
    summary: str
    key_patterns: tuple[str, ...]  # a key that matches one of them tells the format
    read: Callable[[State, Mapping[str, Any], str], ForeignDetector]


def detector_format(keys: Iterable[str]) -> str | None:
    """The name of the detector format that the keys of a state dict have, or None."""
    names = list(keys)
    for prefix in wrapper_prefixes(names):
        for name, form in DETECTOR_FORMATS.items():
            if any(re.fullmatch(pattern, key[len(prefix) :]) for pattern in form.key_patterns for key in names):
                return name
    return None


def _read_jwyang(state: State, extras: Mapping[str, Any], source: str) -> ForeignDetector:
    if extras.get("class_agnostic"):
        raise CheckpointError(f"{source} regresses one box for all classes (class_agnostic); here each class has its own")
    layers = {4: 1, 5: 2, 6: 3}
    rules = [
        RenameRule(r"RCNN_base\.0\.weight", "trunk.conv1.weight"),
        RenameRule(rf"RCNN_base\.1\.{NORM_PARTS}", r"trunk.bn1.\1"),
        *[stage_rule(rf"RCNN_base\.{place}", f"trunk.layer{layer}") for place, layer in layers.items()],
        stage_rule(r"RCNN_top\.0", "roi_head.conv5.layer4"),
        *_py_faster_rcnn_rules(
            state,
            source,
            "RCNN_rpn.RPN_Conv",
            "RCNN_rpn.RPN_cls_score",
            "RCNN_rpn.RPN_bbox_pred",
            "RCNN_cls_score",
            "RCNN_bbox_pred",
        ),
    ]
    renamed, entries = rename(state, [STEP_COUNTS, *rules], source, "a ResNet detector of jwyang/faster-rcnn.pytorch")
    config = _py_faster_rcnn_config(renamed, source)
    config["model"]["stem_pool"] = "ceil"
    config["roi"] = {"pooling": "max" if extras.get("pooling_mode") == "pool" else "align", "pool_size": 7}
    return ForeignDetector(config, CAFFE_PREPROCESSING, renamed, entries)


def _read_tf_faster_rcnn(state: State, extras: Mapping[str, Any], source: str) -> ForeignDetector:
    rules = [
        RenameRule(r"resnet\.conv1\.weight", "trunk.conv1.weight"),
        RenameRule(rf"resnet\.bn1\.{NORM_PARTS}", r"trunk.bn1.\1"),
        *[stage_rule(rf"resnet\.layer{layer}", f"trunk.layer{layer}") for layer in (1, 2, 3)],
        stage_rule(r"resnet\.layer4", "roi_head.conv5.layer4"),
        RenameRule(r"resnet\.fc\.(weight|bias)", note="ImageNet's classifier"),
        *_py_faster_rcnn_rules(
            state, source, "rpn_net", "rpn_cls_score_net", "rpn_bbox_pred_net", "cls_score_net", "bbox_pred_net"
        ),
    ]
    renamed, entries = rename(state, [STEP_COUNTS, *rules], source, "a ResNet detector of tf-faster-rcnn's PyTorch port")
    config = _py_faster_rcnn_config(renamed, source)
    # Its conv5 has stride 1 on 7 x 7 cells; ours has stride 2, on 14 x 14.
    config["roi"] = {"pooling": "align", "pool_size": 14}
    return ForeignDetector(config, CAFFE_PREPROCESSING, renamed, entries)


DETECTOR_FORMATS = {
    # Before detectron2's, whose patterns match some of its names.
    "torchvision-detector": _DetectorFormat(
        "torchvision's Faster and Mask R-CNN with a pyramid",
        (r"backbone\.body\..*", r"rpn\.head\..*", r"roi_heads\.box_head\.fc6\..*"),
        read_torchvision,
    ),
    "detectron2": _DetectorFormat(
        "detectron2's detectors, C4 and pyramids",
        (r"proposal_generator\..*", r"roi_heads\..*", r"backbone\.(stem|res\d|bottom_up|fpn).*"),
        read_detectron2,
    ),
    "jwyang": _DetectorFormat("ResNet detectors of jwyang/faster-rcnn.pytorch", (r"RCNN_.*",), _read_jwyang),
    "tf-faster-rcnn": _DetectorFormat(
        "ResNet detectors of tf-faster-rcnn's PyTorch port", (r"rpn_cls_score_net\..*",), _read_tf_faster_rcnn
    ),
}


def _py_faster_rcnn_rules(
    state: State, source: str, conv: str, rpn_scores: str, rpn_boxes: str, scores: str, boxes: str
) -> list[RenameRule]:
    """Rules for the RPN and the two output layers of py-faster-rcnn and its ports; the arguments are the layers' names there.

    The RPN's 2 A scores are A of background, then A of objects; anchors run ratio by ratio, and size by size within each.
    Background is the first class, and has box deltas too, which nothing is trained with.
    """
    num_anchors = rows_of(state, f"{rpn_scores}.bias") // 2
    if num_anchors == 0 or num_anchors % 3:
        raise CheckpointError(f"{source}: '{rpn_scores}.bias' should have two scores for each of 9 or 12 anchors")

    def by_size(x: Tensor, rows: int) -> Tensor:
        """(A * rows, ...) ordered by ratio, then size -> by size, then ratio."""
        blocks = _blocks(x, (3, num_anchors // 3, rows), source)
        return blocks.transpose(0, 1).reshape(x.shape)

    def one_score(x: Tensor) -> Tensor:
        background, objects = _blocks(x, (2, num_anchors), source)
        # softmax of two is the sigmoid of their difference.
        return by_size(objects - background, 1)

    changes: list[tuple[str, str, str, Callable[[Tensor], Tensor] | None]] = [
        (conv, "rpn.conv", "", None),
        (rpn_scores, "rpn.objectness", "object minus background; anchors in our order", one_score),
        (rpn_boxes, "rpn.deltas", "anchors in our order", lambda x: by_size(x, 4)),
        (scores, "roi_head.class_scores", "background last", lambda x: torch.cat([x[1:], x[:1]])),
        (boxes, "roi_head.box_deltas", "without background", lambda x: x[4:]),
    ]
    return [
        RenameRule(rf"{re.escape(name)}\.(weight|bias)", rf"{target}.\1", note, change)
        for name, target, note, change in changes
    ]


def _py_faster_rcnn_config(state: State, source: str) -> dict[str, Any]:
    num_anchors = rows_of(state, "rpn.objectness.bias")
    sizes = {9: [128, 256, 512], 12: [64, 128, 256, 512]}.get(num_anchors)
    if sizes is None:
        raise CheckpointError(f"{source} has {num_anchors} anchors per cell; known are its 9 for VOC and 12 for COCO")
    return {
        "model": {"backbone": resnet_name(state, (1, 2, 3, 4), source), "stride_in_1x1": True},
        "rpn": {"channels": rows_of(state, "rpn.conv.bias") or 512, "anchor_sizes": sizes, "anchor_offset": 0.5},
        "data": {"classes": classes_of(rows_of(state, "roi_head.class_scores.bias") - 1)},
    }


def _blocks(x: Tensor, shape: Sequence[int], source: str) -> Tensor:
    """The first dimension split up. Raises CheckpointError where that does not go."""
    if x.ndim == 0 or len(x) != torch.Size(shape).numel():
        raise CheckpointError(f"{source} has a tensor of shape {tuple(x.shape)} where the anchors need {shape} rows")
    return x.reshape(*shape, *x.shape[1:])
