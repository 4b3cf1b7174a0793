"""The two networks of localisation (appendix C): a per-class RPN, and an R-CNN for warped regions of its proposals.

Each is a whole classification network up to conv5, and a `ClassHead` on it. N images, K classes, C classes of interest per
image, D channels of c5, A anchors per cell, M = H/32 * W/32 * A anchors per image, R RoIs, S = data.image_size.
Boxes: xyxy pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from backbones import Backbone, Preprocessing, build_backbone, load_checkpoint
from backbones.blocks import global_average
from backbones.modes import one_thread_after_fork, own_defaults
from backbones.options import BackboneOptions
from backbones.weights.classifier import load_classifier_weights, parse_classifier_weights
from detection.config.localiser import LocConfig, LocModelConfig, OtherClasses
from detection.errors import BackboneError
from detection.localisation.batches import RoiBatch, RpnBatch
from detection.localisation.class_head import ClassHead
from detection.localisation.losses import box_loss, sample_anchors, score_loss, score_loss_of_all_classes
from detection.modeling.anchors import generate_cell_anchors, grid_anchors
from detection.modeling.boxes import decode_boxes, encode_boxes
from detection.modeling.fixed_sizes import require_finite

STRIDE = 32
"""Of c5: pixels per cell."""


class LocNetwork(nn.Module):
    """What both stages have: a backbone up to c5, and the per-class layers `head`. Built with `build_rpn` and `build_rcnn`.

    The preprocessing is the backbone's: that of the weights that it starts from. Raises BackboneError for a backbone that is
    not known or without a c5 of stride 32.
    """

    @own_defaults()
    def __init__(self, config: LocConfig, class_names: Sequence[str], num_anchors: int, other_classes: OtherClasses) -> None:
        super().__init__()
        self.config = config
        self.class_names = tuple(class_names)
        self.backbone = _build_backbone(config.model)
        # The share of truths among what an output learns from: half in a sample of the image's own class, and next to none
        # where other images count too. From one half on, the loss of 1000 classes would begin at 693.
        prior = 0.5 / len(self.class_names) if other_classes == "negative" else 0.5
        common = other_classes == "common"
        self.head = ClassHead(self.backbone.channels["c5"], len(self.class_names), num_anchors, prior, common=common)
        # Convolutions are faster in this memory order, on CPUs and GPUs.
        self.to(memory_format=torch.channels_last)

    @property
    def preprocessing(self) -> Preprocessing:
        """What the weights expect of an image."""
        return self.backbone.preprocessing

    @preprocessing.setter
    def preprocessing(self, value: Preprocessing) -> None:
        self.backbone.preprocessing = value

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.head.scores.weight.device

    def features(self, images: Tensor) -> Tensor:
        """conv5's maps (N, D, H/32, W/32), rounded up, of uint8 RGB images (N, 3, H, W)."""
        one_thread_after_fork()
        normalised = self.preprocessing.normalize(images).contiguous(memory_format=torch.channels_last)
        return self.backbone(normalised)["c5"]


class LocRpn(LocNetwork):
    """The per-class RPN: `model(batch)` gives the training losses, `model.predict` the boxes of some classes."""

    def __init__(self, config: LocConfig, class_names: Sequence[str]) -> None:
        rpn = config.rpn
        super().__init__(config, class_names, len(rpn.anchor_sizes) * len(rpn.anchor_ratios), rpn.other_classes)
        # Half a cell: so the 7 x 7 cells of a crop of 224 pixels have its centre, and a mirrored crop has mirrored anchors.
        cell_anchors = generate_cell_anchors(rpn.anchor_sizes, rpn.anchor_ratios) + STRIDE / 2
        self.register_buffer("cell_anchors", cell_anchors, persistent=False)

    def anchors(self, features: Tensor) -> Tensor:
        """The anchors (M, 4) of feature maps (N, D, H, W), in pixels of the network's input."""
        return grid_anchors(self.get_buffer("cell_anchors"), STRIDE, (features.shape[2], features.shape[3]))

    def forward(self, batch: RpnBatch) -> dict[str, Tensor]:
        """Two scalar training losses, float32."""
        config = self.config.rpn
        features = self.features(batch.images)
        anchors = self.anchors(features)
        sample = sample_anchors(anchors, batch.boxes, config)
        logits, deltas = (found[:, 0] for found in self.head.of_classes(features, batch.labels[:, None]))  # (N, M), (N, M, 4)
        if config.other_classes != "negative":
            class_loss = score_loss(logits[sample.images, sample.anchors], sample.is_positive)
        else:
            cells = sample.anchors // self.head.num_anchors
            vectors = features.flatten(2)[sample.images, :, cells]
            of_all = self.head.all_logits_at(vectors, sample.anchors % self.head.num_anchors)
            class_loss = score_loss_of_all_classes(of_all, batch.labels[sample.images], sample.is_positive)
        found = deltas[sample.images, sample.anchors][sample.is_positive]
        return {
            "loss_rpn_class": class_loss,
            "loss_rpn_box": box_loss(found, sample.targets, len(sample.images), config.smooth_l1_beta),
        }

    def predict(self, images: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (N, C, M) in 0..1 and boxes (N, C, M, 4), not clipped, of C classes (N, C) of each image.

        Images are uint8 RGB (N, 3, H, W), boxes in their pixels, both results float32. Raises CheckpointError where the
        network's outputs are not finite.
        """
        features = self.features(images)
        logits, deltas = self.head.of_classes(features, classes)
        require_finite([logits, deltas])
        return logits.sigmoid(), decode_boxes(deltas, self.anchors(features))


class LocRcnn(LocNetwork):
    """The R-CNN for warped regions: `model(batch)` gives the training losses, `model.predict` new scores and boxes."""

    def __init__(self, config: LocConfig, class_names: Sequence[str]) -> None:
        super().__init__(config, class_names, 1, config.rcnn.other_classes)

    def vectors(self, images: Tensor) -> Tensor:
        """conv5's mean (R, D) of warped regions (R, 3, S, S) uint8 RGB."""
        return global_average(self.features(images))

    def of_classes(self, vectors: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (R,) and deltas (R, 4), float32, each RoI's for its own class (R,): of the vectors (R, D)."""
        logits, deltas = self.head.of_classes(vectors[:, :, None, None], labels[:, None])
        return logits[:, 0, 0], deltas[:, 0, 0]

    def forward(self, batch: RoiBatch) -> dict[str, Tensor]:
        """Two scalar training losses, float32."""
        config = self.config.rcnn
        vectors = self.vectors(batch.images)
        logits, deltas = self.of_classes(vectors, batch.labels)
        if config.other_classes != "negative":
            class_loss = score_loss(logits, batch.is_positive)
        else:
            of_all = self.head.all_logits_at(vectors, torch.zeros_like(batch.labels))
            class_loss = score_loss_of_all_classes(of_all, batch.labels, batch.is_positive)
        positive = batch.is_positive
        targets = encode_boxes(batch.gt_boxes[positive], batch.rois[positive], config.delta_std)
        return {
            "loss_class": class_loss,
            "loss_box": box_loss(deltas[positive], targets, len(batch), config.smooth_l1_beta),
        }

    def predict(self, images: Tensor, rois: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (R,) in 0..1 and boxes (R, 4), not clipped, of the RoIs (R, 4), each for its own class (R,).

        Images are the warped regions (R, 3, S, S) uint8 RGB, boxes in the pixels of the RoIs, both results float32. Raises
        CheckpointError where the network's outputs are not finite.
        """
        logits, deltas = self.of_classes(self.vectors(images), labels)
        require_finite([logits, deltas])
        return logits.sigmoid(), decode_boxes(deltas, rois, self.config.rcnn.delta_std)


def _build_backbone(config: LocModelConfig) -> Backbone:
    backbone = build_backbone(
        config.backbone,
        norm=config.norm,
        stride_in_1x1=config.stride_in_1x1,
        freeze_stages=config.freeze_stages,
        stem_pool=config.stem_pool,
    )
    if backbone.strides.get("c5") != STRIDE:
        has = ", ".join(f"{name} of stride {stride}" for name, stride in backbone.strides.items())
        raise BackboneError(
            f"model.backbone is {config.backbone}, whose maps are {has}: localisation needs c5 of stride {STRIDE}, "
            "as ResNets for ImageNet have it; take one of those"
        )
    return backbone


def build_rpn(config: LocConfig, class_names: Sequence[str]) -> LocRpn:
    """An RPN with fresh weights for K classes. Raises BackboneError for a backbone that does not fit."""
    return LocRpn(config, class_names)


def build_rcnn(config: LocConfig, class_names: Sequence[str]) -> LocRcnn:
    """An R-CNN with fresh weights for K classes. Raises BackboneError for a backbone that does not fit."""
    return LocRcnn(config, class_names)


def initialise(model: LocNetwork, path: str | Path) -> str:
    """Start the backbone from a classifier's checkpoint or a plain state dict with torchvision's names; says what was restored.

    The classifier's last layer is left out, its preprocessing taken over. Raises CheckpointError where the file does not fit.
    """
    network = model.config.model
    options = BackboneOptions(stride_in_1x1=network.stride_in_1x1, stem_pool=network.stem_pool)
    weights = parse_classifier_weights(load_checkpoint(path), str(path), network.backbone, options, model.preprocessing)
    load_classifier_weights(model.backbone, weights, with_classifier=False)
    source = "plain weights" if weights.metadata is None else "classifier"
    return f"the backbone starts from the {source} {path}; the per-class layers start from random numbers"
