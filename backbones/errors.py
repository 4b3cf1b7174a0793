"""Errors that a user can fix: each message names the file, option or key, the value found, and the fix.

Imports no torch, which takes seconds: a mistake in a config is reported before that."""

from __future__ import annotations

import difflib
import reprlib
import unicodedata
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

    Text of any script stays as it is. A byte of a file name that is not UTF-8 becomes that byte, as in "\\xff".
    """
    return text if text.isprintable() else "".join(c if _harmless(c) else _escaped(c) for c in text)


_UNSAFE_CATEGORIES = ("Cc", "Cs", "Zl", "Zp")  # control characters, half characters, separators of lines and paragraphs
_REORDERING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # they change the order of the text around them


def _harmless(character: str) -> bool:
    # Not isprintable() alone: it is false for the joiners without which Persian, Hindi and emoji cannot be written.
    if character.isprintable():
        return True
    return unicodedata.category(character) not in _UNSAFE_CATEGORIES and character not in _REORDERING


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # how Python keeps a byte of a file name that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


MAX_NAME_LENGTH = 200
"""Characters of a class name. It stands in tables, in pictures and in the names of files."""


def name_fault(name: object) -> str | None:
    """Why this cannot be the name of a class, to stand after "class name 3", with the fix; None for a name that can.

    A name is text of any script that can be shown in one line: not empty, no control or half characters, not too long.
    """
    if not isinstance(name, str):
        return f"must be text, got {shorten(name)}: put it in quotes"
    if not name.strip():
        return f"is empty, {shorten(name)}: give it a name"
    if len(name) > MAX_NAME_LENGTH:
        return f"has {len(name)} characters, {shorten(name[:40])}...: at most {MAX_NAME_LENGTH} are allowed"
    if all(map(_harmless, name)):
        return None
    return f"holds characters that cannot be shown, {shorten(name)}: leave them out"


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name most similar to `name`, ignoring case; None if none is similar. `cutoff`: the least similarity, 0 to 1."""
    by_lower_case = {each.lower(): each for each in known}
    found = difflib.get_close_matches(name.lower(), by_lower_case, n=1, cutoff=cutoff)
    return by_lower_case[found[0]] if found else None


def first_names(names: Sequence[object]) -> str:
    """The first three names for a message, with "..." where there are more: "'a', 'b', 'c', ..."."""
    return ", ".join(shorten(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """The end of a message about an unknown name: "; did you mean 'x'?", or else "; " and `otherwise`, if that is given."""
    found = nearest(name, known)
    if found is not None:
        return f"; did you mean '{found}'?"
    return f"; {otherwise}" if otherwise else ""
