"""The head that runs on every RoI: pooling, conv5, and the two sibling layers (Fast R-CNN; appendices A and B).

What is called conv5 here is whatever makes a vector of a RoI's cells: on a pyramid it is two fully connected layers.

A RoI, or region, is any box to classify: a proposal, a refined box, a whole image.

N images, L feature maps, one for C4 and several for a pyramid, P RoIs of one image, R RoIs of all images, S x S cells and D
features per RoI, K classes; background is class K, and `roi.unused_outputs` may follow it: C outputs in all, K + 1 or more.
Boxes: xyxy pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.base import MapToPool, RegionHead
from backbones.blocks import global_average
from detection.config import Pooling, RoiConfig
from detection.modeling.boxes import decode_boxes, encode_boxes
from detection.modeling.fixed_sizes import counts_of_finite, masked_smooth_l1
from detection.modeling.levels import levels_of, pool_at_chosen
from detection.modeling.mask_head import MaskHead, mask_loss, mask_targets
from detection.modeling.matching import IGNORED
from detection.modeling.roi_align import roi_align
from detection.modeling.roi_max_pool import roi_max_pool
from detection.modeling.sampled_rois import SampledRois, draw_rois, of_labels, refined_rois
from detection.structures import Target

Begun = list[tuple[MapToPool, ...]]
"""What conv5 makes of the feature maps before pooling: for each of its own maps, that of every level."""


class RoiHead(nn.Module):
    """Classifies RoIs and regresses one box per class; with a mask head, predicts one mask per class, too."""

    def __init__(
        self,
        conv5: RegionHead,
        strides: Sequence[int],
        num_classes: int,
        config: RoiConfig,
        mask_head: MaskHead | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.strides = tuple(strides)
        self.num_classes = num_classes
        self.conv5 = conv5
        # With context, the columns after the RoI's own D are for the vector of the whole image.
        width = 2 * conv5.channels if config.context else conv5.channels
        self.class_scores = nn.Linear(width, num_classes + 1 + config.unused_outputs)
        self.box_deltas = nn.Linear(width, num_classes * 4)
        nn.init.normal_(self.class_scores.weight, std=0.01)
        nn.init.normal_(self.box_deltas.weight, std=0.001)
        nn.init.zeros_(self.class_scores.bias)
        nn.init.zeros_(self.box_deltas.bias)
        self.mask_head = mask_head

    def forward(
        self, features: Sequence[Tensor], rois: Sequence[Tensor], sizes_hw: Sequence[tuple[int, int]]
    ) -> tuple[Tensor, Tensor]:
        """Class logits (R, C) and deltas (R, K, 4), both float32, from L maps (N, C, H, W) and RoIs N x (P, 4)."""
        vectors = self.vectors(features, rois)
        return self.logits_and_deltas(vectors, self.context_per_roi(self.context(features, sizes_hw), rois))

    def begin(self, features: Sequence[Tensor]) -> Begun | None:
        """What conv5 makes of L maps (N, C, H, W) before pooling; None where all of it comes after pooling.

        `vectors`, `maps` and `mask_maps` of the same maps take it, so that it is computed once for all of them.
        """
        if self.config.pooling != "align" or features[0].device.type != "cpu":
            return None
        # RoIAlign is linear, so conv5 may begin before it. (The GPU's operator cannot leave out cells.)
        levels = [self.conv5.before_pooling(each) for each in features[: len(self.strides)]]
        return list(zip(*levels, strict=True))

    def vectors(self, features: Sequence[Tensor], rois: Sequence[Tensor], begun: Begun | None = None) -> Tensor:
        """conv5's vector of each RoI: L maps (N, C, H, W) and N x (P, 4) -> (R, D). `begun`: what `begin` gave, if asked."""
        return self._of_rois(features, rois, begun, self.conv5, self.conv5.after_pooling)

    def maps(self, features: Sequence[Tensor], rois: Sequence[Tensor], begun: Begun | None = None) -> Tensor:
        """conv5's maps of each RoI, (R, D, S, S), of which `vectors` are the averages. Raises BackboneError if it has none."""
        return self._of_rois(features, rois, begun, self.conv5.maps, self.conv5.maps_after_pooling)

    def _of_rois(
        self,
        features: Sequence[Tensor],
        rois: Sequence[Tensor],
        begun: Begun | None,
        whole: Callable[[Tensor], Tensor],
        rest: Callable[[Sequence[Tensor]], Tensor],
    ) -> Tensor:
        """What conv5 makes of the RoIs: as a whole after pooling, or the rest of it where some of it comes before pooling."""
        begun = self.begin(features) if begun is None else begun
        if begun is None:
            return whole(self.pool(features, rois))
        return rest([self.pool([level.features for level in levels], rois, levels[0].cell_stride) for levels in begun])

    def pool(
        self, features: Sequence[Tensor], rois: Sequence[Tensor], cell_stride: int = 1, pool_size: int | None = None
    ) -> Tensor:
        """The cells of each RoI, L maps (N, C, H, W) and N x (P, 4) -> (R, C, S, S), in the order of the RoIs; of the cells
        along both axes only each `cell_stride`-th one. Each RoI is pooled from the map that suits its size.

        `pool_size`: cells along each axis, by default the config's."""
        config = self.config
        size = config.pool_size if pool_size is None else pool_size

        def pool(level: int, images: Sequence[int], boxes: Sequence[Tensor]) -> Tensor:
            # Every map, and no region of the other images: to choose maps by number, the numbers would go to the GPU.
            maps, stride = features[level], self.strides[level]
            of_image = dict(zip(images, boxes, strict=True))
            boxes = [of_image.get(image, boxes[0][:0]) for image in range(len(maps))]
            if not config.aligned:
                boxes = [unaligned_boxes(each, stride) for each in boxes]
            return pool_rois(maps, boxes, size, stride, config.pooling, config.sampling_ratio, cell_stride)

        if len(self.strides) == 1:
            return pool(0, range(len(rois)), rois)
        if not any(len(boxes) for boxes in rois):
            return features[0].new_zeros((0, features[0].shape[1], -(-size // cell_stride), -(-size // cell_stride)))
        return pool_at_chosen(pool, rois, [levels_of(boxes, self.strides) for boxes in rois], len(self.strides))

    def context(self, features: Sequence[Tensor], sizes_hw: Sequence[tuple[int, int]]) -> Tensor | None:
        """One vector per image, (N, D): the whole image as a RoI. None where the config asks for no context."""
        if not self.config.context:
            return None
        # Not by `vectors`: for one RoI per image it is cheaper to pool before conv5 begins.
        return self.conv5(self.pool(features, [whole_image_box(size_hw, features[0].device) for size_hw in sizes_hw]))

    def context_per_roi(self, context: Tensor | None, rois: Sequence[Tensor]) -> Tensor | None:
        """Each RoI's vector of its whole image: (N, D) and N x (P, 4) -> (R, D). None stays None."""
        if context is None:
            return None
        rows = []  # by `expand`, which takes the numbers of RoIs from the shapes: on a GPU nothing is waited for
        for vector, boxes in zip(context, rois, strict=True):
            rows.append(vector.expand(len(boxes), -1))
        return torch.cat(rows)

    def logits_and_deltas(self, vectors: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """The sibling layers: (R, D) and, with context, (R, D) -> logits (R, C) and deltas (R, K, 4), float32."""
        if context is not None:
            vectors = torch.cat([vectors, context], dim=1)
        deltas = self.box_deltas(vectors).float().reshape(-1, self.num_classes, 4)
        return self.class_scores(vectors).float(), deltas

    def decode(self, logits: Tensor, deltas: Tensor, rois: Tensor) -> tuple[Tensor, Tensor]:
        """Class probabilities (R, K), background left out, and one box per class (R, K, 4), not clipped.

        From logits (R, C) and deltas (R, K, 4) of the RoIs (R, 4).
        """
        boxes = decode_boxes(deltas, rois[:, None], self.config.delta_std)
        return logits.softmax(dim=1)[:, : self.num_classes], boxes

    def mask_maps(self, features: Sequence[Tensor], rois: Sequence[Tensor], begun: Begun | None = None) -> Tensor:
        """What the mask head works on: conv5's maps of each RoI, or cells of its own, (R, C, S, S)."""
        assert self.mask_head is not None, "asked for by nobody else"
        if self.mask_head.pool_size is None:
            return self.maps(features, rois, begun)
        return self.pool(features, rois, pool_size=self.mask_head.pool_size)

    def mask_loss(
        self,
        mask_head: MaskHead,
        features: Sequence[Tensor],
        maps: Tensor | None,
        samples: Sequence[SampledRois],
        targets: Sequence[Target],
    ) -> Tensor:
        """Sigmoid cross-entropy of the masks of the sampled foreground RoIs. `maps`: conv5's of all of the sample, or None."""
        foreground = [(sample.labels < self.num_classes).nonzero().squeeze(1) for sample in samples]
        rois, labels, matched = (
            [part[own] for part, own in zip(parts, foreground, strict=True)]
            for parts in zip(*((sample.rois, sample.labels, sample.matched) for sample in samples), strict=True)
        )
        if maps is None:
            maps = self.mask_maps(features, rois)
        else:
            # No second pass of conv5: these regions went through it for their boxes already.
            maps = maps[(torch.cat([sample.labels for sample in samples]) < self.num_classes).nonzero().squeeze(1)]
        logits = mask_head(maps)
        wanted = [
            mask_targets(target.masks, own, objects, logits.shape[-1], mask_head.config.targets)
            for target, own, objects in zip(targets, rois, matched, strict=True)
        ]
        shares, known = (torch.cat(parts) for parts in zip(*wanted, strict=True))
        return mask_loss(logits, torch.cat(labels), shares, known)

    def losses(
        self,
        features: Sequence[Tensor],
        proposals: Sequence[Tensor],
        sizes_hw: Sequence[tuple[int, int]],
        targets: Sequence[Target],
    ) -> dict[str, Tensor]:
        """Classification (cross-entropy) and box regression (smooth L1), both averaged over the sampled RoIs; with a mask head
        its loss, too, averaged over those of them whose masks are known.

        With `roi.refined_iou` the boxes that come out are classified and regressed again, and half of either loss is theirs.
        """
        samples = self.sample_rois(proposals, targets)
        rois = [sample.rois for sample in samples]
        begun = self.begin(features)
        maps = self.maps(features, rois, begun) if self.mask_head and self.mask_head.pool_size is None else None
        vectors = self.vectors(features, rois, begun) if maps is None else global_average(maps)
        context = self.context(features, sizes_hw)
        logits, deltas = self.logits_and_deltas(vectors, self.context_per_roi(context, rois))
        class_loss, box_loss = self.losses_of(logits, deltas, samples, targets)
        # An image may leave nothing to sample; the sum over no RoI is a zero that still has a gradient.
        num_sampled = max(len(logits), 1)
        losses = {"loss_class": class_loss / num_sampled, "loss_box": box_loss / num_sampled}
        if self.config.refined_iou:
            refined = refined_rois(samples, logits, deltas, sizes_hw, targets, self.config)
            losses = halved(losses | self._refined_losses(features, refined, context, targets, begun))
        if self.mask_head is not None:
            losses["loss_mask"] = self.mask_loss(self.mask_head, features, maps, samples, targets)
        return losses

    def _refined_losses(
        self,
        features: Sequence[Tensor],
        samples: Sequence[SampledRois],
        context: Tensor | None,
        targets: Sequence[Target],
        begun: Begun | None,
    ) -> dict[str, Tensor]:
        """The two losses of the refined boxes, averaged over those that are not IGNORED."""
        rois = [sample.rois for sample in samples]
        vectors = self.vectors(features, rois, begun)
        logits, deltas = self.logits_and_deltas(vectors, self.context_per_roi(context, rois))
        class_loss, box_loss = self.losses_of(logits, deltas, samples, targets)
        num_counted = torch.cat([sample.labels != IGNORED for sample in samples]).sum().clamp(min=1)
        return {"loss_class_refined": class_loss / num_counted, "loss_box_refined": box_loss / num_counted}

    def losses_of(
        self, logits: Tensor, deltas: Tensor, samples: Sequence[SampledRois], targets: Sequence[Target]
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy and smooth L1 of logits (R, C) and deltas (R, K, 4), both summed over the RoIs.

        Classes that its image does not know are no part of the softmax of a RoI of background, see `mask_unknown`.
        """
        rois, labels, gt_boxes, _ = (list(part) for part in zip(*samples, strict=True))
        truth = torch.cat(labels)
        wanted = encode_boxes(torch.cat(gt_boxes), torch.cat(rois), self.config.delta_std)
        found = of_labels(deltas, truth.clamp(0, self.num_classes - 1))
        foreground = (truth != IGNORED) & (truth < self.num_classes)
        box_loss = masked_smooth_l1(found, wanted, foreground, self.config.smooth_l1_beta)
        logits = mask_unknown(logits, labels, [target.known for target in targets])
        return F.cross_entropy(logits, truth, reduction="sum", ignore_index=IGNORED), box_loss

    @torch.no_grad()
    def sample_rois(self, proposals: Sequence[Tensor], targets: Sequence[Target]) -> list[SampledRois]:
        """The RoIs of each image that enter the loss, from proposals N x (P, 4).

        The ground-truth boxes are proposals too: early in training they are the only good ones.
        """
        drawn = [
            draw_rois(boxes, target, self.config, self.num_classes) for boxes, target in zip(proposals, targets, strict=True)
        ]
        # conv5 works on none but sampled ones; a GPU is asked for all images' numbers at once.
        counts = counts_of_finite([sampled.sum() for _, sampled in drawn], None)
        return [SampledRois(*(part[:count] for part in rois)) for (rois, _), count in zip(drawn, counts, strict=True)]


def halved(losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The losses of two passes, so that their sum is the passes' mean."""
    return {name: loss / 2 for name, loss in losses.items()}


def mask_unknown(logits: Tensor, labels: Sequence[Tensor], known: Sequence[Tensor | None]) -> Tensor:
    """The logits (R, C) with -inf, in background's RoIs, for the classes that their image does not know: that one of these is
    there is neither right nor wrong, so they get no gradient. A RoI with an object shows no other class, known or not.

    `labels`: N x (P,) of the RoIs; `known`: N x (K,) bool, or None for all classes. The same tensor where all images know all.
    """
    masks = [mask for mask in known if mask is not None]
    if not masks:
        return logits
    every, num_others = torch.ones_like(masks[0]), logits.shape[1] - len(masks[0])
    rows = [F.pad(every if mask is None else mask, (0, num_others), value=True) for mask in known]
    # `expand` takes the numbers of RoIs from the shapes: on a GPU nothing is waited for.
    counted = torch.cat([row.expand(len(own), -1) for row, own in zip(rows, labels, strict=True)])
    counted |= (torch.cat(list(labels)) < len(masks[0]))[:, None]
    return logits.masked_fill(~counted, float("-inf"))


def unaligned_boxes(rois: Tensor, stride: int) -> Tensor:
    """The RoIs (P, 4) from which RoIAlign takes what its first form, without the half-pixel offset, takes from these: half a
    feature further, and at least one feature wide and high."""
    corner = rois[:, :2] + stride / 2
    return torch.cat([corner, corner + (rois[:, 2:] - rois[:, :2]).clamp(min=stride)], dim=1)


def whole_image_box(size_hw: tuple[int, int], device: torch.device) -> Tensor:
    """The box of a whole image, (1, 4) float32."""
    height, width = size_hw
    box = torch.zeros((1, 4), dtype=torch.float32, device=device)
    box[:, 2].fill_(width)
    box[:, 3].fill_(height)
    return box


def pool_rois(
    features: Tensor,
    rois: Sequence[Tensor],
    output_size: int,
    stride: int,
    pooling: Pooling,
    sampling_ratio: int = 0,
    cell_stride: int = 1,
) -> Tensor:
    """The cells of each RoI: (N, C, H, W) and N x (P, 4) -> (R, C, S, S). Differentiable in the features.

    `stride` is pixels / features. A RoI has `output_size` cells per side; each `cell_stride`-th of them is computed, from the
    first on, as a convolution of that stride takes them: S is output_size / cell_stride, rounded up.

    "max": Fast R-CNN's RoI max pooling, cells rounded to whole features. "align": RoIAlign with continuous cells, the
    mean of sampling_ratio^2 bilinear samples each (0: one sample per feature).
    """
    boxes_float32 = [boxes.float() for boxes in rois]
    if features.device.type == "cpu":
        if pooling == "max":
            return roi_max_pool(features, boxes_float32, output_size, 1 / stride, cell_stride)
        return roi_align(features, rois, output_size, 1 / stride, sampling_ratio, cell_stride)
    from torchvision import ops  # slow to import, and a CPU needs none of it

    # Its kernels are fast on a GPU, but know fp32 and fp16 only.
    with torch.autocast(features.device.type, enabled=False):
        if pooling == "max":
            pooled = ops.roi_pool(features.float(), boxes_float32, output_size, 1 / stride)
        else:
            pooled = ops.roi_align(features.float(), boxes_float32, output_size, 1 / stride, sampling_ratio, aligned=True)
    return pooled[:, :, ::cell_stride, ::cell_stride].to(features.dtype)
