"""Backbones by name, from here, from installed packages and from other libraries, and how they get their weights."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar, get_args

from fvcore.common.registry import Registry

from backbones.base import Backbone, C4Head, C4Trunk, Norm, StemPool
from backbones.c4 import load_c4
from backbones.errors import BackboneError
from backbones.foreign.net import LIBRARIES, build_foreign
from backbones.plugins import load_plugin, plugin_names
from backbones.weights.files import backbone_state, load_backbone_weights, load_checkpoint
from backbones.weights.zoo import weights_file

BACKBONES = Registry("backbones")
FAMILIES = Registry("families of backbones")
Builder = TypeVar("Builder", bound=Callable[..., Backbone])


def register_backbone(builder: Builder) -> Builder:
    """Decorator: make `builder(*, norm, num_classes, stride_in_1x1, freeze_stages) -> Backbone` known by its name."""
    name = builder.__name__
    if name in BACKBONES:
        raise BackboneError(f"there is a backbone '{name}' already: register yours under another name")
    BACKBONES.register(builder)
    return builder


def register_family(builder: Builder) -> Builder:
    """Decorator: make `builder(depth, *, norm, num_classes, stride_in_1x1, freeze_stages)` known by its name and a depth
    behind it, as in "cifar_resnet38". It need not build every depth."""
    FAMILIES.register(builder)
    return builder


def list_backbones() -> list[str]:
    """The registered names and those that installed packages offer, sorted; these are not imported for it.

    Of a family only those depths that are registered by themselves; of timm and torchvision none."""
    return sorted({name for name, _ in BACKBONES} | plugin_names())


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
    if name in BACKBONES:
        return BACKBONES.get(name)
    member = re.fullmatch(r"(.*\D)([1-9]\d{0,4})", name)
    if member and member[1] in FAMILIES:
        return partial(FAMILIES.get(member[1]), int(member[2]))
    if name.startswith(tuple(f"{library}/" for library in LIBRARIES)):
        return partial(build_foreign, name)
    if plugin := load_plugin(name):
        return plugin
    near = difflib.get_close_matches(name, list_backbones(), n=1, cutoff=0.6)
    hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(list_backbones())}, timm/NAME and torchvision/NAME"
    raise BackboneError(f"unknown backbone '{name}'; {hint}")


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
