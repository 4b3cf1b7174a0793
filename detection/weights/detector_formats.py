"""C4 detectors of other projects, read with this project's names: detectron2's, jwyang's, and the tf-faster-rcnn port's.

A anchors per cell, K classes. docs/weights.md compares the formats.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from backbones import Preprocessing
from backbones.weights.conversion import (
    CAFFE_PREPROCESSING,
    MSRA_PREPROCESSING,
    NORM_PARTS,
    STEP_COUNTS,
    add_running_statistics,
    detectron2_rules,
    resnet_name,
)
from backbones.weights.files import wrapper_prefixes
from backbones.weights.renaming import ConversionEntry, RenameRule, State, rename
from detection.errors import CheckpointError

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
    "test": {"shorter_side": 800, "longer_side": 1333, "nms_threshold": 0.5},
}
NAMED_CLASSES = {20: "voc", 80: "coco"}


@dataclass(frozen=True)
class ForeignDetector:
    """A detector's tensors under our names, and what the source says of their meaning; `config` is as in a YAML file."""

    config: dict[str, Any]
    preprocessing: Preprocessing
    state: State
    entries: list[ConversionEntry]
    anchors: Tensor | None = None  # (A, 4) around the origin, where the source has them

    @property
    def backbone(self) -> str:
        """The backbone's name."""
        return str(self.config["model"]["backbone"])

    @property
    def num_classes(self) -> int:
        """K, by the rows of the classifier; less than 1 where there is none."""
        return _rows(self.state, "roi_head.class_scores.bias") - 1


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


def _read_detectron2(state: State, extras: Mapping[str, Any], source: str) -> ForeignDetector:
    renamed, entries = rename(state, DETECTRON2_RULES, source, "a C4 detector of detectron2's")
    mean, std, anchors = (renamed.pop(f"({name})", None) for name in ("mean", "std", "anchors"))
    # As detectron2 reads files without statistics: it takes the variance for 1, and adds eps to it.
    entries += add_running_statistics(renamed, variance=1.0)
    preprocessing = _detectron2_preprocessing(mean, std, source)
    model = {
        "backbone": resnet_name(renamed, (1, 2, 3, 4), source),
        # The file does not say it; the authors' weights, which want no division, have it so, torchvision's have not.
        "stride_in_1x1": preprocessing.std == (1.0, 1.0, 1.0),
    }
    rpn = DETECTRON2_SETTINGS["rpn"] | {"channels": _rows(renamed, "rpn.conv.bias") or 1024}
    data = DETECTRON2_SETTINGS["data"] | {"classes": _classes(renamed)}
    config = DETECTRON2_SETTINGS | {"model": model, "rpn": rpn, "data": data}
    return ForeignDetector(config, preprocessing, renamed, entries, anchors)


def _detectron2_preprocessing(mean: Tensor | None, std: Tensor | None, source: str) -> Preprocessing:
    """Newer files do not hold the two; then they are those of the C4 models, which are trained on BGR images."""
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


def _read_jwyang(state: State, extras: Mapping[str, Any], source: str) -> ForeignDetector:
    if extras.get("class_agnostic"):
        raise CheckpointError(f"{source} regresses one box for all classes (class_agnostic); here each class has its own")
    layers = {4: 1, 5: 2, 6: 3}
    rules = [
        RenameRule(r"RCNN_base\.0\.weight", "trunk.conv1.weight"),
        RenameRule(rf"RCNN_base\.1\.{NORM_PARTS}", r"trunk.bn1.\1"),
        *[_block_rule(rf"RCNN_base\.{place}", f"trunk.layer{layer}") for place, layer in layers.items()],
        _block_rule(r"RCNN_top\.0", "roi_head.conv5.layer4"),
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
        *[_block_rule(rf"resnet\.layer{layer}", f"trunk.layer{layer}") for layer in (1, 2, 3)],
        _block_rule(r"resnet\.layer4", "roi_head.conv5.layer4"),
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
    "detectron2": _DetectorFormat(
        "detectron2's C4 detectors",
        (r"proposal_generator\..*", r"roi_heads\..*", r"backbone\.(stem|res\d|bottom_up|fpn).*"),
        _read_detectron2,
    ),
    "jwyang": _DetectorFormat("ResNet detectors of jwyang/faster-rcnn.pytorch", (r"RCNN_.*",), _read_jwyang),
    "tf-faster-rcnn": _DetectorFormat(
        "ResNet detectors of tf-faster-rcnn's PyTorch port", (r"rpn_cls_score_net\..*",), _read_tf_faster_rcnn
    ),
}

DETECTRON2_RULES = (
    RenameRule(r"backbone\.(bottom_up|fpn_).*", note="a feature pyramid (FPN); only C4 detectors are here", refuse=True),
    RenameRule(r"backbone\.res5\..*", note="conv5 in the trunk (DC5); only C4 detectors are here", refuse=True),
    RenameRule(r".*\.conv2_offset\..*", note="deformable convolutions, which are lacking here", refuse=True),
    RenameRule(r"roi_heads\.(box_head\.|box_predictor\.\d).*", note="another head than a C4 detector's", refuse=True),
    RenameRule(
        r"proposal_generator\.rpn_head\.conv\.conv\d.*", note="several RPN convolutions, where here is one", refuse=True
    ),
    STEP_COUNTS,
    *detectron2_rules("backbone.", "trunk.", (2, 3, 4)),
    *detectron2_rules("roi_heads.", "roi_head.conv5.", (5,)),
    RenameRule(r"proposal_generator\.rpn_head\.conv\.(weight|bias)", r"rpn.conv.\1"),
    RenameRule(r"proposal_generator\.rpn_head\.objectness_logits\.(weight|bias)", r"rpn.objectness.\1"),
    RenameRule(r"proposal_generator\.rpn_head\.anchor_deltas\.(weight|bias)", r"rpn.deltas.\1"),
    RenameRule(r"proposal_generator\.anchor_generator\.cell_anchors\.0", "(anchors)", "compared with the config's"),
    RenameRule(r"roi_heads\.box_predictor\.cls_score\.(weight|bias)", r"roi_head.class_scores.\1"),
    RenameRule(r"roi_heads\.box_predictor\.bbox_pred\.(weight|bias)", r"roi_head.box_deltas.\1"),
    RenameRule(r"roi_heads\.mask_head\..*", note="masks are not predicted here"),
    RenameRule(r"pixel_mean", "(mean)", "read into the preprocessing"),
    RenameRule(r"pixel_std", "(std)", "read into the preprocessing"),
)


def _block_rule(start: str, target: str) -> RenameRule:
    """The blocks of a stage whose parameters have torchvision's names."""
    names = r"(\d+\.(?:conv[1-3]|bn[1-3]|downsample\.[01])\.(?:weight|bias|running_mean|running_var))"
    return RenameRule(rf"{start}\.{names}", rf"{target}.\1")


def _py_faster_rcnn_rules(
    state: State, source: str, conv: str, rpn_scores: str, rpn_boxes: str, scores: str, boxes: str
) -> list[RenameRule]:
    """Rules for the RPN and the two output layers of py-faster-rcnn and its ports; the arguments are the layers' names there.

    The RPN's 2 A scores are A of background, then A of objects; anchors run ratio by ratio, and size by size within each.
    Background is the first class, and has box deltas too, which nothing is trained with.
    """
    num_anchors = _rows(state, f"{rpn_scores}.bias") // 2
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
    num_anchors = _rows(state, "rpn.objectness.bias")
    sizes = {9: [128, 256, 512], 12: [64, 128, 256, 512]}.get(num_anchors)
    if sizes is None:
        raise CheckpointError(f"{source} has {num_anchors} anchors per cell; known are its 9 for VOC and 12 for COCO")
    return {
        "model": {"backbone": resnet_name(state, (1, 2, 3, 4), source), "stride_in_1x1": True},
        "rpn": {"channels": _rows(state, "rpn.conv.bias") or 512, "anchor_sizes": sizes, "anchor_offset": 0.5},
        "data": {"classes": _classes(state)},
    }


def _classes(state: State) -> str | list[str]:
    """The benchmark with as many classes; otherwise numbers, which the user's names replace."""
    count = _rows(state, "roi_head.class_scores.bias") - 1
    return NAMED_CLASSES.get(count, [f"class {number}" for number in range(max(count, 1))])


def _rows(state: Mapping[str, Tensor], key: str) -> int:
    """Rows of a tensor, which may have a wrapper's prefix; 0 where it is missing."""
    value = next((state[prefix + key] for prefix in wrapper_prefixes(state) if prefix + key in state), None)
    return 0 if value is None or value.ndim == 0 else len(value)


def _blocks(x: Tensor, shape: Sequence[int], source: str) -> Tensor:
    """The first dimension split up. Raises CheckpointError where that does not go."""
    if x.ndim == 0 or len(x) != torch.Size(shape).numel():
        raise CheckpointError(f"{source} has a tensor of shape {tuple(x.shape)} where the anchors need {shape} rows")
    return x.reshape(*shape, *x.shape[1:])
