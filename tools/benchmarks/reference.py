"""torchvision's detectors as the reference of ours: the same network, anchors, counts and weights.

With C4 it is FasterRCNN around its ResNet-50 cut after conv4; with a pyramid its `fasterrcnn_resnet50_fpn` and
`maskrcnn_resnet50_fpn`. All have its FrozenBatchNorm2d.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from detection.config import Config
from detection.inference.detector import Detector
from detection.structures import Target

COMMON_NAMES = {
    "rpn.conv": "rpn.head.conv.0.0",
    "rpn.objectness": "rpn.head.cls_logits",
    "rpn.deltas": "rpn.head.bbox_pred",
    "roi_head.class_scores": "roi_heads.box_predictor.cls_score",
    "roi_head.box_deltas": "roi_heads.box_predictor.bbox_pred",
}
C4_NAMES = COMMON_NAMES | {
    "trunk.conv1": "backbone.0",
    "trunk.bn1": "backbone.1",
    "trunk.layer1": "backbone.4",
    "trunk.layer2": "backbone.5",
    "trunk.layer3": "backbone.6",
    "roi_head.conv5.layer4": "roi_heads.box_head.0",
}
PYRAMID_NAMES = COMMON_NAMES | {
    "trunk.backbone": "backbone.body",
    "trunk.neck.laterals": "backbone.fpn.inner_blocks",
    "trunk.neck.outputs": "backbone.fpn.layer_blocks",
    "roi_head.conv5.fc1": "roi_heads.box_head.fc6",
    "roi_head.conv5.fc2": "roi_heads.box_head.fc7",
    "roi_head.mask_head.convs": "roi_heads.mask_head",
    "roi_head.mask_head.deconv": "roi_heads.mask_predictor.conv5_mask",
    "roi_head.mask_head.predictor": "roi_heads.mask_predictor.mask_fcn_logits",
}
"""The names of our detectors' modules in torchvision's."""


class _Trunk(nn.Sequential):
    """A trunk with the attribute that torchvision's detectors ask of a backbone."""

    out_channels = 1024


def build_torchvision(model: Detector) -> nn.Module:
    """torchvision's detector with the settings and the weights of ours."""
    from torchvision.models.detection import FasterRCNN, MaskRCNN

    make_parts, names = (_c4_parts, C4_NAMES) if model.config.model.neck == "none" else (_pyramid_parts, PYRAMID_NAMES)
    parts = make_parts(len(model.class_names))
    if model.predicts_masks:
        parts |= _mask_parts(len(model.class_names))
    kind = MaskRCNN if model.predicts_masks else FasterRCNN
    reference = kind(rpn_anchor_generator=_anchors(model), **parts, **_settings(model.config))
    # With other random weights the two would have other proposals, and after NMS another number of RoIs to work on.
    reference.load_state_dict(torchvision_state(model.state_dict(), names))
    return reference


def torchvision_targets(targets: list[Target], device: str) -> list[dict[str, Tensor]]:
    """The objects of each image as torchvision takes them: its background is class 0, ours the last."""
    found = []
    for target in targets:
        masks = {} if target.masks is None else {"masks": target.masks.to(device, torch.uint8)}
        found.append({"boxes": target.boxes.to(device), "labels": target.labels.to(device) + 1} | masks)
    return found


def torchvision_state(ours: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Our detector's state dict under torchvision's names. Its background is class 0 and has boxes; ours is last, without."""
    state = {}
    for key, value in ours.items():
        part = next(part for part in names if key.startswith(f"{part}."))
        state[names[part] + key.removeprefix(part)] = _background_first(part, value)
    return state


def _background_first(part: str, value: Tensor) -> Tensor:
    if part == "roi_head.class_scores":
        return value.roll(1, dims=0)
    missing = {"roi_head.box_deltas": 4, "roi_head.mask_head.predictor": 1}.get(part, 0)
    return torch.cat([torch.zeros_like(value[:missing]), value])


def _anchors(model: Detector) -> nn.Module:
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    cells = list(model.rpn.get_buffer("cell_anchors"))
    rpn = model.config.rpn
    sizes = [(size,) for size in rpn.anchor_sizes] if len(cells) > 1 else [tuple(rpn.anchor_sizes)]
    generator = AnchorGenerator(tuple(sizes), (tuple(rpn.anchor_ratios),) * len(cells))
    generator.cell_anchors = cells  # its own are rounded, and C4's in another order
    return generator


def _settings(config: Config) -> dict[str, Any]:
    rpn, roi, test = config.rpn, config.roi, config.test
    return {
        "min_size": test.shorter_side,
        "max_size": test.longer_side,
        "rpn_pre_nms_top_n_train": rpn.pre_nms_train,
        "rpn_post_nms_top_n_train": rpn.post_nms_train,
        "rpn_pre_nms_top_n_test": rpn.pre_nms_test,
        "rpn_post_nms_top_n_test": rpn.post_nms_test,
        "box_batch_size_per_image": roi.sample_size,
        "box_score_thresh": test.score_threshold,
        "box_nms_thresh": test.nms_threshold,
        "box_detections_per_img": test.max_detections,
    }


def _resnet50() -> Any:
    """Its classifier with frozen norms; conv1 and conv2_x are not trained."""
    from torchvision.models import resnet50
    from torchvision.ops.misc import FrozenBatchNorm2d

    net: Any = resnet50(weights=None, norm_layer=FrozenBatchNorm2d)
    for parameter in chain(net.conv1.parameters(), net.layer1.parameters()):
        parameter.requires_grad_(False)
    return net


def _predictor(in_channels: int, num_classes: int) -> nn.Module:
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor

    return FastRCNNPredictor(in_channels, num_classes + 1)


def _c4_parts(num_classes: int) -> dict[str, nn.Module]:
    """conv1..conv4 shared and conv5 on each RoI."""
    from torchvision.ops import MultiScaleRoIAlign

    net = _resnet50()
    return {
        "backbone": _Trunk(net.conv1, net.bn1, net.relu, net.maxpool, net.layer1, net.layer2, net.layer3),
        "box_roi_pool": MultiScaleRoIAlign(["0"], 14, 2),
        "box_head": nn.Sequential(net.layer4, nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        "box_predictor": _predictor(2048, num_classes),
    }


def _pyramid_parts(num_classes: int) -> dict[str, nn.Module]:
    """What `fasterrcnn_resnet50_fpn` is made of."""
    from torchvision.models.detection.backbone_utils import BackboneWithFPN
    from torchvision.models.detection.faster_rcnn import TwoMLPHead
    from torchvision.ops import MultiScaleRoIAlign

    layers = {f"layer{number}": str(number - 1) for number in range(1, 5)}
    return {
        "backbone": BackboneWithFPN(_resnet50(), layers, [256, 512, 1024, 2048], 256),
        "box_roi_pool": MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2),
        "box_head": TwoMLPHead(256 * 7**2, 1024),
        "box_predictor": _predictor(1024, num_classes),
    }


def _mask_parts(num_classes: int) -> dict[str, nn.Module]:
    """What `maskrcnn_resnet50_fpn` has beside."""
    from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
    from torchvision.ops import MultiScaleRoIAlign

    return {
        "mask_roi_pool": MultiScaleRoIAlign(["0", "1", "2", "3"], 14, 2),
        "mask_head": MaskRCNNHeads(256, (256,) * 4, 1),
        "mask_predictor": MaskRCNNPredictor(256, 256, num_classes + 1),
    }
