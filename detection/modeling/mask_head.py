"""The mask head (Mask R-CNN, He et al. 2017, section 3): a small picture of each object, one for every class.

R regions of all images, F of them foreground, G objects of one image, K classes, M x M cells of a mask. Boxes: xyxy pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detection.config import MaskConfig, MaskTargets
from detection.modeling.operators import native_roi_align


class MaskHead(nn.Module):
    """A region's maps (R, C, S, S) -> logits (R, K, M, M), M = 2 S. R may be 0.

    `convs` keep the maps' size. `pool_size`: S, where the head pools its regions by itself, as on a pyramid; None: it works on
    the maps of which conv5 makes a region's vector, as in C4.
    """

    def __init__(
        self, convs: nn.Module, in_channels: int, num_classes: int, config: MaskConfig, pool_size: int | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.pool_size = pool_size
        self.convs = convs
        self.deconv = nn.ConvTranspose2d(in_channels, config.channels, 2, stride=2)
        self.predictor = nn.Conv2d(config.channels, num_classes, 1)
        nn.init.kaiming_normal_(self.deconv.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.predictor.weight, std=0.001)
        for layer in (self.deconv, self.predictor):
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps of R regions -> the logits of their masks, float32, by class."""
        logits: Tensor = self.predictor(self.deconv(self.convs(maps)).relu())
        return logits.float()


def mask_targets(masks: Tensor | None, rois: Tensor, matched: Tensor, size: int, kind: MaskTargets) -> tuple[Tensor, Tensor]:
    """What the masks of one image's foreground RoIs are to become, (F, size, size) float32, and which are known, (F,) bool.

    `masks` (G, H, W) bool, None where the image has none; `matched` (F,) says which object a RoI (F, 4) is of. Each cell is
    the share of the object in it, by RoIAlign: "soft" as it is, and without the half pixel, as in torchvision; "hard" whether
    it is 0.5 or more, as in detectron2. The mask of an object without a pixel is not known.
    """
    if masks is None or not len(masks) or not len(rois):
        return rois.new_zeros((len(rois), size, size)), torch.zeros(len(rois), dtype=torch.bool, device=rois.device)
    shares = _mask_shares(masks, rois, matched, size, aligned=kind == "hard")
    known = masks.flatten(1).any(dim=1)[matched]
    return (shares >= 0.5).float() if kind == "hard" else shares, known


def _mask_shares(masks: Tensor, rois: Tensor, matched: Tensor, size: int, aligned: bool) -> Tensor:
    """RoIAlign of each RoI (F, 4) in the mask of its own object -> (F, size, size) float32."""
    if masks.device.type != "cpu":
        return native_roi_align(masks[:, None].float(), matched, rois.float(), size, aligned)[:, 0]
    # One object after the other: all of them as numbers would be four times the memory of the masks.
    shares = torch.zeros((len(rois), size, size), dtype=torch.float32, device=rois.device)
    for index in matched.unique().tolist():
        members = (matched == index).nonzero().squeeze(1)
        first = torch.zeros_like(members)
        shares[members] = native_roi_align(masks[index, None, None].float(), first, rois[members].float(), size, aligned)[:, 0]
    return shares


def mask_loss(logits: Tensor, labels: Tensor, targets: Tensor, known: Tensor) -> Tensor:
    """Sigmoid cross-entropy on the channel of the true class, the mean over all cells of the RoIs whose mask is known.

    Logits (F, K, M, M), labels (F,), targets (F, M, M) in [0, 1] and known (F,). Without a known mask it is a zero that still
    has a gradient.
    """
    found = logits[torch.arange(len(labels), device=labels.device), labels]
    losses = F.binary_cross_entropy_with_logits(found, targets, reduction="none").mean(dim=(1, 2))
    # Chosen and not multiplied: an infinite loss of a mask that is not known would be NaN.
    return torch.where(known, losses, 0).sum() / known.sum().clamp(min=1)


def mask_probabilities(logits: Tensor, labels: Tensor) -> Tensor:
    """The mask of each region's class: logits (R, K, M, M) and labels (R,) -> (R, M, M) in [0, 1]."""
    # Not by `len`, which would fix the number in an exported graph.
    return logits[torch.arange(labels.shape[0], device=labels.device), labels].sigmoid()
