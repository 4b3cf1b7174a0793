"""Backbones of other installed packages: their entry points `name = package.module:builder` of the group below."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

from backbones.base import Backbone
from backbones.errors import BackboneError, printable
from backbones.options import BackboneOptions
from backbones.registry import Builder, require_builder

LONGEST_WORDS = 300
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
    except (Exception, SystemExit) as error:  # whatever the import of somebody else's module may raise
        raise BackboneError(f"backbone '{entry.name}' of {offer} cannot be loaded: {_said(error)}") from error
    require_builder(builder, f"'{entry.name}' of {offer}")

    def build(options: BackboneOptions) -> Backbone:
        try:
            network: Backbone = builder(options)
        except BackboneError:
            raise
        except (Exception, SystemExit) as error:  # somebody else's code again
            raise BackboneError(f"backbone '{entry.name}' of {offer} cannot be built: {_said(error)}") from error
        return network

    return build


def _said(error: BaseException) -> str:
    """An error of somebody else's code in one line of bounded length."""
    words = printable(" ".join(str(error).split()))
    return f"{type(error).__name__}: {words if len(words) <= LONGEST_WORDS else words[:LONGEST_WORDS] + '...'}"


def _description(entry: EntryPoint) -> str:
    package = f"package {entry.dist.name}" if entry.dist else "an unnamed package"
    return f"{package} (entry point {entry.value})"
