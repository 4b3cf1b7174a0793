"""A data set in memory -> a folder in one of the formats that this library and others read.

| format | labels | images |
|---|---|---|
| coco | annotations/instances_SPLIT.json | images/SPLIT/NAME |
| yolo | labels/SPLIT/STEM.txt, data.yaml | images/SPLIT/NAME |
| voc | Annotations/STEM.xml, ImageSets/Main/SPLIT.txt | JPEGImages/NAME |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal

from backbones.errors import printable
from detection.data.catalog import Dataset
from detection.data.images import image_size, is_image_name, require_annotated_size
from detection.data.writers.coco import CocoWriter
from detection.data.writers.images import ImagePlacing, place_image
from detection.data.writers.labels import ImageLabels, LabelWriter, labels_of_record
from detection.data.writers.names import flat_names
from detection.data.writers.voc import VocWriter
from detection.data.writers.yolo import YoloWriter, data_yaml
from detection.errors import DatasetError
from detection.files import new_folder
from detection.structures import Record

DatasetFormat = Literal["coco", "yolo", "voc"]


def write_dataset(
    splits: Mapping[str, Dataset],
    folder: Path,
    format: DatasetFormat,
    *,
    images: ImagePlacing = "copy",
    report: Callable[[int], object] | None = None,
) -> None:
    """Write splits of one list of classes into a folder, which must be absent or empty: whole, or not at all.

    With `images` "none" only labels are written, which refer to the images where the format has a place for it. `report` is
    called with the number of images done so far. Raises DatasetError where an image is not as its record says or the format
    cannot hold it, OSError where something cannot be written.
    """
    class_names = next(iter(splits.values())).class_names
    labels = _name_images({split: dataset.records for split, dataset in splits.items()})
    num_done = 0
    with new_folder(folder) as made:
        for split, members in labels.items():
            with closing(_open_writer(format, made, split, class_names, images)) as writer:
                for image in members:
                    _check(image, format)
                    writer.add(image)
                    place_image(image.file, made / _image_folder(format, split) / image.name, images)
                    num_done += 1
                    if report is not None:
                        report(num_done)
        if format == "yolo":
            _write_text(made / "data.yaml", data_yaml(list(splits), class_names))


def _open_writer(
    format: DatasetFormat, folder: Path, split: str, class_names: Sequence[str], images: ImagePlacing
) -> LabelWriter:
    paths = images == "none"
    if format == "coco":
        return CocoWriter(folder / "annotations" / f"instances_{split}.json", class_names, image_paths=paths)
    if format == "yolo":
        return YoloWriter(folder / "labels" / split, _write_text)
    return VocWriter(folder, split, class_names, image_paths=paths, write=_write_text)


def _write_text(file: Path, text: str) -> None:
    # Not `write_whole`: the folder as a whole appears or does not, and to wait for the disk for each file takes minutes.
    file.write_text(text, encoding="utf-8", newline="\n")


def _image_folder(format: DatasetFormat, split: str) -> str:
    return "JPEGImages" if format == "voc" else f"images/{split}"


def _name_images(splits: Mapping[str, Sequence[Record]]) -> dict[str, list[ImageLabels]]:
    """The images with names that are unique in all splits; an image of several splits has one name."""
    keys = {split: _keys(records) for split, records in splits.items()}
    distinct = list(dict.fromkeys(key for members in keys.values() for key in members))
    names = dict(zip(distinct, flat_names([file for file, _ in distinct]), strict=True))
    labels = {}
    for split, records in splits.items():
        ids = [record.image_id if type(record.image_id) is int else None for record in records]
        kept = ids if None not in ids else [None] * len(ids)
        rows = zip(records, keys[split], kept, strict=True)
        labels[split] = [labels_of_record(record, names[key], image_id) for record, key, image_id in rows]
    return labels


def _keys(records: Sequence[Record]) -> list[tuple[Path, int]]:
    """Each image's file, and how often it came before: a COCO file may list one under several ids, with labels of their own."""
    seen: Counter[Path] = Counter()
    keys = []
    for record in records:
        keys.append((record.file, seen[record.file]))
        seen[record.file] += 1
    return keys


def _check(image: ImageLabels, format: DatasetFormat) -> None:
    """Raise DatasetError where the file is not of the size that its annotation says, or has a name that cannot be found."""
    require_annotated_size(str(image.file), image_size(image.file), image.size_hw)
    if format != "coco" and not is_image_name(image.name):
        raise DatasetError(
            f"image {printable(str(image.file))} has no suffix that tells its kind, by which {format} finds it: rename it, or "
            f"write coco"
        )
