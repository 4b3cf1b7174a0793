"""torchvision's detectors as the reference of ours: the same network, anchors, counts and weights.

With C4 it is FasterRCNN around its ResNet-50, or one of half width, cut after conv4; with a pyramid its
`fasterrcnn_resnet50_fpn` and `maskrcnn_resnet50_fpn`. All have its FrozenBatchNorm2d.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from backbones.resnet import HALF
from detection.config import Config, ModelConfig, RoiConfig
from detection.inference.detector import Detector
from detection.inference.images import batch_of_size, network_sizes, to_array
from detection.modeling.boxes import scale_boxes
from detection.structures import Batch, Detections, Target

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

    def __init__(self, out_channels: int, *parts: nn.Module) -> None:
        super().__init__(*parts)
        self.out_channels = out_channels


def build_torchvision(model: Detector) -> nn.Module:
    """torchvision's detector with the settings and the weights of ours."""
    from torchvision.models.detection import FasterRCNN, MaskRCNN

    c4, num_classes = model.config.model.neck == "none", len(model.class_names)
    parts, names = (_c4_parts(model), C4_NAMES) if c4 else (_pyramid_parts(num_classes), PYRAMID_NAMES)
    if model.predicts_masks:
        parts |= _mask_parts(num_classes)
    kind = MaskRCNN if model.predicts_masks else FasterRCNN
    reference = kind(rpn_anchor_generator=_anchors(model), **parts, **_settings(model.config))
    # With other random weights the two would have other proposals, and after NMS another number of RoIs to work on.
    reference.load_state_dict(torchvision_state(model.state_dict(), names))
    return reference


class TorchvisionDetector(nn.Module):
    """torchvision's detector behind ours' calls: it learns from the same batches, and finds the same kind of objects."""

    def __init__(self, model: Detector) -> None:
        super().__init__()
        self.config, self.class_names, self.preprocessing = model.config, model.class_names, model.preprocessing
        network: Any = build_torchvision(model)
        network.transform.image_mean, network.transform.image_std = [0.0] * 3, [1.0] * 3  # `_images` normalises
        self.network = network

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.network.parameters()).device

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Its four scalar losses."""
        losses: dict[str, Tensor] = self.network(self._images(batch), torchvision_targets(batch.targets, str(self.device)))
        return losses

    @torch.inference_mode()
    def predict(self, image: Tensor) -> Detections:
        """Objects in an image (3, H, W) uint8, in its own pixels."""
        array = to_array(image)
        image_hw, test, resizing = array.shape[:2], self.config.test, self.config.data.resizing
        size_hw = network_sizes(image_hw, test, resizing)[test.shorter_side]
        (found,) = self.network.eval()(self._images(batch_of_size([array], size_hw, resizing)))
        return Detections(scale_boxes(found["boxes"], size_hw, image_hw), found["scores"], found["labels"] - 1)

    def _images(self, batch: Batch) -> list[Tensor]:
        """As the weights expect them, without padding; of the size that it would resize them to."""
        images = self.preprocessing.normalize(batch.images.to(self.device))
        return [image[:, :height, :width] for image, (height, width) in zip(images, batch.sizes_hw, strict=True)]


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
        "rpn_batch_size_per_image": rpn.sample_size,
        "box_batch_size_per_image": roi.sample_size,
        "box_score_thresh": test.score_threshold,
        "box_nms_thresh": test.nms_threshold,
        "box_detections_per_img": test.max_detections,
    }


def _resnet50(half: bool = False) -> Any:
    """Its classifier with frozen norms; conv1 and conv2_x are not trained. Of half width where that is asked for."""
    from torchvision.models.resnet import Bottleneck, ResNet
    from torchvision.ops.misc import FrozenBatchNorm2d

    # Width is that of a block's 3 x 3, relative to 64; what the block has outside is so many times 64 << stage.
    block = type("HalfBottleneck", (Bottleneck,), {"expansion": 2}) if half else Bottleneck
    net: Any = ResNet(block, [3, 4, 6, 3], width_per_group=32 if half else 64, norm_layer=FrozenBatchNorm2d)
    for parameter in chain(net.conv1.parameters(), net.layer1.parameters()):
        parameter.requires_grad_(False)
    return net


def _as_the_authors(net: Any, model: ModelConfig) -> None:
    """Give the network the options that torchvision's own has not: a stem without padding, strides in the first 1 x 1."""
    if model.stem_pool == "ceil":
        net.maxpool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
    if model.stride_in_1x1:
        for stage in (net.layer2, net.layer3, net.layer4):
            stage[0].conv1.stride, stage[0].conv2.stride = stage[0].conv2.stride, (1, 1)


def _predictor(in_channels: int, num_classes: int) -> nn.Module:
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor

    return FastRCNNPredictor(in_channels, num_classes + 1)


def _c4_parts(model: Detector) -> dict[str, nn.Module]:
    """conv1..conv4 shared and conv5 on each RoI."""
    from torchvision.models.detection.rpn import RPNHead

    config, channels = model.config, model.trunk.channels
    net = _resnet50(half=config.model.backbone == f"resnet50{HALF}")
    _as_the_authors(net, config.model)
    rpn_head = RPNHead(config.rpn.channels, len(model.rpn.get_buffer("cell_anchors")[0]))
    rpn_head.conv[0][0] = nn.Conv2d(channels, config.rpn.channels, kernel_size=3, padding=1)  # its own keeps the number
    return {
        "backbone": _Trunk(channels, net.conv1, net.bn1, net.relu, net.maxpool, net.layer1, net.layer2, net.layer3),
        "rpn_head": rpn_head,
        "box_roi_pool": _c4_pooling(config.roi),
        "box_head": nn.Sequential(net.layer4, nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        "box_predictor": _predictor(model.roi_head.conv5.channels, len(model.class_names)),
    }


def _c4_pooling(roi: RoiConfig) -> nn.Module:
    """Its RoIAlign or RoIPool of the one map."""
    from torchvision.ops import MultiScaleRoIAlign, roi_pool

    class MaxPooling(MultiScaleRoIAlign):  # FasterRCNN takes nothing else
        def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
            # On a CPU its operator wants features and boxes in one type; on a GPU autocast gives it float32 and casts back so.
            rois = [each.float() for each in boxes]
            return roi_pool(x["0"].float(), rois, self.output_size, 1 / 16).to(x["0"].dtype)

    kind = MaxPooling if roi.pooling == "max" else MultiScaleRoIAlign
    return kind(["0"], roi.pool_size, roi.sampling_ratio or -1)


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
