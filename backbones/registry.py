"""Backbones by name: who builds what. The networks enter themselves here; `backbones.build` looks them up."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from fvcore.common.registry import Registry

from backbones.base import Backbone
from backbones.errors import BackboneError

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


def registered_names() -> set[str]:
    """The names in the registry; of a family only those depths that are registered by themselves."""
    return {name for name, _ in BACKBONES}


def registered_builder(name: str) -> Callable[..., Backbone] | None:
    """The builder of a registered name, or of a family's name and a depth behind it; None for any other."""
    if name in BACKBONES:
        return BACKBONES.get(name)
    member = re.fullmatch(r"(.*\D)([1-9]\d{0,4})", name)
    if member and member[1] in FAMILIES:
        return partial(FAMILIES.get(member[1]), int(member[2]))
    return None
