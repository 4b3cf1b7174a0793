"""What a detector is made of by its config: C4's two halves of a backbone, or a pyramid and a two-layer head,
and a mask head for either.

The one place that knows which there are; the detector's steps take feature maps and regions of either.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from backbones.base import RegionHead, Trunk
from backbones.build import build_c4, build_fpn
from backbones.errors import BackboneError
from detection.config import Config
from detection.errors import ConfigError
from detection.modeling.mask_head import MaskHead
from detection.modeling.two_layer_head import TwoLayerHead, conv_layers


def build_parts(config: Config) -> tuple[Trunk, RegionHead]:
    """The full-image part and the per-region part. Raises BackboneError (name, options, maps) or ConfigError (pool_size)."""
    model, roi = config.model, config.roi
    if model.neck == "fpn":
        fpn = build_fpn(
            model.backbone,
            channels=config.fpn.channels,
            neck_norm=config.fpn.norm,
            norm=model.norm,
            stride_in_1x1=model.stride_in_1x1,
            stem_pool=model.stem_pool,
            freeze_stages=model.freeze_stages,
        )
        return fpn, TwoLayerHead(fpn.channels, roi.pool_size, config.fpn)
    trunk, head = build_c4(
        model.backbone,
        norm=model.norm,
        stride_in_1x1=model.stride_in_1x1,
        stem_pool=model.stem_pool,
        freeze_stages=model.freeze_stages,
    )
    if head.pool_size not in (None, roi.pool_size):
        raise ConfigError(
            f"roi.pool_size is {roi.pool_size}, but the per-region head of {model.backbone} takes {head.pool_size} only: set "
            f"roi.pool_size={head.pool_size}"
        )
    return trunk, head


def backbone_weights(state: Mapping[str, Tensor], config: Config) -> dict[str, Tensor]:
    """Of a detector's state dict the weights of its backbone, by the whole network's own names: what `load_backbone` takes."""
    prefixes = ("trunk.backbone.",) if config.model.neck == "fpn" else ("trunk.", "roi_head.conv5.")
    return {key[len(prefix) :]: value for prefix in prefixes for key, value in state.items() if key.startswith(prefix)}


def build_mask_head(config: Config, trunk: Trunk, head: RegionHead) -> MaskHead | None:
    """What predicts masks beside that trunk and head; None where the config asks for none.

    C4's works on the maps of conv5, a pyramid's on regions of its own. Raises BackboneError where a C4 head has no maps.
    """
    if not config.model.mask:
        return None
    num_classes, mask, fpn = len(config.data.class_names), config.mask, config.fpn
    if config.model.neck == "fpn":
        convs = conv_layers(trunk.channels, fpn.channels, mask.convs, fpn)
        in_channels = fpn.channels if mask.convs else trunk.channels
        return MaskHead(convs, in_channels, num_classes, mask, mask.pool_size)
    if type(head).maps is RegionHead.maps:
        raise BackboneError(
            f"{config.model.backbone} cannot predict masks (model.mask=true): its per-region head makes no maps of a region; "
            "use another backbone, or set model.neck=fpn"
        )
    return MaskHead(nn.Sequential(), head.channels, num_classes, mask)
