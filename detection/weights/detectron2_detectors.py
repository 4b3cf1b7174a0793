"""detectron2's Faster and Mask R-CNN, on C4 or a pyramid, read with this project's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from backbones import Preprocessing
from backbones.weights.conversion import (
    MSRA_PREPROCESSING,
    STEP_COUNTS,
    add_running_statistics,
    detectron2_rules,
    resnet_name,
)
from backbones.weights.renaming import RenameRule, State, rename
from detection.errors import CheckpointError
from detection.weights.foreign_detector import ForeignDetector, classes_of, mask_section, rows_of

# What detectron2's configs of C4 detectors say, in this project's words; configs/detectron2 says the same.
DETECTRON2_SETTINGS: dict[str, dict[str, Any]] = {
    "rpn": {
        "channels": 1024,
        "anchor_sizes": [32, 64, 128, 256, 512],
        "average_over": "sample_size",
        "ignore_straddling": False,
        "anchors_on_padding": True,
        "smooth_l1_beta": 0,
        "min_size": 0,
        "post_nms_test": 1000,
    },
    "roi": {"pooling": "align", "sample_size": 512, "negative_iou": [0.0, 0.5], "smooth_l1_beta": 0},
    "data": {"resizing": "pillow"},
    "mask": {"targets": "hard", "pasting": "grid"},
    "test": {"shorter_side": 800, "longer_side": 1333, "nms_threshold": 0.5},
}
# What its configs of pyramids say. Numbers before NMS are of each map, those after it of all together.
DETECTRON2_FPN_SETTINGS: dict[str, dict[str, Any]] = DETECTRON2_SETTINGS | {
    "rpn": DETECTRON2_SETTINGS["rpn"]
    | {"channels": 256, "pre_nms_train": 2000, "post_nms_train": 1000, "pre_nms_test": 1000, "post_nms_test": 1000},
    "roi": DETECTRON2_SETTINGS["roi"] | {"pool_size": 7},
}


def read_detectron2(state: State, extras: Mapping[str, Any], source: str) -> ForeignDetector:
    """The detector in a state dict of detectron2's. Raises CheckpointError where it is another network."""
    renamed, entries = rename(state, DETECTRON2_RULES, source, "a detector of detectron2's")
    mean, std = (renamed.pop(f"({name})", None) for name in ("mean", "std"))
    anchors = [renamed.pop(key) for key in sorted(renamed) if key.startswith("(anchors")]
    # As detectron2 reads files without statistics: it takes the variance for 1, and adds eps to it.
    entries += add_running_statistics(renamed, variance=1.0)
    preprocessing = _preprocessing(mean, std, source)
    pyramid = any(key.startswith("trunk.neck.") for key in renamed)
    settings = DETECTRON2_FPN_SETTINGS if pyramid else DETECTRON2_SETTINGS
    model = {
        "backbone": resnet_name(renamed, (1, 2, 3, 4), source),
        "neck": "fpn" if pyramid else "none",
        # The file does not say it; the authors' weights, which want no division, have it so, torchvision's have not.
        "stride_in_1x1": preprocessing.std == (1.0, 1.0, 1.0),
    }
    changes = {"channels": rows_of(renamed, "rpn.conv.bias")} if rows_of(renamed, "rpn.conv.bias") else {}
    num_classes = rows_of(renamed, "roi_head.class_scores.bias") - 1
    mask = mask_section(renamed, num_classes, source)
    config = settings | {
        "model": model | {"mask": bool(mask)},
        "rpn": settings["rpn"] | changes,
        "mask": settings["mask"] | mask,
        "data": settings["data"] | {"classes": classes_of(num_classes)},
    }
    if pyramid:
        config["fpn"] = _pyramid(renamed)
    return ForeignDetector(config, preprocessing, renamed, entries, torch.cat(anchors) if anchors else None)


def _pyramid(state: State) -> dict[str, Any]:
    """The `fpn` section."""
    return {
        "channels": rows_of(state, "trunk.neck.outputs.0.0.bias") or 256,
        "head_channels": rows_of(state, "roi_head.conv5.fc1.bias") or 1024,
    }


def _preprocessing(mean: Tensor | None, std: Tensor | None, source: str) -> Preprocessing:
    """Newer files do not hold the two; then they are those of its zoo's models, which are trained on BGR images."""
    try:
        means = MSRA_PREPROCESSING.mean if mean is None else _shortest(mean)
        stds = MSRA_PREPROCESSING.std if std is None else _shortest(std)
        # In photographs blue is the darkest channel.
        order = "rgb" if means and means[0] > means[-1] else "bgr"
        return Preprocessing.from_dict({"channel_order": order, "mean": means, "std": stds})
    except ValueError as error:
        raise CheckpointError(f"{source}: pixel_mean and pixel_std cannot be used: {error}") from None


def _shortest(values: Tensor) -> tuple[float, ...]:
    """The shortest decimal numbers that stand for these float32 values: 103.53, not 103.52999877929688."""
    return tuple(float(str(value)) for value in values.reshape(-1).numpy())


def _pyramid_rules() -> list[RenameRule]:
    """Those of the pyramid itself: maps 2 to 5 there, 0 to 3 here."""
    layers = [
        (f"backbone\\.fpn_{theirs}{level}", f"trunk.neck.{ours}.{level - 2}.0")
        for theirs, ours in (("lateral", "laterals"), ("output", "outputs"))
        for level in (2, 3, 4, 5)
    ]
    return [RenameRule(rf"{theirs}\.(weight|bias)", rf"{ours}.\1") for theirs, ours in layers]


def _mask_rules() -> list[RenameRule]:
    """Those of the mask head: its convolutions are numbered from 1 there, from 0 here."""
    start, ours = r"roi_heads\.mask_head", "roi_head.mask_head"
    return [
        *[RenameRule(rf"{start}\.mask_fcn{number + 1}\.(weight|bias)", rf"{ours}.convs.{number}.0.\1") for number in range(8)],
        RenameRule(rf"{start}\.(deconv|predictor)\.(weight|bias)", rf"{ours}.\1.\2"),
    ]


def _refusal(pattern: str, what: str) -> RenameRule:
    return RenameRule(pattern, note=what, refuse=True)


DETECTRON2_RULES = (
    _refusal(r"backbone\.fpn_\w+\.norm\..*", "norms in the pyramid (GN, SyncBN), which are lacking here"),
    _refusal(r"backbone\.res5\..*", "conv5 in the trunk (DC5); only C4 and pyramids are here"),
    _refusal(r".*\.conv2_offset\..*", "deformable convolutions, which are lacking here"),
    _refusal(r"roi_heads\.(box_head|box_predictor)\.\d.*", "another head: a cascade of several, where here is one"),
    _refusal(r"roi_heads\.box_head\.conv\d.*", "another head: convolutions before its layers, which are not read here"),
    _refusal(r"roi_heads\.mask_head\.mask_fcn\d\.norm\..*", "norms in the mask head (GN, SyncBN), which are not read here"),
    _refusal(r"proposal_generator\.rpn_head\.conv\.conv\d.*", "several RPN convolutions, where its other detectors have one"),
    STEP_COUNTS,
    *detectron2_rules("backbone.", "trunk.", (2, 3, 4)),
    *detectron2_rules("roi_heads.", "roi_head.conv5.", (5,)),
    *detectron2_rules("backbone.bottom_up.", "trunk.backbone.", (2, 3, 4, 5)),
    *_pyramid_rules(),
    RenameRule(r"roi_heads\.box_head\.fc([12])\.(weight|bias)", r"roi_head.conv5.fc\1.\2"),
    RenameRule(r"proposal_generator\.rpn_head\.conv\.(weight|bias)", r"rpn.conv.\1"),
    RenameRule(r"proposal_generator\.rpn_head\.objectness_logits\.(weight|bias)", r"rpn.objectness.\1"),
    RenameRule(r"proposal_generator\.rpn_head\.anchor_deltas\.(weight|bias)", r"rpn.deltas.\1"),
    RenameRule(r"proposal_generator\.anchor_generator\.cell_anchors\.([0-4])", r"(anchors\1)", "compared with the config's"),
    RenameRule(r"roi_heads\.box_predictor\.cls_score\.(weight|bias)", r"roi_head.class_scores.\1"),
    RenameRule(r"roi_heads\.box_predictor\.bbox_pred\.(weight|bias)", r"roi_head.box_deltas.\1"),
    *_mask_rules(),
    RenameRule(r"pixel_mean", "(mean)", "read into the preprocessing"),
    RenameRule(r"pixel_std", "(std)", "read into the preprocessing"),
)
