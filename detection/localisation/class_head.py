"""The per-class head of both stages (appendix C): for each class one logistic output and one box per anchor.

N images, D feature channels, H x W cells, K classes, A anchors per cell, M = H * W * A anchors in the order of `grid_anchors`:
row by row, in a row cell by cell, in a cell anchor by anchor.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ClassHead(nn.Module):
    """Two sibling 1x1 convolutions, `scores` and `deltas`, whose channels run class by class.

    Channel k * A + a of `scores` is class k at anchor a; channel (k * A + a) * 4 + i of `deltas` its i-th of (dx, dy, dw, dh).
    So a class has its rows side by side, and `of_classes` computes those of some classes alone. Scores start near `prior`.
    With `common`, rows of one more class are added to those of each: what is learnt of a class serves all, also those of
    which there are no images.
    """

    def __init__(
        self, in_channels: int, num_classes: int, num_anchors: int = 1, prior: float = 0.5, *, common: bool = False
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_anchors = num_anchors
        self.scores = nn.Conv2d(in_channels, num_anchors * num_classes, 1)
        self.deltas = nn.Conv2d(in_channels, num_anchors * num_classes * 4, 1)
        nn.init.normal_(self.scores.weight, std=0.01)
        nn.init.normal_(self.deltas.weight, std=0.001)
        nn.init.constant_(self.scores.get_parameter("bias"), math.log(prior / (1 - prior)))
        nn.init.zeros_(self.deltas.get_parameter("bias"))
        self.common = ClassHead(in_channels, 1, num_anchors) if common else None
        if common:  # so that a class without images has what all have in common, and no noise of its own
            nn.init.zeros_(self.scores.weight)
            nn.init.zeros_(self.deltas.weight)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, K, M) and deltas (N, K, M, 4) of all classes, float32, of features (N, D, H, W)."""
        return self._with_common(features, self._by_class(self.scores(features).flatten(2), self.deltas(features).flatten(2)))

    def of_classes(self, features: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward` gives of C classes of each image, computed for these alone.

        Features (N, D, H, W) and labels (N, C) int64 -> logits (N, C, M) and deltas (N, C, M, 4), float32.
        """
        rows = [self._rows(layer, classes) for layer in (self.scores, self.deltas)]
        weight, bias = (torch.cat(parts, dim=1) for parts in zip(*rows, strict=True))
        found = torch.baddbmm(bias, weight, features.flatten(2))  # (N, C * A + C * A * 4, H * W)
        num_scores = classes.shape[1] * self.num_anchors
        return self._with_common(features, self._by_class(found[:, :num_scores], found[:, num_scores:]))

    def _with_common(self, features: Tensor, own: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Logits (N, C, M) and deltas (N, C, M, 4) of classes with what all have in common added, where there is that."""
        if self.common is None:
            return own
        logits, deltas = self.common(features)  # (N, 1, M) and (N, 1, M, 4)
        return own[0] + logits, own[1] + deltas

    def _rows(self, layer: nn.Conv2d, classes: Tensor) -> tuple[Tensor, Tensor]:
        """The weights (N, R, D) and biases (N, R, 1) of a layer's R rows of the classes (N, C)."""
        weight = layer.weight.reshape(self.num_classes, -1, layer.in_channels)[classes]  # (N, C, rows of a class, D)
        bias = layer.get_parameter("bias").reshape(self.num_classes, -1)[classes]
        return weight.flatten(1, 2), bias.flatten(1)[:, :, None]

    def _by_class(self, logits: Tensor, deltas: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C * A, H * W) and (N, C * A * 4, H * W) -> (N, C, M) and (N, C, M, 4), float32."""
        num_classes = logits.shape[1] // self.num_anchors
        logits = logits.float().unflatten(1, (num_classes, self.num_anchors))
        deltas = deltas.float().unflatten(1, (num_classes, self.num_anchors, 4))
        return logits.transpose(2, 3).flatten(2), deltas.permute(0, 1, 4, 2, 3).flatten(2, 3)

    def all_logits_at(self, vectors: Tensor, anchors: Tensor) -> Tensor:
        """Logits (S, K) float32 of all classes at S single anchors: the features (S, D) of each one's cell, and its place
        (S,) int64 among the cell's anchors."""
        logits = F.linear(vectors, self.scores.weight.flatten(1), self.scores.bias).float()
        logits = logits.reshape(-1, self.num_classes, self.num_anchors)
        return logits.gather(2, anchors.view(-1, 1, 1).expand(-1, self.num_classes, 1)).squeeze(2)
