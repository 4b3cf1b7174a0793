"""The sources that a config names -> one data set: its images, its classes, and what had to be repaired."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from detection.config import (
    CocoSource,
    DataConfig,
    FolderSource,
    HeldOut,
    IlsvrcDetSource,
    LocDataConfig,
    Source,
    SplitName,
    VocSource,
)
from detection.data.classes import ClassMap, describe_left_out
from detection.data.coco import read_coco
from detection.data.duplicate_objects import describe_equal_objects
from detection.data.faults import MISSING_IMAGE, Faults
from detection.data.formats.readers import read_folder
from detection.data.held_out import hold_out
from detection.data.ilsvrc_det import read_ilsvrc_det
from detection.data.ilsvrc_devkit import data_folder
from detection.data.known import with_known_classes
from detection.data.labelled import to_records
from detection.data.orientation import turn_records
from detection.data.records import describe_relative
from detection.data.split import ImageSplit, describe_uneven, read_split, select_records
from detection.data.voc import read_voc
from detection.errors import DatasetError
from detection.files import exists, expand_home
from detection.structures import ImageId, Record


@dataclass(frozen=True)
class Dataset:
    """The images of one split."""

    class_names: tuple[str, ...]  # K
    records: list[Record]
    faults: list[str] = field(default_factory=list)  # what was repaired, one message each
    weights: Mapping[ImageId, float] = field(default_factory=dict)  # how often training draws an image, where that is not once

    def __len__(self) -> int:
        return len(self.records)


def load_split(data: DataConfig, name: SplitName, *, masks: bool = False) -> Dataset:
    """One of a config's splits; what had to be repaired is logged as one warning per kind.

    `masks`: read the masks of objects too, as `model.mask` asks for; polygons stay such until their pixels are used.

    Raises DatasetError, with `data.strict` also for what would have been repaired; ConfigError where the config's classes or
    sources have yet to be settled (`detection.data.settle.settle_config`).
    """
    if name == "train" or (data.held_out is not None and (name == "val" or not data.test)):
        parts = load_parts(data, masks=masks)
        if name not in parts:
            raise DatasetError(f"no images are named for {name}: set data.{name}, or name a split with such a part")
        return parts[name]
    faults = Faults.of(data)
    weights: dict[ImageId, float] = {}
    sources = data.test if name == "test" else data.val_sources
    records = read_sources(sources, ClassMap.of(data), faults, weights, masks=masks)
    faults.warn()
    return Dataset(data.class_names, records, [note.message for note in faults.notes], weights)


def load_parts(data: DataConfig, kept: ImageSplit | None = None, *, masks: bool = False) -> dict[SplitName, Dataset]:
    """`data.train` in the parts that `data.val` makes of it: train and val, and test where the split's file has it.

    `kept` is what that file holds, where it was read already. Without images held out it is train alone. What had to be
    repaired, in any part, is logged. Raises as `load_split` does.
    """
    faults = Faults.of(data)
    weights: dict[ImageId, float] = {}
    parts = read_parts(data, faults, weights, kept, masks=masks)
    faults.warn()
    repaired = [note.message for note in faults.notes]
    return {name: Dataset(data.class_names, records, repaired, weights) for name, records in parts.items()}


def read_parts(
    data: DataConfig,
    faults: Faults,
    weights: dict[ImageId, float] | None = None,
    kept: ImageSplit | None = None,
    *,
    masks: bool = False,
) -> dict[SplitName, list[Record]]:
    """The records of `load_parts`. Raises DatasetError, or collects it in `faults`; `weights` as `read_sources`."""
    records = read_sources(data.train, ClassMap.of(data), faults, weights, masks=masks)
    if data.held_out is None or not records:
        return {"train": records}
    if data.held_out.file is None:
        parts = hold_out(records, data, data.held_out)
    else:
        file = resolve_file(data.held_out.file)
        parts = select_records(records, kept or read_split(file), file, faults)
    for line in describe_uneven(parts, data.class_names):
        faults.inform(line)
    return parts


def divide_training_images(data: DataConfig, held_out: HeldOut, test_fraction: float = 0.0) -> dict[SplitName, list[Record]]:
    """All of `data.train` in parts: train, val and, with `test_fraction`, test. Raises ConfigError or DatasetError."""
    faults = Faults.of(data)
    records = read_sources(data.train, ClassMap.of(data), faults)
    faults.warn()
    return hold_out(records, data, held_out, test_fraction)


def load_dataset(
    sources: Sequence[Source], classes: str | Sequence[str], strict: bool = False, *, masks: bool = False
) -> Dataset:
    """Read and join sources; what had to be repaired is logged as one warning per kind.

    `classes` are names, or "voc", "coco" or "ilsvrc_det"; `masks` as `load_split`. Raises DatasetError, if `strict` for
    what would be repaired too.
    """
    faults = Faults(strict=strict, thorough=strict)
    class_map = ClassMap.to(classes)
    weights: dict[ImageId, float] = {}
    records = read_sources(sources, class_map, faults, weights, masks=masks)
    faults.warn()
    return Dataset(class_map.names, records, [note.message for note in faults.notes], weights)


def read_sources(
    sources: Sequence[Source],
    classes: ClassMap,
    faults: Faults,
    weights: dict[ImageId, float] | None = None,
    *,
    masks: bool = False,
) -> list[Record]:
    """Read and join sources. Raises DatasetError, or collects it in `faults`.

    `weights` gets the weight of the source of each image, where that is not 1.
    With `masks` records have those of sources in COCO's and VOC's format, and polygons of labelme and YOLO.
    """
    if not sources:
        raise DatasetError("no source of images is given: set data.train, data.val or data.test in the config")
    records: list[Record] = []
    seen: dict[ImageId, Path] = {}
    for source in sources:
        num_errors = len(faults.errors)
        with faults.guard():
            found = _read_source(source, classes, faults, masks)
            if not found and len(faults.errors) == num_errors:
                missing = faults.by_kind().get(MISSING_IMAGE, [""])[0]
                raise DatasetError(f"{_describe(source)} holds no image{missing and f' that exists: {missing}'}")
            found = with_known_classes(found, source.known_classes, _describe(source), classes, faults)
            for record in found if not isinstance(source, FolderSource) else _with_ids_of_their_own(found, seen):
                with faults.guard():
                    _check_new(record, seen)
                    records.append(record)
                    if weights is not None and source.weight != 1:
                        weights[record.image_id] = source.weight
    unknown = classes.describe_unknown(faults.names) if records else []
    for message in (*unknown, describe_left_out(faults.left_out), describe_equal_objects(records), describe_relative(records)):
        if message is not None:
            faults.inform(message)
    return records


def _read_source(source: Source, classes: ClassMap, faults: Faults, masks: bool) -> list[Record]:
    root = resolve_root(source.root)
    if isinstance(source, VocSource):
        return turn_records(read_voc(source, root, classes, faults, masks=masks), source.boxes_in, faults)
    if isinstance(source, CocoSource):
        return turn_records(read_coco(source, root, classes, faults, masks=masks), source.boxes_in, faults)
    if isinstance(source, IlsvrcDetSource):
        devkit = resolve_devkit(source, root)
        return turn_records(read_ilsvrc_det(source, root, devkit, classes, faults), source.boxes_in, faults)
    return to_records(read_folder(source, root, faults), classes, source.boxes_in, faults, masks=masks)


def _with_ids_of_their_own(records: Sequence[Record], seen: Mapping[ImageId, Path]) -> list[Record]:
    """Records of a folder, whose ids are paths in it, with whole paths where another folder has such an image."""
    return [
        replace(record, image_id=record.file.as_posix()) if seen.get(record.image_id, record.file) != record.file else record
        for record in records
    ]


def _check_new(record: Record, seen: dict[ImageId, Path]) -> None:
    """Raise DatasetError if the image id is taken: detections are stored by it, so it must be unique."""
    if record.image_id in seen:
        raise DatasetError(f"image id {record.image_id!r} occurs twice: {seen[record.image_id]} and {record.file}")
    seen[record.image_id] = record.file


def _describe(source: Source) -> str:
    if isinstance(source, CocoSource):
        return str(source.root / source.annotations)
    return str(source.root) if source.split is None else f"split '{source.split}' of {source.root}"


def data_home() -> Path:
    """Where data sets are that are not where a config says: $RESDET_DATASETS, or datasets/."""
    return expand_home(os.environ.get("RESDET_DATASETS") or "datasets")


def resolve_file(path: Path) -> Path:
    """A file that a config names: from here or, where it is not there, from where data sets are."""
    elsewhere = data_home() / path
    return elsewhere if not exists(path) and exists(elsewhere) else path


def resolve_devkit(source: IlsvrcDetSource | LocDataConfig, root: Path) -> Path:
    """The folder with the maps of a source's development kit: below its root, else as `resolve_root`. Raises DatasetError."""
    own = root / source.devkit
    if exists(own):
        return data_folder(own)
    try:
        return data_folder(resolve_root(source.devkit))
    except DatasetError as error:
        raise DatasetError(f"there is no development kit at {own}, and {error}") from None


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
