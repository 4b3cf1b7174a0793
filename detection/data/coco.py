"""COCO's instance annotations: one JSON file, one folder of images.

Category ids of the file (1..90 with gaps, or anything) are matched to classes by name. Boxes are `xywh` in the file,
continuous and 0-based, and `xyxy` here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from backbones.errors import printable, shorten
from detection.config import CocoSource
from detection.config.class_lists import list_names
from detection.data.classes import ClassMap
from detection.data.coco_format import (
    CocoAnnotation,
    CocoFile,
    CocoId,
    CocoImage,
    describe,
    image_name,
    read_coco_file,
    read_object,
)
from detection.data.faults import Faults
from detection.data.image_paths import ImageFinder
from detection.data.images import image_size
from detection.data.object_masks import note_misfit, read_segmentation
from detection.data.records import AnnotatedObject, Box, finite_number, make_record, needs_no_repair, repair_box
from detection.errors import DatasetError, MissingImageError, did_you_mean
from detection.files import is_file
from detection.structures import Record

_MAX_SUGGESTED = 5000  # categories that a misspelt class is compared with; more would take minutes


def read_coco(source: CocoSource, root: Path, classes: ClassMap, faults: Faults, *, masks: bool = False) -> list[Record]:
    """The images of a file, in its order. `root` is the source's, resolved; `masks`: read its segmentations too.

    Raises DatasetError: what `read_coco_file` refuses, no such folder, an image without a file name or missing, an `iscrowd`
    that is neither 0 nor 1, none of the classes among the categories.
    """
    return read_coco_content(
        read_coco_file(root / source.annotations, faults), root / source.images, classes, faults, masks=masks
    )


def read_coco_content(
    content: CocoFile, folder: Path | None, classes: ClassMap, faults: Faults, *, masks: bool = False
) -> list[Record]:
    """The images of a file that was read, in its order; their files are looked for in `folder`.

    Without a folder they may be missing, if the annotations say how large they are. Raises DatasetError as `read_coco`.
    """
    labels = match_categories(content, classes, faults)
    images = None if folder is None else ImageFinder([folder])
    annotations = defaultdict(list)
    for annotation in content.annotations:
        annotations[annotation.image_id].append(annotation)
    records = []
    for image in content.images:
        with faults.guard():
            file = _find_image(images, image, content.path)
            records.append(_read_image(image, file, annotations[image.id], labels, content.path, faults, masks))
    if images is not None:
        images.inform(str(content.path), faults)
    _inform_of_shared_files(records, content.path, faults)
    return records


def match_categories(content: CocoFile, classes: ClassMap, faults: Faults) -> dict[CocoId, int | None]:
    """Category id -> label, or None for a category that is not among the classes.

    Objects of categories that are left out are counted. A class that the file lacks is a fault: it may be misspelt.
    """
    names = list(dict.fromkeys(content.categories.values()))
    found = {classes.rename.get(name, name) for name in names if not classes.leaves_out(name)}
    if not classes.labels.keys() & found:
        known = ", ".join(map(printable, names[:10])) or "none"
        raise DatasetError(f"{content.path} has none of data.classes ({list_names(classes.names)}); its categories: {known}")
    for name in sorted(classes.labels.keys() - found, key=classes.labels.__getitem__):
        similar = did_you_mean(name, names[:_MAX_SUGGESTED])
        faults.note(f"{content.path}: '{name}'{similar}", "class that is no category", "without objects")
    # Those of another list than ours are many and mostly meant to be left out, as when two classes of COCO's are learnt.
    lenient = replace(classes, others="drop")
    labels = {category: lenient.label(name, str(content.path)) for category, name in content.categories.items()}
    counts = Counter(annotation.category_id for annotation in content.annotations)
    for category, name in content.categories.items():
        faults.meet(name, counts[category] if labels[category] is None else 0)
    return labels


def _find_image(images: ImageFinder | None, image: CocoImage, path: Path) -> Path:
    """The image's file; without a finder the name, from the annotations' folder, of a file that may be missing.

    Raises DatasetError if it has no name, or the finder finds none of that name.
    """
    name = image.entry.get("file_name")
    if "file_name" not in image.entry:
        raise DatasetError(f"{path}: images[{image.position}] has no 'file_name'")
    if not isinstance(name, str) or not name:
        raise DatasetError(f"{path}: images[{image.position}]: 'file_name' must be text, found {shorten(name)}")
    return path.parent / name if images is None else images.find(name, str(path))


def _read_image(
    image: CocoImage,
    file: Path,
    annotations: Sequence[CocoAnnotation],
    labels: Mapping[CocoId, int | None],
    path: Path,
    faults: Faults,
    masks: bool,
) -> Record:
    name = image_name(image)
    size_hw = _size_hw(image, f"{path}: {name}", faults)
    if size_hw is None and not is_file(file):
        raise MissingImageError(f"{path} does not say how large {printable(name)} is, and there is no {printable(str(file))}")
    size_hw = size_hw or image_size(file)
    faults.image, objects = file, []
    for annotation in annotations:
        label = labels.get(annotation.category_id)
        if label is not None:
            with faults.guard():
                annotated = _read_object(annotation, label, size_hw, name, path, faults)
                if annotated is not None:
                    objects.append(_with_mask(annotated, annotation, size_hw, name, path, faults) if masks else annotated)
    return make_record(image.id, file, size_hw, objects)


def _size_hw(image: CocoImage, where: str, faults: Faults) -> tuple[int, int] | None:
    """(height, width), or None where the file has no such numbers (some tools write 0)."""
    values = [image.entry.get(key) for key in ("height", "width")]
    sides = [_side(value) for value in values]
    if any(value not in (None, 0) and side is None for value, side in zip(values, sides, strict=True)):
        what = f"{where}: height {shorten(values[0])}, width {shorten(values[1])}"
        faults.note(what, "size that is not two whole numbers", "taken from the image")
    height, width = sides
    return None if height is None or width is None else (height, width)


def _side(value: Any) -> int | None:
    """A height or width of at least 1 px, or None where the value is no such number."""
    side = finite_number(value)
    return int(side) if side is not None and side.is_integer() and 1 <= side < 2**31 else None


def _read_object(
    annotation: CocoAnnotation, label: int, size_hw: tuple[int, int], image: str, path: Path, faults: Faults
) -> AnnotatedObject | None:
    """The object, or None where it was dropped, which is noted in `faults`."""
    found = read_object(annotation, image, path, faults)
    if found is None:
        return None
    box: Box | None
    box = _to_xyxy(found.xywh)
    if not needs_no_repair(box, size_hw):
        where = f"{describe(annotation, image, path)}, bbox {annotation.entry['bbox']}"
        box = repair_box(box, size_hw, where, faults)
    return None if box is None else AnnotatedObject(box, label, crowd=found.crowd, area=found.area)


def _with_mask(
    each: AnnotatedObject, annotation: CocoAnnotation, size_hw: tuple[int, int], image: str, path: Path, faults: Faults
) -> AnnotatedObject:
    where = describe(annotation, image, path)
    found = replace(each, mask=read_segmentation(annotation.entry.get("segmentation"), size_hw, where, faults))
    note_misfit(found, size_hw, where, faults)
    return found


def _to_xyxy(xywh: Sequence[float]) -> Box:
    x, y, width, height = xywh
    return x, y, x + width, y + height


def _inform_of_shared_files(records: Sequence[Record], path: Path, faults: Faults) -> None:
    """Say which files are listed as several images: the objects of one are background in the others."""
    shared = [file for file, count in Counter(record.file for record in records).items() if count > 1]
    if shared:
        faults.inform(f"{path}: {len(shared)} image files are listed under several ids, e.g. {printable(str(shared[0]))}")
