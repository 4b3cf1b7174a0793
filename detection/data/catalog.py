"""The sources that a config names -> one data set: its images, its classes, and what had to be repaired."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from detection.config import CocoSource, VocSource
from detection.config.class_lists import resolve_classes
from detection.data.coco import read_coco
from detection.data.faults import Faults
from detection.data.records import describe_duplicates, describe_relative
from detection.data.voc import read_voc
from detection.errors import DatasetError
from detection.files import exists
from detection.structures import ImageId, Record


@dataclass(frozen=True)
class Dataset:
    """The images of one split."""

    class_names: tuple[str, ...]  # K
    records: list[Record]
    faults: list[str] = field(default_factory=list)  # what was repaired, one message each

    def __len__(self) -> int:
        return len(self.records)


def load_dataset(sources: Sequence[VocSource | CocoSource], classes: str | Sequence[str], strict: bool = False) -> Dataset:
    """Read and join sources; what had to be repaired is logged as one warning per kind.

    `classes` are names, or "voc" or "coco". Raises DatasetError; if `strict`, also for what would have been repaired.
    """
    faults = Faults(strict=strict)
    class_names = resolve_classes(classes)
    records = read_sources(sources, class_names, faults)
    faults.warn()
    return Dataset(class_names, records, [note.message for note in faults.notes])


def read_sources(sources: Sequence[VocSource | CocoSource], class_names: Sequence[str], faults: Faults) -> list[Record]:
    """Read and join sources. Raises DatasetError, or collects it in `faults`."""
    if not sources:
        raise DatasetError("no source of images is given: set data.train, data.val or data.test in the config")
    records: list[Record] = []
    seen: dict[ImageId, Path] = {}
    for source in sources:
        num_errors = len(faults.errors)
        with faults.guard():
            found = _read_source(source, class_names, faults)
            if not found and len(faults.errors) == num_errors:
                raise DatasetError(f"{_describe(source)} holds no image")
            for record in found:
                with faults.guard():
                    _check_new(record, seen)
                    records.append(record)
    for message in (describe_duplicates(records), describe_relative(records)):
        if message is not None:
            faults.inform(message)
    return records


def _read_source(source: VocSource | CocoSource, class_names: Sequence[str], faults: Faults) -> list[Record]:
    root = resolve_root(source.root)
    if isinstance(source, VocSource):
        return read_voc(source, root, class_names, faults)
    return read_coco(source, root, class_names, faults)


def _check_new(record: Record, seen: dict[ImageId, Path]) -> None:
    """Raise DatasetError if the image id is taken: detections are stored by it, so it must be unique."""
    if record.image_id in seen:
        raise DatasetError(f"image id {record.image_id!r} occurs twice: {seen[record.image_id]} and {record.file}")
    seen[record.image_id] = record.file


def _describe(source: VocSource | CocoSource) -> str:
    if isinstance(source, VocSource):
        return f"split '{source.split}' of {source.root}"
    return str(source.root / source.annotations)


def data_home() -> Path:
    """Where data sets are that are not where a config says: $RESDET_DATASETS, or datasets/."""
    return Path(os.environ.get("RESDET_DATASETS") or "datasets")


def resolve_root(path: Path) -> Path:
    """A data set's folder or archive: as given if it exists from here, else under $RESDET_DATASETS or datasets/.

    Raises DatasetError naming the places tried.
    """
    tried = [path] if path.is_absolute() else [path, data_home() / path]
    for place in tried:
        if exists(place):
            return place
    places = " nor at ".join(str(place) for place in tried)
    raise DatasetError(
        f"there is no data set at {places}; set RESDET_DATASETS or the source's root, or fetch it with datasets/download.py"
    )
