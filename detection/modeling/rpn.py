"""Region Proposal Network (Faster R-CNN, section 3.1).

N images, L feature maps with C channels, one for C4 and several for a pyramid; H x W cells of a map, A anchors per cell, M
anchors per image: H * W * A of each map, map by map. Boxes: xyxy pixels.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.convolution import Conv2d
from detection.config import RpnConfig
from detection.modeling.anchors import anchors_of_maps, centered_on_image, grid_anchors, inside_image
from detection.modeling.boxes import clip_boxes, decode_boxes, encode_boxes, nonempty_boxes
from detection.modeling.fixed_sizes import are_finite, counts_of_finite, masked_smooth_l1, places_of
from detection.modeling.levels import joined
from detection.modeling.matching import POSITIVE, ignore_covered, match_anchors, sample_matches
from detection.modeling.nms import batched_nms, nms
from detection.structures import Target


@dataclass(frozen=True)
class RpnOutput:
    """What the network predicts for every anchor of N images."""

    logits: Tensor  # (N, M) float32: objectness before the sigmoid
    deltas: Tensor  # (N, M, 4) float32
    anchors: Tensor  # (M, 4)
    counts: tuple[int, ...]  # L: how many of the M are of each map
    maps: tuple[Tensor, ...] | None = None  # L, what the last 3x3 convolution takes, where the rest has no gradient


@dataclass(frozen=True)
class RpnCandidates:
    """What may enter NMS of one image, C boxes."""

    boxes: Tensor  # (C, 4), clipped
    scores: Tensor  # (C,): objectness before the sigmoid
    levels: Tensor | None  # (C,): the map of each; None where there is one
    valid: Tensor  # (C,) bool: large enough, and not on padding


class RegionProposalNetwork(nn.Module):
    """3x3 convolutions, one in the paper, and two sibling 1x1 convolutions, and how their outputs become proposals and losses.

    All settings, the numbers of proposals too, are those of `config`.
    """

    def __init__(self, in_channels: int, strides: Sequence[int], config: RpnConfig) -> None:
        super().__init__()
        self.config = config
        self.strides = tuple(strides)
        cell_anchors = anchors_of_maps(self.strides, config)
        self.register_buffer("cell_anchors", cell_anchors, persistent=False)
        num_anchors = cell_anchors.shape[1]
        self.conv = Conv2d(in_channels, config.channels, 3, padding=1)
        self.more_convs = nn.ModuleList(Conv2d(config.channels, config.channels, 3, padding=1) for _ in range(config.convs - 1))
        self.objectness = nn.Conv2d(config.channels, num_anchors, 1)
        self.deltas = nn.Conv2d(config.channels, num_anchors * 4, 1)
        for layer in (self.conv, *self.more_convs, self.objectness, self.deltas):
            nn.init.normal_(layer.get_parameter("weight"), std=0.01)
            nn.init.constant_(layer.get_parameter("bias"), 0)

    def forward(self, features: Sequence[Tensor]) -> RpnOutput:
        """Objectness and deltas of all anchors, from L feature maps (N, C, H, W).

        In training on maps that are not small they have no gradient: `losses` computes those of the sampled anchors again.
        """
        maps = tuple(self._before_last_conv(each) for each in features)
        again = self.training and self._pays_again(sum(each.shape[2] * each.shape[3] for each in features))
        with torch.no_grad() if again else nullcontext():
            logits, deltas = (joined(parts, dim=1) for parts in zip(*map(self._predict, maps), strict=True))
        anchors = self._anchors([(each.shape[2], each.shape[3]) for each in features])
        # Not by `len`, which would fix the size of an exported graph.
        counts = tuple(each.shape[0] for each in anchors)
        return RpnOutput(logits.float(), deltas.float(), joined(anchors), counts, maps if again else None)

    def _pays_again(self, num_cells: int) -> bool:
        """Whether it is less to compute the sampled anchors again, forward and backward, than a gradient for all cells."""
        return 3 * self.config.sample_size < 2 * num_cells

    def _anchors(self, sizes_hw: Sequence[tuple[int, int]]) -> list[Tensor]:
        """The anchors (H * W * A, 4) of each map, from the maps' sizes."""
        cells = zip(self.get_buffer("cell_anchors"), self.strides, sizes_hw, strict=True)
        if not self.config.round_anchors:
            return [grid_anchors(cell, stride, size_hw) for cell, stride, size_hw in cells]
        # P6 of an odd P5 has half a cell more than the image: its cells are put closer together.
        height, width = (side * self.strides[0] for side in sizes_hw[0])
        return [grid_anchors(cell, stride, (h, w), (height // h, width // w)) for cell, stride, (h, w) in cells]

    @property
    def _last_conv(self) -> Conv2d:
        conv = self.more_convs[-1] if len(self.more_convs) else self.conv
        assert isinstance(conv, Conv2d)
        return conv

    def _before_last_conv(self, features: Tensor) -> Tensor:
        for conv in (self.conv, *self.more_convs)[:-1]:
            features = conv(features, relu=True)
        return features

    def _predict(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Objectness and deltas of the anchors of one map, from what the last 3x3 convolution takes:
        (N, C, H, W) -> (N, H * W * A) and (N, H * W * A, 4)."""
        hidden = self._last_conv(features, relu=True)
        # Channels are A (or A * 4); the anchors run cell by cell, so channels go last.
        logits = self.objectness(hidden).permute(0, 2, 3, 1).flatten(1)
        return logits, self.deltas(hidden).permute(0, 2, 3, 1).reshape(features.shape[0], -1, 4)

    def at_anchors(self, output: RpnOutput, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Objectness (N, S) and deltas (N, S, 4), float32, of some of the anchors: `chosen` (N, S) among the M of each image.

        Where the output holds maps they are computed again from the cells' neighbourhoods. A loss of a few hundred anchors then
        has no gradient the size of whole maps, whose way back through the convolutions is what takes the RPN's time.
        """
        if output.maps is None:
            return output.logits.gather(1, chosen), output.deltas.gather(1, chosen[..., None].expand(-1, -1, 4))
        num_anchors, conv = self.objectness.out_channels, self._last_conv
        neighbourhoods = neighbourhoods_of(output.maps, chosen.div(num_anchors, rounding_mode="floor"))
        hidden = F.relu(F.linear(neighbourhoods.flatten(2), conv.weight.permute(0, 2, 3, 1).flatten(1), conv.bias))
        logits = F.linear(hidden, self.objectness.weight.flatten(1), self.objectness.bias).float()
        deltas = F.linear(hidden, self.deltas.weight.flatten(1), self.deltas.bias).float().unflatten(2, (num_anchors, 4))
        own = (chosen % num_anchors)[..., None]
        return logits.gather(2, own).squeeze(2), deltas.gather(2, own[..., None].expand(-1, -1, -1, 4)).squeeze(2)

    def training_proposals(self, output: RpnOutput, sizes_hw: Sequence[tuple[int, int]]) -> list[Tensor]:
        """The proposals that the RoI head samples from in training: N x (P, 4), P <= config.post_nms_train."""
        return self.proposals(output, sizes_hw, self.config.pre_nms_train, self.config.post_nms_train)

    def test_proposals(self, output: RpnOutput, sizes_hw: Sequence[tuple[int, int]]) -> list[Tensor]:
        """The proposals that inference classifies: N x (P, 4), P <= config.post_nms_test. Raises CheckpointError for an output
        that is not finite."""
        finite = are_finite([output.logits, output.deltas])
        return self.proposals(output, sizes_hw, self.config.pre_nms_test, self.config.post_nms_test, finite)

    @torch.no_grad()
    def proposals(
        self,
        output: RpnOutput,
        sizes_hw: Sequence[tuple[int, int]],
        pre_nms: int,
        post_nms: int,
        finite: Tensor | None = None,
    ) -> list[Tensor]:
        """The best boxes of each image after NMS, by descending score: N x (P, 4) with P <= post_nms.

        Raises CheckpointError where `finite`, (), is given and false.
        """
        found = [
            self._candidates(RpnOutput(logits, deltas, output.anchors, output.counts), size_hw, pre_nms)
            for logits, deltas, size_hw in zip(output.logits, output.deltas, sizes_hw, strict=True)
        ]
        # The numbers of all images at once: a GPU is waited for once.
        counts = counts_of_finite([candidates.valid.sum() for candidates in found], finite)
        return [self._survivors(candidates, count, post_nms) for candidates, count in zip(found, counts, strict=True)]

    def _candidates(self, output: RpnOutput, size_hw: tuple[int, int], pre_nms: int) -> RpnCandidates:
        """What may enter NMS of one image, whose output has no first axis: the best `pre_nms` of each map."""
        height, width = size_hw
        logits = self.mask_padding(output.logits, output.anchors, height, width)
        best, levels = best_of_maps(logits, output.counts, pre_nms)
        boxes = clip_boxes(decode_boxes(output.deltas[best], output.anchors[best]), size_hw)
        scores = logits[best]
        return RpnCandidates(boxes, scores, levels, nonempty_boxes(boxes, self.config.min_size) & (scores > -torch.inf))

    def _survivors(self, candidates: RpnCandidates, count: int, post_nms: int) -> Tensor:
        """The best `post_nms` after NMS among the `count` valid candidates of an image: (P, 4)."""
        chosen = places_of(candidates.valid, count)
        boxes, scores = candidates.boxes[chosen], candidates.scores[chosen]
        levels = None if candidates.levels is None else candidates.levels[chosen]
        return boxes[self.suppress(boxes, scores, levels)[:post_nms]]

    def suppress(self, boxes: Tensor, scores: Tensor, levels: Tensor | None = None) -> Tensor:
        """NMS among proposals (P, 4), of each map by themselves where `levels` (P,) says which they are of: indices of those
        that stay, by descending score (P,)."""
        if levels is None:
            return nms(boxes, scores, self.config.nms_threshold)
        return batched_nms(boxes, scores, levels, self.config.nms_threshold)

    def mask_padding(self, logits: Tensor, anchors: Tensor, height: int | Tensor, width: int | Tensor) -> Tensor:
        """Objectness logits (M,) with -inf for anchors on a batch's padding, unless the config lets them be proposed.

        For N images at once the logits are (N, M), and `height` and `width` are tensors (N, 1).
        """
        # Such anchors would be clipped to slivers at the image's border.
        if self.config.anchors_on_padding:
            return logits
        return logits.masked_fill(~centered_on_image(anchors, height, width), -torch.inf)

    def losses(self, output: RpnOutput, sizes_hw: Sequence[tuple[int, int]], targets: Sequence[Target]) -> dict[str, Tensor]:
        """Objectness (logistic) and box regression (smooth L1), both averaged over the sampled anchors."""
        config = self.config
        matches = [self.match(output.anchors, target, size_hw) for target, size_hw in zip(targets, sizes_hw, strict=True)]
        match_labels, matched = (torch.stack(parts) for parts in zip(*matches, strict=True))
        chosen, sampled = sample_matches(match_labels, config.sample_size, config.positive_fraction)
        positive = (match_labels.gather(1, chosen) == POSITIVE) & sampled
        # What is not sampled weighs nothing. To leave it out, a GPU would have to be asked how much that is.
        logits, deltas = self.at_anchors(output, chosen)
        objectness = F.binary_cross_entropy_with_logits(logits, positive.float(), weight=sampled.float(), reduction="sum")
        box_loss = self._box_loss(deltas, output.anchors[chosen], positive, matched.gather(1, chosen), targets)
        # Divide by the sample size, not the positive count: both terms keep one scale.
        fixed = config.average_over == "sample_size"
        num_sampled = config.sample_size * len(targets) if fixed else sampled.sum().clamp(min=1)
        return {"loss_rpn_objectness": objectness / num_sampled, "loss_rpn_box": box_loss / num_sampled}

    def _box_loss(
        self, deltas: Tensor, anchors: Tensor, positive: Tensor, matched: Tensor, targets: Sequence[Target]
    ) -> Tensor:
        """Smooth L1, summed over the positive ones of anchors (N, S, 4) that are each matched to a box of its image."""
        boxes = torch.cat([target.boxes for target in targets])
        if not len(boxes):
            return deltas.sum() * 0  # a zero with a gradient
        starts = itertools.accumulate((len(target.boxes) for target in targets[:-1]), initial=0)
        rows = [own + start for own, start in zip(matched, starts, strict=True)]
        # An image without boxes has no positive: any box stands for its own.
        wanted = encode_boxes(boxes[torch.stack(rows).clamp(max=len(boxes) - 1)], anchors)
        return masked_smooth_l1(deltas, wanted, positive, self.config.smooth_l1_beta)

    def match(self, anchors: Tensor, target: Target, size_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """The match label (M,) of each anchor, and the index (M,) of its box in the target."""
        config, usable = self.config, self._usable(anchors, size_hw)
        match_labels, matched = match_anchors(anchors, target.boxes, config.positive_iou, config.negative_iou, usable)
        return ignore_covered(match_labels, anchors, target.ignored, config.ignore_coverage), matched

    def _usable(self, anchors: Tensor, size_hw: tuple[int, int]) -> Tensor | None:
        """Which anchors may enter the loss: (M, 4) -> (M,) bool. None: all."""
        if self.config.ignore_straddling:
            return inside_image(anchors, size_hw)
        if self.config.anchors_on_padding:
            return None
        height, width = size_hw
        return centered_on_image(anchors, height, width)


def best_of_maps(logits: Tensor, counts: Sequence[int], limit: int) -> tuple[Tensor, Tensor | None]:
    """The places (P,) of the best `limit` anchors of each map, by descending logit (M,), and the map (P,) of each; None where
    there is one map. `counts`: how many of the M anchors are of each map."""
    parts = [part.topk(min(limit, len(part))).indices for part in logits.split(list(counts))]
    if len(parts) == 1:
        return parts[0], None
    starts = [sum(counts[:level]) for level in range(len(counts))]
    places = torch.cat([part + start for part, start in zip(parts, starts, strict=True)])
    return places, torch.cat([torch.full_like(part, level) for level, part in enumerate(parts)])


def neighbourhoods_of(maps: Sequence[Tensor], cells: Tensor) -> Tensor:
    """The 3 x 3 features around cells, 0 beyond a map's border: L maps (N, C, H, W) and cells (N, S) -> (N, S, 9, C).

    The cells of an image are counted through its maps, H * W of each.
    """
    offsets = torch.arange(-1, 2, device=cells.device)
    images = torch.arange(len(cells), device=cells.device)[:, None, None, None]
    found = []
    for features in maps:
        height, width = features.shape[2:]
        on_map = (cells >= 0) & (cells < height * width)
        y = cells.div(width, rounding_mode="floor")[..., None, None] + offsets[:, None]
        x = (cells % width)[..., None, None] + offsets
        inside = on_map[..., None, None] & (y >= 0) & (y < height) & (x >= 0) & (x < width)
        # A place on the map for all of them, so that the number of rows is known without asking.
        rows = torch.where(inside, (images * height + y) * width + x, 0).flatten()
        pixels = features.permute(0, 2, 3, 1).flatten(0, 2).index_select(0, rows)
        found.append(torch.where(inside.flatten()[:, None], pixels, 0))
        cells = cells - height * width
    return torch.stack(found).sum(dim=0).view(*cells.shape, 9, -1)
