"""Backbones of other installed packages: their entry points `name = package.module:builder` of the group below."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

from backbones.errors import BackboneError
from backbones.registry import Builder, require_builder

GROUP = "resdet.backbones"


def plugin_names() -> set[str]:
    """The names on offer. Imports none of them."""
    return {entry.name for entry in entry_points(group=GROUP)}


def load_plugin(name: str) -> Builder | None:
    """The builder that an installed package offers under that name; None if none does. Imports that package alone.

    Raises BackboneError naming package and entry point: two of them offer it, it cannot be imported, it is no builder.
    """
    offers = {_description(entry): entry for entry in entry_points(group=GROUP, name=name)}
    if len(offers) > 1:
        raise BackboneError(f"backbone '{name}' is offered by {' and by '.join(sorted(offers))}: uninstall all but one")
    return next((_load(entry, offer) for offer, entry in offers.items()), None)


def _load(entry: EntryPoint, offer: str) -> Builder:
    try:
        builder = entry.load()
    except Exception as error:  # whatever the import of somebody else's module may raise
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise BackboneError(f"backbone '{entry.name}' of {offer} cannot be loaded: {said}") from error
    require_builder(builder, f"'{entry.name}' of {offer}")
    return builder


def _description(entry: EntryPoint) -> str:
    package = f"package {entry.dist.name}" if entry.dist else "an unnamed package"
    return f"{package} (entry point {entry.value})"
