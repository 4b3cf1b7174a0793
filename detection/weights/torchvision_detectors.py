"""torchvision's Faster and Mask R-CNN on a ResNet with a pyramid, both generations, read with this project's names.

K classes; torchvision's K + 1 outputs begin with the background. Of COCO's 91 categories 80 are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from backbones.preprocessing import IMAGENET_PREPROCESSING
from backbones.weights.conversion import EPS, NORM_PARTS, resnet_name
from backbones.weights.renaming import RenameRule, State, rename
from detection.errors import CheckpointError
from detection.weights.foreign_detector import ForeignDetector, classes_of, mask_section, rows_of, stage_rule

# What its detectors do, in this project's words, in training and test.
TORCHVISION_SETTINGS: dict[str, dict[str, Any]] = {
    "rpn": {
        "channels": 256,
        "anchor_sizes": [32, 64, 128, 256, 512],
        "round_anchors": True,
        "ignore_straddling": False,
        "anchors_on_padding": True,
        "min_size": 0.001,
        "pre_nms_train": 2000,
        "post_nms_train": 2000,
        "pre_nms_test": 1000,
        "post_nms_test": 1000,
    },
    "roi": {
        "pooling": "align",
        "pool_size": 7,
        "sampling_ratio": 2,
        "aligned": False,
        "sample_size": 512,
        "negative_iou": [0.0, 0.5],
        "smooth_l1_beta": 1 / 9,
    },
    "data": {"resizing": "torchvision", "shorter_sides": [800], "longer_side": 1333},
    "mask": {"targets": "soft", "pasting": "whole_pixels"},
    "test": {"shorter_side": 800, "longer_side": 1333, "nms_threshold": 0.5, "min_size": 0.01},
}
NUM_COCO_CATEGORIES = 91
# Ids without a class between 1 and 90; 0 is its background.
UNUSED_CATEGORIES = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
_NORM = rf"1\.{NORM_PARTS}"
# Layers of which a file has the first form, or, since torchvision 0.13, the second one, which alone may have a norm after it.
_CONV = r"(?:\.0)?\.(weight|bias)"
REFUSALS = (
    RenameRule(r"backbone\.body\.\d+\..*", note="a MobileNet, where only ResNets are here", refuse=True),
    RenameRule(r"roi_heads\.keypoint_.*", note="keypoints, which are lacking here", refuse=True),
    RenameRule(r"head\.(classification|regression)_head\..*", note="RetinaNet's or FCOS's head", refuse=True),
)
TRUNK_RULES = (
    RenameRule(r"backbone\.body\.conv1\.weight", "trunk.backbone.conv1.weight"),
    RenameRule(rf"backbone\.body\.bn1\.{NORM_PARTS}", r"trunk.backbone.bn1.\1"),
    *[stage_rule(rf"backbone\.body\.layer{layer}", f"trunk.backbone.layer{layer}") for layer in (1, 2, 3, 4)],
    RenameRule(rf"backbone\.fpn\.inner_blocks\.([0-3]){_CONV}", r"trunk.neck.laterals.\1.0.\2"),
    RenameRule(rf"backbone\.fpn\.inner_blocks\.([0-3])\.{_NORM}", r"trunk.neck.laterals.\1.1.\2"),
    RenameRule(rf"backbone\.fpn\.layer_blocks\.([0-3]){_CONV}", r"trunk.neck.outputs.\1.0.\2"),
    RenameRule(rf"backbone\.fpn\.layer_blocks\.([0-3])\.{_NORM}", r"trunk.neck.outputs.\1.1.\2"),
)
RPN_RULES = (
    RenameRule(r"rpn\.head\.conv(?:\.0\.0)?\.(weight|bias)", r"rpn.conv.\1"),
    RenameRule(r"rpn\.head\.conv\.1\.0\.(weight|bias)", r"rpn.more_convs.0.\1"),
    RenameRule(r"rpn\.head\.cls_logits\.(weight|bias)", r"rpn.objectness.\1"),
    RenameRule(r"rpn\.head\.bbox_pred\.(weight|bias)", r"rpn.deltas.\1"),
)
# Two fully connected layers, or, in the second generation, four convolutions and one.
BOX_HEAD_RULES = (
    RenameRule(r"roi_heads\.box_head\.fc6\.(weight|bias)", r"roi_head.conv5.fc1.\1"),
    RenameRule(r"roi_heads\.box_head\.fc7\.(weight|bias)", r"roi_head.conv5.fc2.\1"),
    RenameRule(r"roi_heads\.box_head\.([0-3])\.0\.(weight|bias)", r"roi_head.conv5.convs.\1.0.\2"),
    RenameRule(rf"roi_heads\.box_head\.([0-3])\.{_NORM}", r"roi_head.conv5.convs.\1.1.\2"),
    RenameRule(r"roi_heads\.box_head\.5\.(weight|bias)", r"roi_head.conv5.fc1.\1"),
)
# The newer names number the convolutions from 0, as here, the older ones from 1.
MASK_HEAD_RULES = (
    *[
        RenameRule(rf"roi_heads\.mask_head\.mask_fcn{number + 1}\.(weight|bias)", rf"roi_head.mask_head.convs.{number}.0.\1")
        for number in range(4)
    ],
    RenameRule(r"roi_heads\.mask_head\.([0-3])\.0\.(weight|bias)", r"roi_head.mask_head.convs.\1.0.\2"),
    RenameRule(rf"roi_heads\.mask_head\.([0-3])\.{_NORM}", r"roi_head.mask_head.convs.\1.1.\2"),
    RenameRule(r"roi_heads\.mask_predictor\.conv5_mask\.(weight|bias)", r"roi_head.mask_head.deconv.\1"),
)


def read_torchvision(state: State, extras: Mapping[str, Any], source: str) -> ForeignDetector:
    """The detector in a state dict of torchvision's. Raises CheckpointError where it is another network."""
    renamed, entries = rename(state, rules_of(_num_outputs(state, source)), source, "a pyramid detector of torchvision's")
    second = any(key.startswith("roi_head.conv5.convs.") for key in renamed)
    frozen = not any(key.endswith(".num_batches_tracked") for key in renamed)
    if frozen:
        fold_norms(renamed)
    num_classes = rows_of(renamed, "roi_head.box_deltas.bias") // 4
    norm = "bn" if second else "frozen_bn"
    mask = mask_section(renamed, num_classes, source)
    backbone = resnet_name(renamed, (1, 2, 3, 4), source)
    model: dict[str, Any] = {"backbone": backbone, "neck": "fpn", "norm": norm, "mask": bool(mask)}
    if second:
        model["freeze_stages"] = 0
    config = TORCHVISION_SETTINGS | {
        "model": model,
        "fpn": _pyramid(renamed, second),
        "rpn": TORCHVISION_SETTINGS["rpn"] | _rpn(renamed),
        "roi": TORCHVISION_SETTINGS["roi"]
        | {"unused_outputs": rows_of(renamed, "roi_head.class_scores.bias") - 1 - num_classes},
        "mask": TORCHVISION_SETTINGS["mask"] | mask,
        "data": TORCHVISION_SETTINGS["data"] | {"classes": classes_of(num_classes)},
    }
    return ForeignDetector(config, IMAGENET_PREPROCESSING, renamed, entries)


def rules_of(num_outputs: int) -> list[RenameRule]:
    """What becomes of each tensor. `num_outputs`: of the classifier, background included."""
    return [*REFUSALS, *TRUNK_RULES, *RPN_RULES, *BOX_HEAD_RULES, *MASK_HEAD_RULES, *_predictor_rules(num_outputs)]


def _predictor_rules(num_outputs: int) -> list[RenameRule]:
    """Those of the last layers, whose outputs, one or four per class, are in another order here."""
    order = _class_order(num_outputs)
    classes = order[: order.index(0)]

    def all_rows(x: Tensor) -> Tensor:
        return x[order] if len(x) == num_outputs else x  # the shape of such a one is refused later

    def class_rows(x: Tensor) -> Tensor:
        return x[classes] if len(x) == num_outputs else x

    def box_rows(x: Tensor) -> Tensor:
        return x.reshape(num_outputs, 4, *x.shape[1:])[classes].flatten(0, 1) if len(x) == 4 * num_outputs else x

    coco = _is_coco(num_outputs)
    all_note = "background after the classes" + (", then the categories that COCO does not use" if coco else "")
    class_note = "without background" + (" and categories that COCO does not use" if coco else "")
    box, mask = r"roi_heads\.box_predictor", r"roi_heads\.mask_predictor"
    return [
        RenameRule(rf"{box}\.cls_score\.(weight|bias)", r"roi_head.class_scores.\1", all_note, all_rows),
        RenameRule(rf"{box}\.bbox_pred\.(weight|bias)", r"roi_head.box_deltas.\1", class_note, box_rows),
        RenameRule(rf"{mask}\.mask_fcn_logits\.(weight|bias)", r"roi_head.mask_head.predictor.\1", class_note, class_rows),
    ]


def _num_outputs(state: State, source: str) -> int:
    """Outputs of the classifier. Raises CheckpointError where the layers of classes and of boxes do not go together."""
    scores, boxes = (rows_of(state, f"roi_heads.box_predictor.{layer}.bias") for layer in ("cls_score", "bbox_pred"))
    if scores < 2 or boxes != 4 * scores:
        raise CheckpointError(
            f"{source} has {scores} outputs of 'roi_heads.box_predictor.cls_score.bias' and {boxes} of its 'bbox_pred.bias'; "
            "two or more, and four times as many, make a detector of torchvision's"
        )
    return scores


def _is_coco(num_outputs: int) -> bool:
    return num_outputs == NUM_COCO_CATEGORIES


def _class_order(num_outputs: int) -> list[int]:
    """Its outputs in our order: classes, background, and those that are never predicted."""
    unused = UNUSED_CATEGORIES if _is_coco(num_outputs) else ()
    return [*(place for place in range(1, num_outputs) if place not in unused), 0, *unused]


def _pyramid(state: State, second: bool) -> dict[str, Any]:
    """The `fpn` section."""
    convs = {key.split(".")[3] for key in state if key.startswith("roi_head.conv5.convs.")}
    return {
        "channels": rows_of(state, "trunk.neck.outputs.0.0.weight") or 256,
        "norm": "bn" if "trunk.neck.outputs.0.1.weight" in state else "none",
        "head_convs": len(convs),
        "head_fcs": 1 if second else 2,
        "head_channels": rows_of(state, "roi_head.conv5.fc1.bias") or 1024,
    }


def _rpn(state: State) -> dict[str, Any]:
    return {"channels": rows_of(state, "rpn.conv.bias") or 256, "convs": 2 if "rpn.more_convs.0.bias" in state else 1}


def fold_norms(state: State) -> None:
    """Norms that are constants, in place, as torchvision computes them: it sets eps to 0 for its published weights.

    The scale weight / sqrt(var) is what ours gives with the variance 1, if eps is taken into account.
    """
    for key in [key for key in state if key.endswith(".running_var")]:
        weight = f"{key.removesuffix('running_var')}weight"
        if weight in state and state[weight].shape == state[key].shape:
            scale = state[weight].double() / state[key].double().sqrt()
            state[weight] = (scale * (1 + EPS) ** 0.5).float()
            state[key] = torch.ones_like(state[key])
