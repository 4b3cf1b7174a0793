"""Faster R-CNN with a C4 trunk: conv1..conv4 shared, conv5 on every RoI (appendix A).

N images, K classes, C channels at 1/16 of the image's size. Boxes: xyxy pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from backbones import Preprocessing, build_c4
from backbones.build import load_c4
from detection.config import Config
from detection.errors import ConfigError
from detection.modeling.roi_head import RoiHead
from detection.modeling.rpn import RegionProposalNetwork
from detection.structures import Batch


class FasterRCNN(nn.Module):
    """`model(batch)` gives losses; what a detection is composed of are steps with names of their own.

    `detection.inference` composes them; a model that predicts is its `Detector`. Raises BackboneError for an unknown name.
    """

    def __init__(self, config: Config, class_names: Sequence[str], preprocessing: Preprocessing | None = None) -> None:
        super().__init__()
        self.config = config
        self.class_names = tuple(class_names)
        self.trunk, conv5 = build_c4(
            config.model.backbone,
            norm=config.model.norm,
            stride_in_1x1=config.model.stride_in_1x1,
            stem_pool=config.model.stem_pool,
            freeze_stages=config.model.freeze_stages,
        )
        self.preprocessing = self.trunk.preprocessing if preprocessing is None else preprocessing
        if conv5.pool_size not in (None, config.roi.pool_size):
            raise ConfigError(
                f"roi.pool_size is {config.roi.pool_size}, but the per-region head of {config.model.backbone} takes "
                f"{conv5.pool_size} only: set roi.pool_size={conv5.pool_size}"
            )
        self.rpn = RegionProposalNetwork(self.trunk.channels, self.trunk.stride, config.rpn)
        self.roi_head = RoiHead(conv5, conv5.channels, self.trunk.stride, len(self.class_names), config.roi)
        # Convolutions are faster so on CPUs and GPUs, and RoIAlign gives this order.
        self.to(memory_format=torch.channels_last)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.rpn.conv.weight.device

    def load_backbone(self, state_dict: dict[str, Tensor], preprocessing: Preprocessing) -> None:
        """Take over a classifier's weights and the preprocessing they were trained with. Raises CheckpointError."""
        load_c4(self.trunk, self.roi_head.conv5, state_dict)
        self.preprocessing = preprocessing

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Four scalar training losses."""
        features = self.extract(batch)  # (N, C, H/16, W/16)
        output = self.rpn(features)
        rpn_losses = self.rpn.losses(output, batch.sizes_hw, batch.targets)
        proposals = self.rpn.training_proposals(output, batch.sizes_hw)
        return rpn_losses | self.roi_head.losses(features, proposals, batch.sizes_hw, batch.targets)

    def extract(self, batch: Batch) -> Tensor:
        """Features (N, C, H/16, W/16) of the images; a batch's padding is zero after normalisation."""
        images = self.preprocessing.normalize(batch.images)
        for image, (height, width) in zip(images, batch.sizes_hw, strict=True):
            image[:, height:] = 0
            image[:, :, width:] = 0
        return self.trunk(images.contiguous(memory_format=torch.channels_last))

    def propose(self, features: Tensor, sizes_hw: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Test-time proposals, by descending objectness: N x (P, 4)."""
        counts = self.config.rpn
        return self.rpn.proposals(self.rpn(features), sizes_hw, counts.pre_nms_test, counts.post_nms_test)

    def classify(
        self, features: Tensor, proposals: Sequence[Tensor], sizes_hw: Sequence[tuple[int, int]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Class probabilities N x (P, K), background left out, and a box a class N x (P, K, 4), not clipped."""
        logits, deltas = self.roi_head(features, proposals, sizes_hw)
        return self.roi_head.decode(logits, deltas, proposals)
