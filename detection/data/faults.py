"""The faults of a data set: small ones are repaired and counted, the others are errors.

A reader repairs a small fault and reports it with `note`; it raises DatasetError for a fault that would spoil training. It
reads each image or object inside `guard()`, so that `check-dataset` can collect all errors where training stops at the first,
and so that images that are missing can be left out.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from detection.config import DataConfig
from detection.errors import BadImageError, DatasetError, MissingImageError

MISSING_IMAGE = "image that does not exist, left out"
"""The kind of fault of an image that labels name and that is not there."""

BAD_IMAGE = "image that cannot be used, skipped"
"""The kind of fault of an image that cannot be read."""

logger = logging.getLogger(__name__)


class RepairedFault(NamedTuple):
    """A fault that was repaired."""

    kind: str  # what was wrong and what was done: "inverted box, dropped"
    message: str  # where: file, object, values; then the kind
    image: Path | None = None  # the file of the image that was read
    box: tuple[float, float, float, float] | None = None  # the faulty box, xyxy pixels, as it was


@dataclass
class Faults:
    """The faults found so far. `strict`: a repairable fault is an error too. `collect`: errors are kept instead of raised.

    `skip_missing`, `skip_bad`: an image that is not there, or cannot be read, is a fault that is repaired by leaving it out.
    `thorough`: faults that take long to find are looked for, too, as `check-dataset` and strictness do.
    """

    strict: bool = False
    collect: bool = False
    skip_missing: bool = False
    skip_bad: bool = False
    thorough: bool = False
    notes: list[RepairedFault] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    information: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)  # of classes, as they stand in the data
    image: Path | None = None  # whose objects are read now
    left_out: Counter[str] = field(default_factory=Counter)  # name of a class -> number of its objects that are not read

    @classmethod
    def of(cls, data: DataConfig, collect: bool = False) -> Faults:
        """None yet, to be dealt with as a config says."""
        skip_missing, skip_bad = data.on_missing_image == "skip", data.on_bad_image == "skip"
        return cls(data.strict, collect, skip_missing, skip_bad, thorough=collect or data.strict)

    def note(self, where: str, fault: str, repair: str, box: tuple[float, float, float, float] | None = None) -> None:
        """Add a fault that is repaired, e.g. ("a.xml, object 3", "inverted box", "dropped"), of a box of `image` if given.

        Raises DatasetError if strict.
        """
        if self.strict:
            raise DatasetError(f"{where}: {fault} (refused, as data.strict is true)")
        self.notes.append(RepairedFault(f"{fault}, {repair}", f"{where}: {fault}, {repair}", self.image, box))

    def inform(self, message: str) -> None:
        """Add a message about something that is no fault but should be known."""
        self.information.append(message)

    def meet(self, name: str, left_out: int = 0) -> None:
        """Remember that a name of a class occurs in the data, and how many of its objects are left out."""
        self.names.add(name)
        if left_out:
            self.left_out[name] += left_out

    @contextmanager
    def guard(self) -> Iterator[None]:
        """A context for reading one item: a DatasetError ends the block and is raised, or, with `collect`, kept in `errors`.

        An image that is missing or bad, and is to be skipped, ends the block too, and is a repaired fault.
        """
        try:
            yield
        except DatasetError as error:
            if isinstance(error, MissingImageError) and self.skip_missing and not self.strict:
                self.notes.append(RepairedFault(MISSING_IMAGE, error.args[0]))
            elif isinstance(error, BadImageError) and self.skip_bad and not self.strict:
                self.notes.append(RepairedFault(BAD_IMAGE, str(error)))
            elif not self.collect:
                raise
            else:
                self.errors.append(str(error))

    def by_kind(self) -> dict[str, list[str]]:
        """The messages of the repaired faults, grouped by kind."""
        kinds: dict[str, list[str]] = {}
        for note in self.notes:
            kinds.setdefault(note.kind, []).append(note.message)
        return kinds

    def summary(self) -> list[str]:
        """One line per kind of fault, with its count and its first case; then the information."""
        lines = [f"{len(messages)} x {kind}; the first: {messages[0]}" for kind, messages in self.by_kind().items()]
        return lines + self.information

    def warn(self) -> None:
        """Log each line of the summary as a warning."""
        for line in self.summary():
            logger.warning("%s", line)
