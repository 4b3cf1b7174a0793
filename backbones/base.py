"""What every backbone offers, and the freezing of first stages that whole networks and their C4 halves share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor, nn
from typing_extensions import Self

from backbones.errors import BackboneError
from backbones.norm import Pool
from backbones.preprocessing import IMAGENET_PREPROCESSING, Preprocessing

Norm = Literal["bn", "frozen_bn"]
StemPool = Literal["pad1", "ceil"]
"""The first max-pool of a ResNet: "pad1" pads by one pixel all round, as torchvision's; "ceil", the authors', has no
padding and lets the last window stand over the edge. Windows lie one pixel apart, and an odd size is rounded up or down."""
NUM_STAGES = 5


def check_options(norm: Norm, num_classes: int | None, freeze_stages: int) -> None:
    """The options that all networks here have. Raises BackboneError naming the option, the value and what it may be."""
    if norm not in get_args(Norm):
        raise BackboneError(f"norm must be one of {list(get_args(Norm))}, got {norm!r}")
    if freeze_stages not in range(NUM_STAGES + 1):
        raise BackboneError(f"freeze_stages must be 0..{NUM_STAGES}, got {freeze_stages!r}")
    if num_classes is not None and num_classes < 1:
        raise BackboneError(f"num_classes must be at least 1, or None for no classifier, got {num_classes!r}")


class StagedModule(nn.Module):
    """A network whose parts can be frozen by name: not trained, and their BatchNorm stays in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen: tuple[str, ...] = ()

    def freeze(self, names: Sequence[str]) -> None:
        """Freeze these child modules for good; `train()` does not wake them."""
        self.frozen = tuple(names)
        for name in self.frozen:
            self.get_submodule(name).requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all but the frozen parts, which stay in evaluation mode."""
        super().train(mode)
        for name in self.frozen:
            self.get_submodule(name).eval()
        return self


class C4Trunk(StagedModule):
    """The full-image half of a detector's backbone: (N, 3, H, W) -> (N, channels, H/stride, W/stride)."""

    channels: int
    stride: int
    preprocessing: Preprocessing
    classifier_keys: tuple[str, ...] = ()  # the whole network's, for `load_c4`


class C4Head(StagedModule):
    """The per-region half: pooled features (R, C, S, S) -> (R, channels).

    S is 14 in the paper's ResNets, which take any; a head with a `pool_size` takes only that one.
    """

    channels: int
    pool_size: int | None = None

    def pooled(self, features: Tensor, pool: Pool) -> Tensor:
        """`self(pool(features, 1))`: maps (N, C, H, W) -> (R, channels). A head may compute before it pools what it can
        then compute once for all regions."""
        return self(pool(features, 1))


class Backbone(StagedModule):
    """Normalised images (N, 3, H, W) -> feature maps by name, e.g. {"c2": ..., "c5": ...}.

    `channels` and `strides` describe the maps; `preprocessing` is what the weights expect of an image;
    `classifier_keys` names the parameters of the last layer, which exists only with `num_classes`; `head_keys` those of
    layers before it that the feature maps do not need: they exist with `num_classes` and in the C4 head.
    """

    channels: dict[str, int]
    strides: dict[str, int]
    classifier_keys: tuple[str, ...] = ()
    head_keys: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.preprocessing: Preprocessing = IMAGENET_PREPROCESSING
        self.stem_pool: StemPool = "pad1"  # only a ResNet has such a pool

    def logits(self, images: Tensor) -> Tensor:
        """Class scores before the softmax: (N, 3, H, W) -> (N, num_classes)."""
        raise BackboneError(f"{type(self).__name__} has no classifier")

    def dense_logits(self, images: Tensor) -> Tensor:
        """The classifier applied fully convolutionally to images of any size: its scores, averaged over all places,
        (N, num_classes). Where a linear classifier follows global average pooling, that is what `logits` computes."""
        return self.logits(images)

    def split_c4(self) -> tuple[C4Trunk, C4Head]:
        """The two halves of a C4 detector; they share this network's modules."""
        raise BackboneError(
            f"{type(self).__name__} has no split into a trunk and a per-region head: define split_c4(), which "
            "backbones.split_modules does for modules in a row"
        )
