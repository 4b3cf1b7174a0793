"""What is wrong with a data set: repaired and counted, or refused; one after the other, or all at once.

A reader mends small faults and tells them by `note`; it raises DatasetError for those that would spoil training. Each
item is read inside `guard()`, so that `check-dataset` can collect the errors of all items.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from detection.errors import DatasetError

log = logging.getLogger(__name__)


@dataclass
class Faults:
    """The faults found so far. `strict`: a note is an error too. `collect`: errors are kept instead of raised."""

    strict: bool = False
    collect: bool = False
    notes: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    information: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)  # of the notes, by kind
    first: dict[str, str] = field(default_factory=dict)  # the first note of each kind

    def note(self, kind: str, message: str) -> None:
        """A fault that was repaired as `kind` says. Raises DatasetError if strict."""
        if self.strict:
            raise DatasetError(f"{message} (data.strict is true)")
        self.notes.append(message)
        self.counts[kind] += 1
        self.first.setdefault(kind, message)

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

    def summary(self) -> list[str]:
        """One line a kind: its count and its first example."""
        return [f"{count} x {kind}; the first: {self.first[kind]}" for kind, count in self.counts.items()]

    def warn(self) -> None:
        """Log the summary, and the information after it."""
        for line in self.summary() + self.information:
            log.warning("%s", line)
