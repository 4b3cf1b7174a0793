"""Faster R-CNN: shared feature maps, the RPN, and a head on every RoI. C4 (appendix A): conv1..conv4, and conv5 on each RoI;
with a feature pyramid: P2..P6, and two fully connected layers.

N images, K classes, L maps of C channels: one at 1/16 of the image's size in C4. Boxes: xyxy pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones import Preprocessing
from backbones.build import load_classifier_into
from backbones.modes import one_thread_after_fork, own_defaults
from detection.config import Config, TestConfig
from detection.config.thresholds import check_threshold_names, thresholds_of_classes
from detection.modeling.fixed_sizes import are_finite, require_finite
from detection.modeling.mask_head import mask_probabilities
from detection.modeling.parts import build_mask_head, build_parts
from detection.modeling.roi_head import Begun, RoiHead
from detection.modeling.rpn import RegionProposalNetwork
from detection.structures import Batch, ScoredRegions


class FasterRCNN(nn.Module):
    """The network: `model(batch)` gives the training losses, and `extract`, `propose`, `classify` are the steps of inference.

    `detection.inference.detector` runs these steps, and its `Detector` is this network with `predict`. Of `config`, the
    architecture (`model`, `rpn`, `roi`, and `data.classes`) is fixed here; `use_test_config` changes the settings of inference.
    Raises BackboneError for an unknown name, ConfigError where `test.score_threshold` names what is no class.
    """

    _class_thresholds: Tensor | None

    @own_defaults()
    def __init__(self, config: Config, preprocessing: Preprocessing | None = None) -> None:
        check_threshold_names(config.test.score_threshold, config.data.class_names)
        super().__init__()
        self.config = config
        self.trunk, head = build_parts(config)
        self.preprocessing = self.trunk.preprocessing if preprocessing is None else preprocessing
        self.rpn = RegionProposalNetwork(self.trunk.channels, self.trunk.strides, config.rpn)
        mask_head = build_mask_head(config, self.trunk, head)
        self.roi_head = RoiHead(head, self.trunk.roi_strides, len(self.class_names), config.roi, mask_head)
        # A buffer, so that it is where the scores are before they are: a copy for each image would make the device wait.
        self.register_buffer("_class_thresholds", None, persistent=False)
        self.use_test_config(config.test)
        # Convolutions are faster in this memory order, on CPUs and GPUs, and RoIAlign gives it.
        self.to(memory_format=torch.channels_last)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The K class names in the order of the labels."""
        return self.config.data.class_names

    def use_test_config(self, test: TestConfig) -> None:
        """Use these settings of inference from now on. Raises ConfigError where `score_threshold` names what is no class."""
        threshold = resolve_score_threshold(test, self.class_names, self.device)
        self.config = self.config.model_copy(update={"test": test})
        self._class_thresholds = threshold if isinstance(threshold, Tensor) else None

    @property
    def score_threshold(self) -> float | Tensor:
        """What the scores (P, K) of detections are above: a number, or (K,) float32 on the device."""
        setting = self.config.test.score_threshold
        if isinstance(setting, Mapping) and self._class_thresholds is not None:
            return self._class_thresholds
        return resolve_score_threshold(self.config.test, self.class_names, self.device)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.rpn.conv.weight.device

    def load_backbone(
        self, state_dict: dict[str, Tensor], preprocessing: Preprocessing, source: str = "the backbone's state dict"
    ) -> None:
        """Take over a classifier's weights and the preprocessing they were trained with. Raises CheckpointError, naming
        `source`."""
        load_classifier_into(self.trunk, self.roi_head.conv5, state_dict, source)
        self.preprocessing = preprocessing

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Four scalar training losses, float32; one more with a mask head, and two with `roi.refined_iou`."""
        one_thread_after_fork()
        features = self.extract(batch)
        output = self.rpn(features)
        rpn_losses = self.rpn.losses(output, batch.sizes_hw, batch.targets)
        proposals = self.rpn.training_proposals(output, batch.sizes_hw)
        return rpn_losses | self.roi_head.losses(features, proposals, batch.sizes_hw, batch.targets)

    def extract(self, batch: Batch) -> tuple[Tensor, ...]:
        """The L feature maps (N, C, H/stride, W/stride) of the images; padding is zero after normalisation."""
        images = self.preprocessing.normalize(batch.images)
        for image, (height, width) in zip(images, batch.sizes_hw, strict=True):
            if (height, width) != image.shape[1:]:
                image[:, height:] = 0
                image[:, :, width:] = 0
        images = pad_to_multiple(images, self.trunk.size_divisor)
        return self.trunk.feature_maps(images.contiguous(memory_format=torch.channels_last))

    def propose(self, features: Sequence[Tensor], sizes_hw: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Proposals for inference, by descending objectness: N x (P, 4). Raises CheckpointError for NaN and infinity."""
        return self.rpn.test_proposals(self.rpn(features), sizes_hw)

    def classify(
        self,
        features: Sequence[Tensor],
        regions: Sequence[Tensor],
        sizes_hw: Sequence[tuple[int, int]],
        begun: Begun | None = None,
    ) -> ScoredRegions:
        """Class probabilities and boxes of the regions N x (P, 4), which are proposals or any other boxes in input pixels.

        `begun` is what `roi_head.begin` gives for the features, where `segment` or another call needs it too.
        """
        if not any(len(boxes) for boxes in regions):
            return self.no_regions(len(regions))
        context = self.roi_head.context(features, sizes_hw)
        return self.classify_vectors(self.roi_head.vectors(features, regions, begun), regions, context)

    def classify_vectors(self, vectors: Tensor, regions: Sequence[Tensor], context: Tensor | None) -> ScoredRegions:
        """The rest of `classify` after conv5: from the vectors (R, D) of the regions N x (P, 4).

        `context` (N, D) are the vectors of the whole images, None where the config asks for none.
        """
        logits, deltas = self.roi_head.logits_and_deltas(vectors, self.roi_head.context_per_roi(context, regions))
        scores, boxes = self.roi_head.decode(logits, deltas, torch.cat(list(regions)))
        counts = [len(image_regions) for image_regions in regions]
        return ScoredRegions(list(scores.split(counts)), list(boxes.split(counts)), are_finite([logits, deltas]))

    @property
    def predicts_masks(self) -> bool:
        """Whether there is a mask head."""
        return self.roi_head.mask_head is not None

    def segment(
        self, features: Sequence[Tensor], boxes: Sequence[Tensor], labels: Sequence[Tensor], begun: Begun | None = None
    ) -> list[Tensor]:
        """The mask of each found object in its box: N x (D, 4) and N x (D,) -> N x (D, M, M) probabilities, float32.

        The boxes are pooled again; `begun` as in `classify`. Raises CheckpointError where the head gives NaN or infinity.
        """
        if not any(len(each) for each in boxes):
            return self.segment_maps(None, labels)
        return self.segment_maps(self.roi_head.mask_maps(features, boxes, begun), labels)

    def segment_maps(self, maps: Tensor | None, labels: Sequence[Tensor]) -> list[Tensor]:
        """The rest of `segment` after pooling: from what the mask head works on (R, C, S, S), None for no object."""
        mask_head = self.roi_head.mask_head
        assert mask_head is not None, "asked for by nobody else"
        if maps is None:
            return [torch.zeros((0, 1, 1), dtype=torch.float32, device=self.device) for _ in labels]
        logits = mask_head(maps)
        require_finite([logits])
        return list(mask_probabilities(logits, torch.cat(list(labels))).split([len(own) for own in labels]))

    def no_regions(self, num_images: int) -> ScoredRegions:
        """The result for N images none of which has a region: N empty tensors of each kind."""
        scores = torch.zeros((0, len(self.class_names)), dtype=torch.float32, device=self.device)
        boxes = torch.zeros((0, len(self.class_names), 4), dtype=torch.float32, device=self.device)
        return ScoredRegions([scores] * num_images, [boxes] * num_images)


def pad_to_multiple(images: Tensor, divisor: int) -> Tensor:
    """Images (N, C, H, W) with zeros at the right and bottom, so that both sides are multiples of the divisor."""
    height, width = images.shape[-2:]
    if divisor == 1:
        return images
    return F.pad(images, (0, -width % divisor, 0, -height % divisor))


def resolve_score_threshold(test: TestConfig, class_names: Sequence[str], device: torch.device) -> float | Tensor:
    """What the scores (P, K) of detections are above by these settings: a number, or (K,) float32 on the device.

    Raises ConfigError where the settings name what is no class.
    """
    setting = test.score_threshold
    if not isinstance(setting, Mapping):
        return setting
    return torch.tensor(thresholds_of_classes(setting, class_names), dtype=torch.float32, device=device)
