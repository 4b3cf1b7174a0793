"""Backbones by name: the networks of this package, and those that a user's code registers."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from backbones import cifar, resnet, vgg
from backbones.base import Backbone
from backbones.errors import BackboneError
from backbones.options import DEFAULT_OPTIONS, BackboneOptions

Builder = Callable[[BackboneOptions], Backbone]
FamilyBuilder = Callable[[int, BackboneOptions], Backbone]  # the first argument is the depth
AnyBuilder = TypeVar("AnyBuilder", bound=Builder)
AnyFamilyBuilder = TypeVar("AnyFamilyBuilder", bound=FamilyBuilder)

BACKBONES: dict[str, Builder] = {**resnet.BUILDERS, **vgg.BUILDERS, **cifar.BUILDERS}
FAMILIES: dict[str, FamilyBuilder] = {**cifar.FAMILIES}


def register_backbone(builder: AnyBuilder) -> AnyBuilder:
    """Decorator: make `builder(options: BackboneOptions) -> Backbone` known by its own name.

    Raises BackboneError for a name that is taken, and for a builder with other arguments.
    """
    name = builder.__name__
    if name in BACKBONES:
        raise BackboneError(f"there is a backbone '{name}' already: register yours under another name")
    require_builder(builder, f"'{name}'")
    BACKBONES[name] = builder
    return builder


def register_family(builder: AnyFamilyBuilder) -> AnyFamilyBuilder:
    """Decorator: make `builder(depth: int, options: BackboneOptions) -> Backbone` known by its own name with a depth after it,
    as in "cifar_resnet38". It need not build every depth.

    Raises BackboneError for a name that is taken, and for a builder with other arguments.
    """
    name = builder.__name__
    if name in FAMILIES:
        raise BackboneError(f"there is a family of backbones '{name}' already: register yours under another name")
    require_builder(partial(builder, 18), f"'{name}'", "(depth: int, options: BackboneOptions)")
    FAMILIES[name] = builder
    return builder


def registered_names() -> set[str]:
    """The names in the registry; of a family only those depths that are registered by themselves."""
    return set(BACKBONES)


def registered_builder(name: str) -> Builder | None:
    """The builder of a registered name, or of a family's name and a depth after it; None for any other."""
    if name in BACKBONES:
        return BACKBONES[name]
    member = re.fullmatch(r"(.*\D)([1-9]\d{0,4})", name)
    if member and member[1] in FAMILIES:
        return partial(FAMILIES[member[1]], int(member[2]))
    return None


def require_builder(builder: Any, described: str, signature: str = "(options: BackboneOptions)") -> None:
    """Raise BackboneError, naming it as `described`, unless `builder` can be called with the options alone."""
    try:
        inspect.signature(builder).bind(DEFAULT_OPTIONS)
    except (TypeError, ValueError) as error:
        raise BackboneError(
            f"backbone {described} is not a builder{signature} -> Backbone: {error}; the options come as one "
            "backbones.BackboneOptions, no longer as keywords"
        ) from None
