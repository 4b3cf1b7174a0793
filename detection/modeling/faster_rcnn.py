"""Faster R-CNN with a C4 trunk: conv1..conv4 shared, conv5 on every RoI (appendix A).

N images, K classes, C channels at 1/16 of the image's size. Boxes: xyxy pixels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms

from backbones import IMAGENET_PREPROCESSING, Preprocessing, build_c4
from backbones.c4 import load_c4
from detection.config import Config, TestConfig
from detection.modeling.boxes import at_least, clip_boxes
from detection.modeling.roi_head import RoiHead
from detection.modeling.rpn import RegionProposalNetwork
from detection.resize import resize_image, resized_size
from detection.structures import Batch, Detections


def build_detector(config: Config, class_names: Sequence[str] | None = None) -> FasterRCNN:
    """A detector with fresh weights. `class_names` defaults to the config's. Raises BackboneError for an unknown name."""
    return FasterRCNN(config, config.data.class_names if class_names is None else class_names)


class FasterRCNN(nn.Module):
    """`model(batch)` gives losses, `model.predict(images)` detections; the steps between have names of their own."""

    def __init__(
        self, config: Config, class_names: Sequence[str], preprocessing: Preprocessing = IMAGENET_PREPROCESSING
    ) -> None:
        super().__init__()
        self.config = config
        self.class_names = tuple(class_names)
        self.preprocessing = preprocessing
        self.trunk, conv5 = build_c4(
            config.model.backbone,
            norm=config.model.norm,
            stride_in_1x1=config.model.stride_in_1x1,
            freeze_stages=config.model.freeze_stages,
        )
        self.rpn = RegionProposalNetwork(self.trunk.channels, self.trunk.stride, config.rpn)
        self.roi_head = RoiHead(conv5, conv5.channels, self.trunk.stride, len(self.class_names), config.roi)
        # Convolutions are faster so on CPUs and GPUs, and RoIAlign's matrix products give this order.
        self.to(memory_format=torch.channels_last)

    def load_backbone(self, state_dict: dict[str, Tensor], preprocessing: Preprocessing) -> None:
        """Take over a classifier's weights and the preprocessing they were trained with. Raises CheckpointError."""
        load_c4(self.trunk, self.roi_head.conv5, state_dict)
        self.preprocessing = preprocessing

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Four scalar training losses."""
        features = self.extract(batch)  # (N, C, H/16, W/16)
        output = self.rpn(features)
        rpn_losses = self.rpn.losses(output, batch.sizes_hw, batch.targets)
        counts = self.config.rpn
        proposals = self.rpn.proposals(output, batch.sizes_hw, counts.pre_nms_train, counts.post_nms_train)
        return rpn_losses | self.roi_head.losses(features, proposals, batch.targets)

    @torch.inference_mode()
    def predict(self, images: Sequence[Tensor | np.ndarray]) -> list[Detections]:
        """Objects in each image, boxes in its own pixels.

        Images are uint8 RGB of any size: arrays (H, W, 3) or tensors (3, H, W). Images of equal size run together, up
        to `test.batch_size`; none is ever padded, so a list gives what each image alone gives.
        """
        arrays = [_to_array(image) for image in images]
        limits = self.config.test
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index, array in enumerate(arrays):
            groups[resized_size(array.shape[:2], limits.shorter_side, limits.longer_side)].append(index)
        results: dict[int, Detections] = {}
        training = self.training
        self.eval()
        for size_hw, indices in groups.items():
            for chunk in torch.tensor(indices).split(limits.batch_size):
                members = chunk.tolist()
                found = self._predict_equal_sizes([arrays[index] for index in members], size_hw)
                results.update(zip(members, found, strict=True))
        self.train(training)
        return [results[index] for index in range(len(arrays))]

    def _predict_equal_sizes(self, arrays: Sequence[np.ndarray], size_hw: tuple[int, int]) -> list[Detections]:
        batch = self._batch(arrays, size_hw)
        features = self.extract(batch)
        scores, boxes = self.classify(features, self.propose(features, batch))
        return [
            to_image_pixels(select(*pair, size_hw, self.config.test), size_hw, array.shape[:2])
            for pair, array in zip(zip(scores, boxes, strict=True), arrays, strict=True)
        ]

    def _batch(self, arrays: Sequence[np.ndarray], size_hw: tuple[int, int]) -> Batch:
        """Images resized to one size, on the model's device."""
        resized = np.stack([resize_image(array, size_hw) for array in arrays])
        images = torch.from_numpy(resized).permute(0, 3, 1, 2)
        return Batch(images, [size_hw] * len(arrays)).to(self.rpn.conv.weight.device)

    def extract(self, batch: Batch) -> Tensor:
        """Features (N, C, H/16, W/16) of the images; a batch's padding is zero after normalisation."""
        images = self.preprocessing.normalize(batch.images)
        for image, (height, width) in zip(images, batch.sizes_hw, strict=True):
            image[:, height:] = 0
            image[:, :, width:] = 0
        return self.trunk(images.contiguous(memory_format=torch.channels_last))

    def propose(self, features: Tensor, batch: Batch) -> list[Tensor]:
        """Test-time proposals, by descending objectness: N x (P, 4)."""
        counts = self.config.rpn
        return self.rpn.proposals(self.rpn(features), batch.sizes_hw, counts.pre_nms_test, counts.post_nms_test)

    def classify(self, features: Tensor, proposals: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Class probabilities N x (P, K) and a box a class N x (P, K, 4)."""
        return self.roi_head.classify(features, proposals)


def select(scores: Tensor, boxes: Tensor, size_hw: tuple[int, int], config: TestConfig) -> Detections:
    """The best of one image's (P, K) scores and (P, K, 4) boxes: threshold, NMS in each class, top detections."""
    boxes = clip_boxes(boxes, size_hw)
    keep = (scores > config.score_threshold) & at_least(boxes, 0)
    rows, labels = keep.nonzero(as_tuple=True)
    boxes, scores = boxes[rows, labels], scores[rows, labels]
    kept = batched_nms(boxes, scores, labels, config.nms_threshold)[: config.max_detections]
    return Detections(boxes[kept], scores[kept], labels[kept])


def to_image_pixels(detections: Detections, from_hw: tuple[int, int], to_hw: tuple[int, int]) -> Detections:
    """The same detections in the pixels of an image of another size."""
    ratio_y, ratio_x = to_hw[0] / from_hw[0], to_hw[1] / from_hw[1]
    boxes = detections.boxes * detections.boxes.new_tensor([ratio_x, ratio_y, ratio_x, ratio_y])
    return Detections(clip_boxes(boxes, to_hw), detections.scores, detections.labels)


def _to_array(image: Tensor | np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8, whatever of the two forms was given."""
    array = image.permute(1, 2, 0).cpu().numpy() if isinstance(image, Tensor) else image
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ValueError(f"predict takes uint8 RGB images (H, W, 3) or (3, H, W), got {array.dtype} {tuple(array.shape)}")
    return array
