"""Backbones and their C4 halves, built by name, with their weights: the top of this package, which uses all of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import get_args

from torch import Tensor, nn

import backbones.cifar
import backbones.resnet
import backbones.vgg  # noqa: F401  these three enter their networks into the registry
from backbones.base import Backbone, C4Head, C4Trunk, Norm, StemPool
from backbones.errors import BackboneError, did_you_mean
from backbones.foreign.net import LIBRARIES, build_foreign
from backbones.plugins import load_plugin, plugin_names
from backbones.registry import registered_builder, registered_names
from backbones.weights.files import backbone_state, load_backbone_weights, load_checkpoint, load_state
from backbones.weights.zoo import weights_file


def list_backbones() -> list[str]:
    """The registered names and those that installed packages offer, sorted; these are not imported for it.

    Of a family only those depths that are registered by themselves; of timm and torchvision none."""
    return sorted(registered_names() | plugin_names())


def build_backbone(
    name: str,
    weights: str | Path | None = None,
    norm: Norm = "bn",
    num_classes: int | None = None,
    stride_in_1x1: bool = False,
    freeze_stages: int = 0,
    stem_pool: StemPool = "pad1",
) -> Backbone:
    """The backbone of that name: normalised images (N, 3, H, W) -> {"c2": ..., "c3": ..., "c4": ..., "c5": ...}.

    A name of `list_backbones()`, or of a family with a depth behind it ("cifar_resnet38"); CIFAR nets have no c5. Or one of
    timm's or torchvision's classification nets: "timm/resnet50d", "torchvision/convnext_tiny".

    `weights` is a file: a classifier's checkpoint of ours, or a plain torchvision state dict (.pth, .safetensors); or a name
    of `list_weights()` as "torchvision/resnet50", which is downloaded once. Its classifier is used only where `num_classes`
    asks for one. None: He initialisation. `norm` "frozen_bn" makes BN a constant scale and offset; the first `freeze_stages`
    stages (0..5) are not trained. `stride_in_1x1` and `stem_pool` must be the weights' own: a checkpoint that records others is
    refused.
    Raises BackboneError (name, options) or CheckpointError (weights).
    """
    model = _builder(name)(norm=norm, num_classes=num_classes, stride_in_1x1=stride_in_1x1, freeze_stages=freeze_stages)
    if not isinstance(model, Backbone):
        raise BackboneError(f"the builder of '{name}' must return a backbones.Backbone, not a {type(model).__name__}")
    if stem_pool not in get_args(StemPool):
        raise BackboneError(f"stem_pool must be one of {list(get_args(StemPool))}, got {stem_pool!r}")
    model.stem_pool = stem_pool
    if weights is not None:
        model.preprocessing = load_backbone_weights(
            model, weights_file(weights), name, stride_in_1x1, num_classes is not None, stem_pool=stem_pool
        )
    return model


def _builder(name: str) -> Callable[..., Backbone]:
    if found := registered_builder(name):
        return found
    if name.startswith(tuple(f"{library}/" for library in LIBRARIES)):
        return partial(build_foreign, name)
    if plugin := load_plugin(name):
        return plugin
    known = f"known are {', '.join(list_backbones())}, timm/NAME and torchvision/NAME"
    raise BackboneError(f"unknown backbone '{name}'{did_you_mean(name, list_backbones(), known)}")


def build_c4(
    name: str,
    weights: str | Path | None = None,
    norm: Norm = "bn",
    stride_in_1x1: bool = False,
    freeze_stages: int = 0,
    stem_pool: StemPool = "pad1",
) -> tuple[C4Trunk, C4Head]:
    """The two halves of a C4 detector, with the arguments of `build_backbone`.

    trunk: (N, 3, H, W) -> (N, trunk.channels, H/16, W/16); head: (R, trunk.channels, S, S) -> (R, head.channels), where S
    is `head.pool_size` or, if that is None, what you like: 14 in the paper's ResNets.
    """
    backbone = build_backbone(name, norm=norm, stride_in_1x1=stride_in_1x1, freeze_stages=freeze_stages, stem_pool=stem_pool)
    trunk, head = backbone.split_c4()
    if weights is not None:
        weights = weights_file(weights)
        contents = load_checkpoint(weights)
        state, preprocessing = backbone_state(
            contents, str(weights), name, stride_in_1x1, stem_pool=stem_pool, default=trunk.preprocessing
        )
        load_c4(trunk, head, state, str(weights))
        trunk.preprocessing = preprocessing
    return trunk, head


def load_c4(
    trunk: C4Trunk,
    head: nn.Module,
    backbone_state: Mapping[str, Tensor],
    source: str = "the backbone's state dict",
) -> None:
    """Load a whole backbone's state dict into its two halves; its classifier has no place there and is left out.

    Keys that only the head has, or none but the head's children could have, are the head's, all others the trunk's.
    Raises CheckpointError, naming `source` and the first keys, on anything else missing, unexpected or unfit.
    """
    both = nn.ModuleDict({"trunk": trunk, "head": head})
    head_names = tuple(f"{name}." for name, _ in head.named_children())
    trunk_keys = trunk.state_dict().keys()  # a container such as `features` may have parts in both halves
    state = {
        f"head.{key}" if key.startswith(head_names) and key not in trunk_keys else f"trunk.{key}": value
        for key, value in backbone_state.items()
        if key not in trunk.classifier_keys
    }
    load_state(both, state, source)
