"""Backbones that other installed packages offer, by entry points `name = package.module:builder` of a group of ours."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from backbones.errors import BackboneError

GROUP = "resdet.backbones"
OPTIONS = ("norm", "num_classes", "stride_in_1x1", "freeze_stages")


def plugin_names() -> set[str]:
    """The names on offer. Imports none of them."""
    return {entry.name for entry in entry_points(group=GROUP)}


def load_plugin(name: str) -> Callable[..., Any] | None:
    """The builder that an installed package offers under that name; None if none does. Imports that package alone.

    Raises BackboneError naming package and entry point: two of them offer it, it cannot be imported, it is no builder.
    """
    offers = {_described(entry): entry for entry in entry_points(group=GROUP, name=name)}
    if len(offers) > 1:
        raise BackboneError(f"backbone '{name}' is offered by {' and by '.join(sorted(offers))}: uninstall all but one")
    return next((_load(entry, offer) for offer, entry in offers.items()), None)


def _load(entry: EntryPoint, offer: str) -> Callable[..., Any]:
    try:
        builder = entry.load()
    except Exception as error:  # whatever the import of somebody else's module may raise
        raise BackboneError(f"backbone '{entry.name}' of {offer} cannot be loaded: {_one_line(error)}") from error
    try:
        inspect.signature(builder).bind(**dict.fromkeys(OPTIONS))
    except (TypeError, ValueError) as error:
        raise BackboneError(
            f"backbone '{entry.name}' of {offer} is not a builder(*, {', '.join(OPTIONS)}): {_one_line(error)}"
        ) from None
    return builder


def _described(entry: EntryPoint) -> str:
    package = f"package {entry.dist.name}" if entry.dist else "an unnamed package"
    return f"{package} (entry point {entry.value})"


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
