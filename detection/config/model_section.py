"""The network of a detection experiment: its backbone, and the feature pyramid on it."""

from __future__ import annotations

from pydantic import Field

from backbones.options import NUM_STAGES, Neck, NeckNorm, Norm, StemPool
from detection.config.limits import FilePath, Flag, Section, Text, Whole


class ModelConfig(Section):
    """The backbone and how it is fine-tuned."""

    backbone: Text = Field(
        "resnet101",
        description='a name of `list_backbones()`, or of another library: "timm/resnet50d", "torchvision/resnext50_32x4d"',
    )
    stride_in_1x1: Flag = Field(
        False, description="the stride is in the bottleneck's first 1x1 (the authors' models), not in its 3x3"
    )
    stem_pool: StemPool = Field(
        "pad1",
        description="a ResNet's first max-pool; pad1: as in torchvision; ceil: the authors', whose last window may overhang",
    )
    neck: Neck = Field("none", description="none: the paper's C4 detector; fpn: a feature pyramid, as `fpn` describes it")
    norm: Norm = Field("frozen_bn", description="frozen_bn: BN is a constant scale and offset (appendix A)")
    freeze_stages: Whole = Field(
        2, ge=0, le=NUM_STAGES, description="number of stages that are not trained: 1 = conv1, 2 = conv1 and conv2_x, ..."
    )
    mask: Flag = Field(False, description="predict the mask of each object too, as `mask` describes it")
    weights: FilePath | None = Field(
        None,
        description="what to start from: the checkpoint of a classifier or a detector, or a name such as torchvision/resnet101",
    )


class FpnConfig(Section):
    """The feature pyramid and the head on its regions, where `model.neck` is fpn (Lin et al. 2017)."""

    channels: Whole = Field(256, ge=1, le=8192, description="of each of the maps P2 to P6, and of the heads' convolutions")
    norm: NeckNorm = Field("none", description="of the convolutions of the pyramid and of the heads on it")
    head_convs: Whole = Field(0, ge=0, le=32, description="3x3 convolutions before the box head's fully connected layers")
    head_fcs: Whole = Field(2, ge=1, le=2, description="fully connected layers of the box head; as torchvision's _v2: 1")
    head_channels: Whole = Field(1024, ge=1, le=65536, description="width of these layers")
