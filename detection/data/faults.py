"""What is wrong with a data set: repaired and counted, or refused; one after the other, or all at once.

A reader mends small faults and tells them by `note`; it raises DatasetError for those that would spoil training. Each
item is read inside `guard()`, so that `check-dataset` can collect the errors of all items.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from detection.errors import DatasetError

log = logging.getLogger(__name__)


class Note(NamedTuple):
    """A fault that was repaired."""

    kind: str  # what was wrong and what was done: "inverted box, dropped"
    message: str  # the case: file, object, values, kind


@dataclass
class Faults:
    """The faults found so far. `strict`: a note is an error too. `collect`: errors are kept instead of raised."""

    strict: bool = False
    collect: bool = False
    notes: list[Note] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    information: list[str] = field(default_factory=list)

    def note(self, where: str, fault: str, repair: str) -> None:
        """A fault that is repaired, e.g. ("a.xml, object 3", "inverted box", "dropped"). Raises DatasetError if strict."""
        if self.strict:
            raise DatasetError(f"{where}: {fault} (refused, as data.strict is true)")
        self.notes.append(Note(f"{fault}, {repair}", f"{where}: {fault}, {repair}"))

    def inform(self, message: str) -> None:
        """Something that is no fault but should be known."""
        self.information.append(message)

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Around one item: a DatasetError inside ends the item, and everything unless errors are collected."""
        try:
            yield
        except DatasetError as error:
            if not self.collect:
                raise
            self.errors.append(str(error))

    def by_kind(self) -> dict[str, list[str]]:
        """The messages of each kind of note."""
        kinds: dict[str, list[str]] = {}
        for note in self.notes:
            kinds.setdefault(note.kind, []).append(note.message)
        return kinds

    def summary(self) -> list[str]:
        """One line a kind, with its count and its first case; then the information."""
        lines = [f"{len(messages)} x {kind}; the first: {messages[0]}" for kind, messages in self.by_kind().items()]
        return lines + self.information

    def warn(self) -> None:
        """Log the summary."""
        for line in self.summary():
            log.warning("%s", line)
