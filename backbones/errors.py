"""Errors that a user can fix: each message names the file, option or key, the value found, and the fix.

Imports no torch, which takes seconds: a mistake in a config is reported before that."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import PurePath
from typing import Any


class BackboneError(ValueError):
    """An unknown backbone, or options that it cannot be built with."""


class CheckpointError(ValueError):
    """A weights file is missing, damaged, unsafe, or of another model."""


_LONGEST_VALUE = 120


class _ShortRepr(reprlib.Repr):
    """Looks at a few items of a few levels only: a small file can hold a value whose full text has no end."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother, self.maxlong = 3, 80, 80, 40
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdeque = self.maxarray = 6

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to write out a number of more than 4300 digits.
        digits = round(x.bit_length() * 0.30103)
        return repr(x) if digits <= self.maxlong else f"a number of {digits} digits"

    def repr_instance(self, x: Any, level: int) -> str:
        if isinstance(x, bytes | bytearray):
            return repr(bytes(x[: self.maxstring]))
        if isinstance(x, dict):  # an OrderedDict, whose own repr writes out all of it
            return self.repr_dict(dict(islice(x.items(), self.maxdict + 1)), level)
        return repr(x) if isinstance(x, bool | float | complex | PurePath | None) else f"a {type(x).__name__}"


_short_repr = _ShortRepr()


def shorten(value: object) -> str:
    """Any value found in a file or an option, as text for a message: its repr, at most about 120 characters, printable.

    Takes no time for a huge, deep or circular value; safe for a terminal.
    """
    text = printable(_short_repr.repr(value))
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."


def printable(text: str) -> str:
    """Text from outside for a message, a table or a log: control characters, escape sequences and lone surrogates are escaped.

    Text of any script stays as it is.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text)


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
