"""Errors that a user can fix: each message names the file, option or key, the value found, and the fix.

Imports no torch, which takes seconds: a mistake in a config is reported before that."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class BackboneError(ValueError):
    """An unknown backbone, or options that it cannot be built with."""


class CheckpointError(ValueError):
    """A weights file is missing, damaged, unsafe, or of another model."""


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name most similar to `name`, ignoring case; None if none is similar. `cutoff`: the least similarity, 0 to 1."""
    by_lower_case = {each.lower(): each for each in known}
    found = difflib.get_close_matches(name.lower(), by_lower_case, n=1, cutoff=cutoff)
    return by_lower_case[found[0]] if found else None


def first_names(names: Sequence[str]) -> str:
    """The first three names for a message, with "..." where there are more: "'a', 'b', 'c', ..."."""
    return ", ".join(f"'{name}'" for name in names[:3]) + (", ..." if len(names) > 3 else "")


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """The end of a message about an unknown name: "; did you mean 'x'?", or else "; " and `otherwise`, if that is given."""
    found = nearest(name, known)
    if found is not None:
        return f"; did you mean '{found}'?"
    return f"; {otherwise}" if otherwise else ""
