"""What every backbone offers, and the freezing of first stages that whole networks and their C4 halves share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from typing_extensions import Self

from backbones.errors import BackboneError
from backbones.preprocessing import IMAGENET_PREPROCESSING, Preprocessing


class StagedModule(nn.Module):
    """A network whose parts can be frozen by name: not trained, and their BatchNorm stays in evaluation mode.

    `stage_parts` are the names of its parts by stage, those of conv1 first. The halves of a network name all of its stages, and
    have some of their parts each. Empty: the network does not tell.
    """

    stage_parts: tuple[tuple[str, ...], ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.frozen: tuple[str, ...] = ()

    def freeze(self, names: Sequence[str]) -> None:
        """Freeze these child modules for good: no gradients, and `train()` leaves them in evaluation mode."""
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


class Trunk(StagedModule):
    """The full-image part of a detector: normalised images -> the feature maps that the RPN and all regions share."""

    channels: int  # of every map
    size_divisor: int = 1  # the sides of the images must be multiples of it: they are padded with zeros
    preprocessing: Preprocessing
    classifier_keys: tuple[str, ...] = ()  # the whole network's, for `load_c4`

    @property
    def strides(self) -> tuple[int, ...]:
        """Those of the maps, ascending."""
        raise BackboneError(f"{type(self).__name__} has no strides")

    @property
    def roi_strides(self) -> tuple[int, ...]:
        """Those of the first maps, which regions are pooled from: by default all."""
        return self.strides

    def feature_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """Normalised images (N, 3, H, W) -> a map (N, channels, H/stride, W/stride) for each of `strides`."""
        raise BackboneError(f"{type(self).__name__} has no feature_maps()")


class C4Trunk(Trunk):
    """The full-image half of a C4 detector's backbone: (N, 3, H, W) -> (N, channels, H/stride, W/stride)."""

    stride: int

    @property
    def strides(self) -> tuple[int, ...]:
        """That of the one map."""
        return (self.stride,)

    def feature_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """Normalised images (N, 3, H, W) -> the one map."""
        return (self(images),)


@dataclass(frozen=True)
class MapToPool:
    """A map (N, C, H, W) to pool, and which cells of each region are wanted: each `cell_stride`-th along both axes, from the
    first on, as a convolution of that stride would take them."""

    features: Tensor
    cell_stride: int = 1


class RegionHead(StagedModule):
    """The per-region part of a detector: pooled features (R, C, S, S) -> (R, channels).

    S is 14 in the paper's ResNets, which take any; a head with a `pool_size` takes only that one.
    """

    channels: int
    pool_size: int | None = None

    def before_pooling(self, features: Tensor) -> list[MapToPool]:
        """The maps to pool, made of the trunk's features (N, C, H, W). By default these are the features themselves.

        Where the pooling is linear, a head may apply its first 1x1 convolutions here: once to the whole map and not to every
        region.
        """
        return [MapToPool(features)]

    def after_pooling(self, cells: Sequence[Tensor]) -> Tensor:
        """The rest of the head: the pooled cells (R, C, S, S) of each map of `before_pooling`, in their order -> (R, channels).

        Gives what `self(pooled_features)` gives, up to rounding.
        """
        (pooled_features,) = cells
        return self(pooled_features)

    def maps(self, pooled_features: Tensor) -> Tensor:
        """The maps (R, channels, S', S') whose global average is `self(pooled_features)`: what masks are made of.

        Raises BackboneError where a region's vector is no average of maps, as after fully connected layers.
        """
        raise BackboneError(
            f"{type(self).__name__} makes no maps of a region, which masks are predicted from: use another backbone, or "
            "model.neck=fpn, or define maps() in it"
        )

    def maps_after_pooling(self, cells: Sequence[Tensor]) -> Tensor:
        """`maps` of the pooled cells of each map of `before_pooling`, as `after_pooling` takes them."""
        (pooled_features,) = cells
        return self.maps(pooled_features)


class C4Head(RegionHead):
    """The per-region half of a C4 detector's backbone."""


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
