"""The learning rate of each layer, as a factor of the run's: lower for the backbone, and for its first stages."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from backbones.base import Backbone, C4Head, C4Trunk
from detection.config import TrainConfig


def rate_factors(model: nn.Module, config: TrainConfig) -> dict[str, float]:
    """Parameter name -> what the run's learning rate is multiplied by for it.

    A layer d stages below the heads learns at `layer_decay` ** d: 0 in the heads and a classifier's last layer, 1 in the
    backbone's last stage, and so on down to conv1; all of the backbone also at `backbone_rate`.
    """
    depths = backbone_depths(model)
    return {
        name: config.backbone_rate * config.layer_decay ** depths[name] if name in depths else 1.0
        for name, _ in model.named_parameters()
    }


def backbone_depths(model: nn.Module) -> dict[str, int]:
    """Name of each parameter of the backbone -> the number of its stage, counted from the last one, which is 1.

    1 is also what follows the last stage and is pre-trained with it, as VGG's fc6, and all of a backbone without `stages`. A
    pyramid and the head on it are no part of the backbone: they learn at the heads' rate.
    """
    depths: dict[str, int] = {}
    for path, module in model.named_modules():
        if isinstance(module, (Backbone, C4Trunk, C4Head)):
            last_layer = getattr(module, "classifier_keys", ())
            for name, _ in module.named_parameters():
                if name not in last_layer:
                    depths[f"{path}.{name}" if path else name] = _depth(name, module.stage_parts)
    return depths


def _depth(name: str, stages: Sequence[Sequence[str]]) -> int:
    for index, parts in enumerate(stages):
        if any(name.startswith(f"{part}.") for part in parts):
            return len(stages) - index
    return 1
