"""A data set in one format -> a folder in another; pixels are never touched."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from backbones.errors import printable
from detection.config import SPLITS, Config, DataConfig, SplitName
from detection.data.catalog import Dataset, load_split, resolve_root
from detection.data.images import read_header
from detection.data.records import count_classes
from detection.data.settle import settle_config
from detection.data.writers.dataset import DatasetFormat, write_dataset
from detection.data.writers.images import ImagePlacing
from detection.data.writers.voc import fits_voc
from detection.errors import ConfigError, DatasetError
from detection.structures import Record

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ConvertedDataset:
    """What was written."""

    folder: Path
    class_names: tuple[str, ...]
    num_images: Mapping[str, int]  # by split
    num_objects: Mapping[str, Mapping[str, int]]  # by split and class
    notes: tuple[str, ...]  # what the format could not hold, and what others should know who read it


def convert_dataset(
    config: Config,
    folder: Path,
    format: DatasetFormat,
    *,
    splits: Sequence[SplitName] | None = None,
    images: ImagePlacing = "copy",
    tell: Callable[[str], object] = logger.info,
    report: Callable[[int, int], object] | None = None,
) -> ConvertedDataset:
    """Write splits of a config's data, all that it has by default, into a folder, which must be absent or empty.

    Classes, renamed and dropped names and repairs are those of training. `tell` gets a sentence for each thing that is found
    out about the data, `report` how many images are done, and of how many. Raises ConfigError for a split without sources,
    DatasetError for data that training refuses or the format cannot hold, OSError where something cannot be written; then
    nothing is left of the folder.
    """
    chosen = require_splits(config.data, splits)
    require_outside(folder, [resolve_root(source.root) for source in config.data.all_sources])
    data = settle_config(config, tell).data
    datasets: dict[str, Dataset] = {name: load_split(data, name, masks=format == "coco") for name in chosen}
    if data.on_bad_image == "skip":
        datasets = {name: without_bad_images(dataset, tell) for name, dataset in datasets.items()}
    total = sum(map(len, datasets.values()))
    write_dataset(datasets, folder, format, images=images, report=None if report is None else lambda done: report(done, total))
    return ConvertedDataset(
        folder,
        data.class_names,
        {name: len(dataset) for name, dataset in datasets.items()},
        {name: count_classes(dataset.records, data.class_names) for name, dataset in datasets.items()},
        tuple(describe_losses(datasets, format)),
    )


def require_splits(data: DataConfig, splits: Sequence[SplitName] | None) -> list[SplitName]:
    """The splits to be converted, in their usual order. Raises ConfigError where one has no sources, or none has any."""
    present = [name for name in SPLITS if getattr(data, name)]
    absent = [name for name in splits or () if name not in present]
    if absent or not present:
        there = f"there are: {', '.join(present)}" if present else "nothing is to be converted"
        raise ConfigError(f"the data have no split '{absent[0]}'; {there}" if absent else f"the data have no split; {there}")
    return [name for name in present if splits is None or name in splits]


def require_outside(folder: Path, roots: Iterable[Path]) -> None:
    """Raise DatasetError if the folder to write is one that is read, or lies in one: it would be read as part of it."""
    for root in roots:
        place, target = root.resolve(), folder.resolve()
        if place.is_dir() and (place == target or place in target.parents):
            raise DatasetError(f"{printable(str(folder))} lies in {printable(str(root))}, which is read: name a folder outside")


def without_bad_images(dataset: Dataset, tell: Callable[[str], object] = logger.info) -> Dataset:
    """The same data set without images whose files are none; how many there are is told."""
    bad = {record.file: None for record in dataset.records if not _is_image(record.file)}
    if bad:
        tell(f"{len(bad)} images that cannot be read are left out; the first: {printable(str(next(iter(bad))))}")
    return replace(dataset, records=[record for record in dataset.records if record.file not in bad])


def _is_image(file: Path) -> bool:
    try:
        read_header(file)
    except DatasetError:
        return False
    return True


def describe_losses(splits: Mapping[str, Dataset], format: DatasetFormat) -> list[str]:
    """What a format has no place for, and what its readers need to know, a sentence each with a count."""
    records = [record for dataset in splits.values() for record in dataset.records]
    num_crowd = sum(int(record.crowd.sum()) for record in records)
    num_difficult = sum(int((record.difficult & ~record.crowd).sum()) for record in records)
    num_areas = sum(_num_other_areas(record) for record in records)
    num_thin = sum(not fits_voc(tuple(box)) for record in records for box in record.boxes.tolist())
    num_turned = sum(read_header(record.file).orientation != 1 for record in records)
    sentences = {
        "coco": ((num_difficult, "{} difficult objects have iscrowd 1: COCO has no other flag for what is not counted"),),
        "voc": (
            (num_thin, "{} boxes no wider or no higher than one pixel are left out: VOC's xmax would be xmin, which is no box"),
            (num_crowd, "{} crowd regions are written as difficult objects: VOC has no crowds"),
            (num_areas, "{} objects lose the areas of their outlines: VOC has boxes alone"),
        ),
        "yolo": (
            (num_crowd, "{} crowd regions are left out: YOLO has none, and what they hold becomes background"),
            (num_difficult, "{} difficult objects are written as ordinary ones: YOLO has no such flag"),
            (num_areas, "{} objects lose the areas of their outlines: YOLO has boxes alone"),
            (int("val" not in splits), "data.yaml has no val, without which ultralytics does not train"),
        ),
    }
    num_partial = sum(record.known is not None for record in records)
    partial = "{} images know only some of the classes, which no such file can say: to its readers the others are not there"
    turned = (
        "{} images are turned by EXIF; boxes and sizes are those of the picture as it is shown, as ultralytics, detectron2 and "
        "labelling programs take them; programs that ignore EXIF, as torchvision does, need the images turned first"
    )
    return [
        sentence.format(count)
        for count, sentence in (*sentences[format], (num_partial, partial), (num_turned, turned))
        if count
    ]


def _num_other_areas(record: Record) -> int:
    """Objects whose area is not that of their box."""
    x1, y1, x2, y2 = record.boxes.unbind(1)
    return int((((x2 - x1) * (y2 - y1) - record.areas).abs() > 0.01 * record.areas + 0.01).sum())
