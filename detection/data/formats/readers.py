"""The reader of each format of a FolderSource."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from detection.config import FolderFormat, FolderSource
from detection.data.faults import Faults
from detection.data.labelled import LabelledImage, ReadFolder
from detection.errors import DatasetError

READERS: Mapping[FolderFormat, ReadFolder] = {}


def read_folder(source: FolderSource, root: Path, faults: Faults) -> list[LabelledImage]:
    """The images of a folder, or of a file of labels, with their objects. Raises DatasetError.

    `format: auto` has to be settled before (`detection.data.settle`).
    """
    if source.format not in READERS:
        raise DatasetError(f"format '{source.format}' of {root} is not read yet")
    return READERS[source.format](source, root, faults)
