"""A detector as one graph of tensor operations, for `torch.export` and ONNX.

N images, M anchors and P proposals an image, K classes, D detections of all images together. Boxes: xyxy pixels.
What a detector does image by image, on lists, the graph does on all images at once: each has the same number of places, and
a place with nothing in it has the score -inf. So the graph is the same for every number of images and every size.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import ops

from backbones import Backbone, FrozenBatchNorm2d
from detection.inference.detector import Detector
from detection.modeling.boxes import at_least, decode_boxes

Network = TypeVar("Network", bound=nn.Module)
Suppress = Callable[[Tensor, Tensor, float, int], Tensor]
"""NMS in each of G groups: boxes (G, P, 4), scores (G, P) (-inf: no box), IoU threshold and how many of each group are needed
at most -> (G, P) bool: kept."""


def suppress(boxes: Tensor, scores: Tensor, iou_threshold: float, limit: int) -> Tensor:
    """`Suppress` by torchvision's operator; it keeps what the threshold leaves, be it more than `limit`."""
    # Groups are moved where they do not meet. In float64, for a shift must not cost a box its fractions of a pixel.
    shifts = torch.arange(scores.shape[0], device=boxes.device) * (boxes.amax().double() + 1)
    apart = boxes.double() + shifts[:, None, None]
    # Two empty boxes at the end, which overlap none: of a program torchvision asks that its NMS always keep two.
    flat, apart = F.pad(scores.flatten(), (0, 2)), F.pad(apart.flatten(0, 1), (0, 0, 0, 2))
    candidates = (flat > -torch.inf).nonzero().squeeze(1)
    kept = candidates[ops.nms(apart[candidates], flat[candidates].double(), iou_threshold)]
    return torch.zeros_like(flat, dtype=torch.bool).index_fill(0, kept, True)[:-2].view_as(scores)


class DetectorGraph(nn.Module):
    """A detector's inference at one scale: images uint8 (N, 3, H, W) and sizes_hw int64 (N, 2) -> what is in them.

    Images are RGB at the size that the network shall see, smaller ones padded with anything at the right and bottom; `sizes_hw`
    are their true sizes. The results are boxes (D, 4) and scores (D,) float32, labels and image_index (D,) int64, image by
    image and by descending score.
    """

    def __init__(self, detector: Detector, suppress: Suppress = suppress) -> None:
        super().__init__()
        self.detector: Detector = frozen_copy(detector)
        self.suppress = suppress

    def forward(self, images: Tensor, sizes_hw: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See the class."""
        limits = sizes_hw.flip(1).repeat(1, 2).float()  # (N, 4): width, height, width, height
        features = self.detector.trunk(self.normalised(images, sizes_hw))
        regions, valid = self.propose(features, limits)
        return self.select(*self.classify_repeatedly(features, regions, valid, limits), limits)

    def normalised(self, images: Tensor, sizes_hw: Tensor) -> Tensor:
        """The network's float32 input, zero in the padding."""
        rows = torch.arange(images.shape[2], device=images.device) < sizes_hw[:, :1]
        columns = torch.arange(images.shape[3], device=images.device) < sizes_hw[:, 1:]
        return self.detector.preprocessing.normalize(images) * (rows[:, None, :, None] & columns[:, None, None])

    def propose(self, features: Tensor, limits: Tensor) -> tuple[Tensor, Tensor]:
        """Proposals (N, P, 4) by descending objectness, and which of them (N, P) there are."""
        rpn, config = self.detector.rpn, self.detector.config.rpn
        output = rpn(features)
        logits = output.logits
        if not config.anchors_on_padding:
            on_image = ((output.anchors[:, :2] + output.anchors[:, 2:]) / 2 < limits[:, None, :2]).all(dim=2)  # (N, M)
            logits = logits.masked_fill(~on_image, -torch.inf)
        # A small image has fewer anchors than are asked for: pad, so that the best are always as many.
        logits = F.pad(logits, (0, config.pre_nms_test), value=-torch.inf)
        scores, best = logits.topk(config.pre_nms_test)
        best = best.clamp(max=output.anchors.shape[0] - 1)
        boxes = clip(decode_boxes(_at(output.deltas, best), output.anchors[best]), limits[:, None])
        scores = scores.masked_fill(~at_least(boxes, config.min_size), -torch.inf)
        kept = self.suppress(boxes, scores, config.nms_threshold, config.post_nms_test)
        places = torch.arange(config.pre_nms_test, device=boxes.device)
        nowhere = config.pre_nms_test
        first = torch.where(kept, places, nowhere).topk(min(config.post_nms_test, nowhere), largest=False).values
        valid = first < nowhere
        return _at(boxes, first.clamp(max=nowhere - 1)) * valid[..., None], valid

    def classify_repeatedly(self, features: Tensor, regions: Tensor, valid: Tensor, limits: Tensor) -> tuple[Tensor, Tensor]:
        """Class probabilities (N, P', K) and boxes (N, P', K, 4) of the proposals and of the rounds of box refinement."""
        context = self.context(features, limits)
        rounds = []
        for _ in range(self.detector.config.test.refinement_passes + 1):
            scores, boxes = self.classify(features, regions, context)
            rounds.append((scores.masked_fill(~valid[..., None], -torch.inf), boxes))
            likeliest = scores.argmax(dim=2)[..., None, None].expand(-1, -1, 1, 4)
            regions = clip(boxes.gather(2, likeliest).squeeze(2), limits[:, None])
            valid = valid & at_least(regions, 0)
        united_scores, united_boxes = (torch.cat(parts, dim=1) for parts in zip(*rounds, strict=True))
        return united_scores, united_boxes

    def classify(self, features: Tensor, regions: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """(N, P, 4) -> class probabilities (N, P, K), background left out, and a box a class (N, P, K, 4), not clipped."""
        head = self.detector.roi_head
        vectors = head.conv5(self.pool(features, regions))
        if context is not None:
            vectors = torch.cat([vectors, context.repeat_interleave(regions.shape[1], dim=0)], dim=1)
        logits, deltas = head.predict(vectors, (), None)
        boxes = decode_boxes(deltas.unflatten(0, (-1, regions.shape[1])), regions[:, :, None], head.config.delta_std)
        return logits.softmax(dim=1)[:, :-1].unflatten(0, (-1, regions.shape[1])), boxes

    def context(self, features: Tensor, limits: Tensor) -> Tensor | None:
        """The whole image's vector (N, D), where the config asks for it."""
        whole = F.pad(limits[:, None, :2], (2, 0))  # (N, 1, 4)
        return self.detector.roi_head.conv5(self.pool(features, whole)) if self.detector.config.roi.context else None

    def pool(self, features: Tensor, regions: Tensor) -> Tensor:
        """(N, C, H, W) and (N, P, 4) -> (N * P, C, S, S), by the operators that ONNX has, too."""
        config, scale = self.detector.config.roi, 1 / self.detector.roi_head.stride
        images = torch.arange(regions.shape[0], device=regions.device, dtype=regions.dtype)
        rois = torch.cat([images[:, None, None].expand(-1, regions.shape[1], 1), regions], dim=2).flatten(0, 1)
        if config.pooling == "max":
            return ops.roi_pool(features, rois, config.pool_size, scale)
        return ops.roi_align(features, rois, config.pool_size, scale, config.sampling_ratio, aligned=True)

    def select(self, scores: Tensor, boxes: Tensor, limits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Threshold, NMS in each class and the top detections of each image, as `inference.select`."""
        test, num_classes = self.detector.config.test, scores.shape[2]
        boxes = clip(boxes, limits[:, None, None])
        scores = scores.masked_fill(~(scores > test.score_threshold), -torch.inf)
        by_class = (boxes.transpose(1, 2).flatten(0, 1), scores.transpose(1, 2).flatten(0, 1))  # (N * K, P, ...)
        kept = self.suppress(*by_class, test.nms_threshold, test.max_detections)
        kept = kept.unflatten(0, (-1, num_classes)).transpose(1, 2)
        scores = scores.masked_fill(~kept, -torch.inf).flatten(1)
        best_scores, best = scores.topk(min(test.max_detections, scores.shape[1]))
        found = (best_scores > -torch.inf) & at_least(_at(boxes.flatten(1, 2), best), 0)
        image_index, place = found.nonzero(as_tuple=True)
        best = best[image_index, place]
        return boxes.flatten(1, 2)[image_index, best], best_scores[image_index, place], best % num_classes, image_index


class BackboneGraph(nn.Module):
    """A backbone with its preprocessing: images uint8 RGB (N, 3, H, W) -> its feature maps, in the order of their names."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone: Backbone = frozen_copy(backbone)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        return tuple(self.backbone(self.backbone.preprocessing.normalize(images)).values())


def frozen_copy(network: Network) -> Network:
    """A copy on the CPU for inference alone. Its frozen norms are torch's own: ours choose their way by the input's size."""
    network = copy.deepcopy(network).cpu().eval().requires_grad_(False)
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, FrozenBatchNorm2d):
                setattr(parent, name, plain_norm(child))
    return network


def plain_norm(frozen: FrozenBatchNorm2d) -> nn.BatchNorm2d:
    """The same norm, in evaluation mode."""
    plain = nn.BatchNorm2d(len(frozen.weight), frozen.eps)
    plain.load_state_dict(frozen.state_dict() | {"num_batches_tracked": torch.tensor(0)})
    return plain.eval().requires_grad_(False)


def clip(boxes: Tensor, limits: Tensor) -> Tensor:
    """`clip_boxes` for images of several sizes: (..., 4) boxes and as many (width, height, width, height)."""
    return torch.minimum(boxes.clamp(min=0), limits)


def _at(boxes: Tensor, index: Tensor) -> Tensor:
    """(N, M, 4) and (N, P) -> (N, P, 4): each image's boxes at its places."""
    return boxes.gather(1, index[..., None].expand(-1, -1, 4))
