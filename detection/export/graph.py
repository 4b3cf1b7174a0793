"""A detector as one graph of tensor operations, for `torch.export` and ONNX.

N images, L feature maps, M anchors and P proposals per image, K classes, D detections of all images together. Boxes: xyxy
pixels.

Shared with inference in PyTorch: the layers themselves, the RPN's scores and its mask for padding, decoding of boxes, class
probabilities, the likeliest box of a region, which boxes are empty, and every threshold and count, which come from the same
config. Written again here, because a graph must be the same for every number of images and every size:
- What inference does image by image on lists of different lengths (top-k, NMS, refinement, selection) is done here for all
  images at once. Each image has the same number of places, and a place with nothing in it has the score -inf.
- Sizes of images are tensors and not Python numbers, so padding and clipping (`clip_boxes_to`) compute with tensors.
- RoIs are pooled by torchvision's operators, for which ONNX has counterparts; our own on the CPU are faster but loop in Python.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TypeGuard, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import ops

from backbones import Backbone, FrozenBatchNorm2d
from backbones.convolution import Conv2d
from detection.inference.refinement import are_refined, likeliest_boxes
from detection.modeling import FasterRCNN
from detection.modeling.boxes import clip_boxes_to, decode_boxes, nonempty_boxes
from detection.modeling.faster_rcnn import pad_to_multiple
from detection.modeling.levels import levels_of
from detection.modeling.mask_head import MaskHead, mask_probabilities
from detection.modeling.roi_head import unaligned_boxes

MAX_DETECTIONS = 2**31  # of all images together

Network = TypeVar("Network", bound=nn.Module)
GroupedNms = Callable[[Tensor, Tensor, float, int], Tensor]
"""NMS in each of G groups: boxes (G, P, 4), scores (G, P) (-inf: no box), IoU threshold, and the most boxes of a group that are
needed -> which boxes are kept, (G, P) bool."""


def grouped_nms(boxes: Tensor, scores: Tensor, iou_threshold: float, limit: int) -> Tensor:
    """NMS in each group (`GroupedNms`) by torchvision's operator. It may keep more than `limit` boxes of a group."""
    # Shifted by more than the largest coordinate, boxes of different groups never overlap. In float64: a large shift in float32
    # would cost a box its fractions of a pixel.
    shifts = torch.arange(scores.shape[0], device=boxes.device) * (boxes.amax().double() + 1)
    apart = boxes.double() + shifts[:, None, None]
    # Two empty boxes at the end, which overlap none: in a program, torchvision requires that its NMS always keeps two.
    flat, apart = F.pad(scores.flatten(), (0, 2)), F.pad(apart.flatten(0, 1), (0, 0, 0, 2))
    candidates = (flat > -torch.inf).nonzero().squeeze(1)
    kept = candidates[ops.nms(apart[candidates], flat[candidates].double(), iou_threshold)]
    return torch.zeros_like(flat, dtype=torch.bool).index_fill(0, kept, True)[:-2].view_as(scores)


class DetectorGraph(nn.Module):
    """A detector's inference at one scale: images uint8 (N, 3, H, W) and sizes_hw int64 (N, 2) -> their detections.

    Images are RGB, resized to the network's size already; smaller ones are padded at the right and bottom with anything, and
    `sizes_hw` are their true sizes. The results are boxes (D, 4) and scores (D,) float32, labels and image_index (D,) int64,
    image by image and by descending score; of a detector with a mask head also masks (D, M, M) float32, probabilities in the
    boxes.
    """

    def __init__(self, detector: FasterRCNN, nms: GroupedNms = grouped_nms) -> None:
        super().__init__()
        self.detector: FasterRCNN = frozen_copy(detector)
        self.nms = nms

    def forward(self, images: Tensor, sizes_hw: Tensor) -> tuple[Tensor, ...]:
        """Boxes, scores, labels, image_index, and masks if there are any, of the detections, as the class describes them."""
        limits = sizes_hw.flip(1).repeat(1, 2).float()  # (N, 4): width, height, width, height
        features = self.extract(images, sizes_hw)
        proposals, valid = self.propose(features, limits)
        scores, boxes = self.refine_boxes(features, proposals, valid, limits)
        found = self.select(scores, boxes, limits)
        mask_head = self.detector.roi_head.mask_head
        return found if mask_head is None else (*found, self.segment(mask_head, features, found))

    def extract(self, images: Tensor, sizes_hw: Tensor) -> tuple[Tensor, ...]:
        """The trunk's feature maps; the padding is zero after normalisation."""
        rows = torch.arange(images.shape[2], device=images.device) < sizes_hw[:, :1]
        columns = torch.arange(images.shape[3], device=images.device) < sizes_hw[:, 1:]
        on_image = rows[:, None, :, None] & columns[:, None, None]
        normalised = self.detector.preprocessing.normalize(images) * on_image
        return self.detector.trunk.feature_maps(pad_to_multiple(normalised, self.detector.trunk.size_divisor))

    def propose(self, features: Sequence[Tensor], limits: Tensor) -> tuple[Tensor, Tensor]:
        """Proposals (N, P, 4) by descending objectness, and which of these places (N, P) hold one."""
        rpn, config = self.detector.rpn, self.detector.rpn.config
        output = rpn(features)
        logits = rpn.mask_padding(output.logits, output.anchors, limits[:, 1:2], limits[:, :1])
        scores, best = best_of_each_map(logits, output.counts, config.pre_nms_test)  # (N, L, B)
        best = best.flatten(1)
        boxes = clip_boxes_to(decode_boxes(_at(output.deltas, best), output.anchors[best]), limits[:, None])
        scores = scores.flatten(1).masked_fill(~nonempty_boxes(boxes, config.min_size), -torch.inf)
        boxes_by_map, scores_by_map = (each.unflatten(1, (-1, config.pre_nms_test)).flatten(0, 1) for each in (boxes, scores))
        kept = self.nms(boxes_by_map, scores_by_map, config.nms_threshold, config.post_nms_test).view_as(scores)
        first_scores, first = scores.masked_fill(~kept, -torch.inf).topk(min(config.post_nms_test, scores.shape[1]))
        valid = first_scores > -torch.inf
        return _at(boxes, first) * valid[..., None], valid

    def refine_boxes(self, features: Sequence[Tensor], regions: Tensor, valid: Tensor, limits: Tensor) -> tuple[Tensor, Tensor]:
        """Class probabilities (N, P', K) and boxes (N, P', K, 4) of the proposals and of each pass of box refinement: the
        passes side by side, or their means, as `test.refinement` says."""
        context, test = self.context(features, limits), self.detector.config.test
        rounds, there = [], []
        for _ in range(test.refinement_passes + 1):
            scores, boxes = self.classify(features, regions, context)
            rounds.append((scores, boxes))
            there.append(valid)
            regions = clip_boxes_to(likeliest_boxes(scores, boxes), limits[:, None])
            valid = valid & nonempty_boxes(regions) & are_refined(scores, test.refine_scores)
        if test.refinement == "average" and len(rounds) > 1:
            return mean_of_passes(rounds, there)
        united_scores, united_boxes = (torch.cat(parts, dim=1) for parts in zip(*rounds, strict=True))
        return united_scores.masked_fill(~torch.cat(there, dim=1)[..., None], -torch.inf), united_boxes

    def classify(self, features: Sequence[Tensor], regions: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Class probabilities (N, P, K), background left out, and one box per class (N, P, K, 4), not clipped, of (N, P, 4)."""
        head, num_regions = self.detector.roi_head, regions.shape[1]
        vectors = head.conv5(self.pool(features, regions))
        context_per_roi = None if context is None else context.repeat_interleave(num_regions, dim=0)
        logits, deltas = head.logits_and_deltas(vectors, context_per_roi)
        scores, boxes = head.decode(logits, deltas, regions.flatten(0, 1))
        return scores.unflatten(0, (-1, num_regions)), boxes.unflatten(0, (-1, num_regions))

    def context(self, features: Sequence[Tensor], limits: Tensor) -> Tensor | None:
        """The whole images' vectors (N, D). None where the config asks for no context."""
        if not self.detector.roi_head.config.context:
            return None
        whole_images = F.pad(limits[:, None, :2], (2, 0))  # (N, 1, 4)
        return self.detector.roi_head.conv5(self.pool(features, whole_images))

    def pool(self, features: Sequence[Tensor], regions: Tensor) -> Tensor:
        """The regions' cells (N * P, C, S, S) from L maps (N, C, H, W) and regions (N, P, 4), each from the map of its size."""
        images = torch.arange(regions.shape[0], device=regions.device, dtype=regions.dtype)
        rois = torch.cat([images[:, None, None].expand(-1, regions.shape[1], 1), regions], dim=2).flatten(0, 1)
        return self.pool_rois(features, rois, self.detector.roi_head.config.pool_size)

    def pool_rois(self, features: Sequence[Tensor], rois: Tensor, pool_size: int) -> Tensor:
        """The cells (R, C, S, S) of regions of any images. `rois` (R, 5): the image's index, then the box."""
        strides = self.detector.roi_head.strides
        if len(strides) == 1:
            return self.pool_map(features[0], rois, strides[0], pool_size)
        levels, cells = levels_of(rois[:, 1:], strides), None
        for level, (each, stride) in enumerate(zip(features, strides, strict=False)):  # P6 is not pooled from
            members = (levels == level).nonzero().squeeze(1)
            pooled = self.pool_map(each, rois[members], stride, pool_size)
            cells = pooled.new_zeros((rois.shape[0], *pooled.shape[1:])) if cells is None else cells
            cells = cells.index_put((members,), pooled)
        assert cells is not None
        return cells

    def pool_map(self, features: Tensor, rois: Tensor, stride: int, pool_size: int) -> Tensor:
        """The cells (R, C, S, S) of the regions (R, 5) of one map (N, C, H, W)."""
        config = self.detector.roi_head.config
        if not config.aligned:
            rois = torch.cat([rois[:, :1], unaligned_boxes(rois[:, 1:], stride)], dim=1)
        if config.pooling == "max":
            return ops.roi_pool(features, rois, pool_size, 1 / stride)
        return ops.roi_align(features, rois, pool_size, 1 / stride, config.sampling_ratio, aligned=True)

    def segment(self, mask_head: MaskHead, features: Sequence[Tensor], found: Sequence[Tensor]) -> Tensor:
        """The masks (D, M, M) of what `select` found, as `FasterRCNN.segment`: each box is pooled again."""
        boxes, _, labels, image_index = found
        # With two more than the largest number that torch.export takes D for, ONNX would have a constant beyond 64 bits.
        torch._check(boxes.shape[0] <= MAX_DETECTIONS)
        # Two empty regions at the end, whose masks are dropped: not every runtime's convolutions take none.
        rois = F.pad(torch.cat([image_index[:, None].to(boxes.dtype), boxes], dim=1), (0, 0, 0, 2))
        head = self.detector.roi_head
        if mask_head.pool_size is None:
            maps = head.conv5.maps(self.pool_rois(features, rois, head.config.pool_size))
        else:
            maps = self.pool_rois(features, rois, mask_head.pool_size)
        return mask_probabilities(mask_head(maps), F.pad(labels, (0, 2)))[:-2]

    def select(self, scores: Tensor, boxes: Tensor, limits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Threshold, NMS in each class and the top detections of each image, as `detection.inference.select.select`."""
        test, num_classes = self.detector.config.test, scores.shape[2]
        boxes = clip_boxes_to(boxes, limits[:, None, None])
        eligible = scores > self.detector.score_threshold
        if test.min_size:
            eligible = eligible & nonempty_boxes(boxes, test.min_size)
        scores = scores.masked_fill(~eligible, -torch.inf)
        boxes_by_class = boxes.transpose(1, 2).flatten(0, 1)  # (N * K, P, 4)
        scores_by_class = scores.transpose(1, 2).flatten(0, 1)  # (N * K, P)
        kept = self.nms(boxes_by_class, scores_by_class, test.nms_threshold, test.max_detections)
        kept = kept.unflatten(0, (-1, num_classes)).transpose(1, 2)
        scores = scores.masked_fill(~kept, -torch.inf).flatten(1)
        best_scores, best = scores.topk(min(test.max_detections, scores.shape[1]))
        found = (best_scores > -torch.inf) & nonempty_boxes(_at(boxes.flatten(1, 2), best))
        image_index, place = found.nonzero(as_tuple=True)
        best = best[image_index, place]
        return boxes.flatten(1, 2)[image_index, best], best_scores[image_index, place], best % num_classes, image_index


class BackboneGraph(nn.Module):
    """A backbone with its preprocessing: images uint8 RGB (N, 3, H, W) -> its feature maps, in the order of their names."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone: Backbone = frozen_copy(backbone)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The feature maps of images (N, 3, H, W) uint8."""
        return tuple(self.backbone(self.backbone.preprocessing.normalize(images)).values())


class PickingConv2d(nn.Conv2d):
    """A 1x1 convolution with a stride as two steps: pick the pixels, then convolve all of them.

    Of a graph in int8 OpenVINO would divide a strided one so itself, too late for int8: it would compute it in float32.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, O, H/stride, W/stride), rounded up."""
        return F.conv2d(F.max_pool2d(x, 1, self.stride), self.weight, self.bias, groups=self.groups)


def frozen_copy(network: Network) -> Network:
    """A copy of a network for inference on the CPU, with layers that runtimes take as they are.

    Its frozen norms become torch's own, as ours branch on the input's size, and its strided 1x1 convolutions `PickingConv2d`.
    """
    network = copy.deepcopy(network).cpu().eval().requires_grad_(False)
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, FrozenBatchNorm2d):
                setattr(parent, name, plain_norm(child))
            elif _picks_pixels(child):
                setattr(parent, name, picking_conv(child))
    return network


def _picks_pixels(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    if not isinstance(layer, nn.Conv2d) or type(layer) not in (nn.Conv2d, Conv2d):  # other classes may compute other things
        return False
    return layer.kernel_size == (1, 1) and layer.stride != (1, 1) and layer.padding == (0, 0)


def picking_conv(conv: nn.Conv2d) -> PickingConv2d:
    """A strided 1x1 convolution as two steps, with the same parameters."""
    stride = conv.stride[0], conv.stride[1]
    with torch.device("meta"):
        picking = PickingConv2d(conv.in_channels, conv.out_channels, 1, stride, groups=conv.groups, bias=conv.bias is not None)
    picking.load_state_dict(conv.state_dict(), assign=True)
    return picking.eval().requires_grad_(False)


def plain_norm(frozen: FrozenBatchNorm2d) -> nn.BatchNorm2d:
    """torch's own batch norm in evaluation mode, with the constants of a frozen one."""
    plain = nn.BatchNorm2d(len(frozen.weight), frozen.eps)
    plain.load_state_dict(frozen.state_dict() | {"num_batches_tracked": torch.tensor(0, device="cpu")})
    return plain.eval().requires_grad_(False)


def mean_of_passes(rounds: Sequence[tuple[Tensor, Tensor]], there: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Scores (N, P, K) and boxes (N, P, K, 4) of the passes -> their means over those in which a region is `there` (N, P).

    A place with nothing in it has the score -inf.
    """
    counts = torch.stack([each.float() for each in there]).sum(dim=0)[..., None]
    shares = [each[..., None] / counts.clamp(min=1) for each in there]
    scores = torch.stack([scores * share for (scores, _), share in zip(rounds, shares, strict=True)]).sum(dim=0)
    boxes = torch.stack([boxes * share[..., None] for (_, boxes), share in zip(rounds, shares, strict=True)]).sum(dim=0)
    return scores.masked_fill(counts == 0, -torch.inf), boxes


def best_of_each_map(logits: Tensor, counts: Sequence[int], limit: int) -> tuple[Tensor, Tensor]:
    """The best `limit` anchors of each of L maps by descending logit, as `detection.modeling.rpn.best_of_maps`: logits
    (N, M), of each map `counts` -> logits (N, L, limit) and places among the M (N, L, limit).

    Where a map has fewer anchors, the rest have the logit -inf and any place.
    """
    scores, places, start = [], [], 0
    for part, count in zip(logits.split(list(counts), dim=1), counts, strict=True):
        # A small image has fewer anchors than top-k asks for: pad, so that there are always enough.
        best_scores, best = F.pad(part, (0, limit), value=-torch.inf).topk(limit)
        scores.append(best_scores)
        places.append(best.clamp(max=count - 1) + start)
        start = start + count
    return torch.stack(scores, dim=1), torch.stack(places, dim=1)


def _at(boxes: Tensor, index: Tensor) -> Tensor:
    """Each image's boxes at the given places: (N, M, 4) and (N, P) -> (N, P, 4)."""
    return boxes.gather(1, index[..., None].expand(-1, -1, 4))
