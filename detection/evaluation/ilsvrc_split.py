"""A config's split of ImageNet DET as the development kit knows it: its blacklist, its numbers of images and classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backbones.errors import printable, shorten
from detection.config import IlsvrcDetSource
from detection.data.catalog import resolve_devkit, resolve_root
from detection.data.ilsvrc_devkit import DET_BLACKLIST, only_file, read_det_blacklist, read_det_classes, read_det_images
from detection.errors import ConfigError, DatasetError, did_you_mean
from detection.evaluation.ilsvrc import DetDetections
from detection.evaluation.ilsvrc_files import write_det_detections
from detection.evaluation.ilsvrc_records import detections_as_det
from detection.evaluation.split import EvaluationSplit
from detection.evaluation.voc import Ints
from detection.structures import DetectionsByImage, ImageId


def unevaluated_of(split: EvaluationSplit) -> dict[ImageId, list[str]]:
    """The names of the classes that are not evaluated in an image, by its id: the blacklists of the split's sources.

    Empty for sources of other formats. Raises DatasetError.
    """
    found: dict[ImageId, list[str]] = {}
    for source in split.sources:
        if not isinstance(source, IlsvrcDetSource) or source.split not in ("val", "val1", "val2"):
            continue
        folders = _folders(source)
        classes, val = read_det_classes(folders[0]), read_det_images(folders, "val").ids
        for image, label in read_det_blacklist(only_file(folders[0], DET_BLACKLIST), classes, len(val)):
            name = classes.names[label]
            found.setdefault(val[image], []).append(split.rename.get(name, name))
    return found


@dataclass(frozen=True)
class DetNumbers:
    """How submissions number a split's images and a detector's classes; both from 0 here, and from 1 in files."""

    images: Ints  # (N,) of the split's records
    labels: Ints  # (K,) of the detector's classes


def submission_numbers(split: EvaluationSplit) -> DetNumbers:
    """The numbers of images in the kit's list of the split, joined by image id, and of classes in map_det.txt, joined by name.

    Raises ConfigError unless the split is one source of ImageNet DET whose images have numbers, DatasetError for images and
    classes without one.
    """
    source = split.sources[0] if len(split.sources) == 1 else None
    if not isinstance(source, IlsvrcDetSource) or source.split == "train":
        raise ConfigError(
            "submitted detections have the numbers of images that a split of ImageNet DET has: name val, val1, val2 or test, "
            "alone, in data.test; eval-coco and eval-voc write detections of any images"
        )
    folders = _folders(source)
    positions = read_det_images(folders, source.split).positions
    lacking = next((record.image_id for record in split.records if record.image_id not in positions), None)
    if lacking is not None:
        raise DatasetError(f"image {shorten(lacking)} has no number in the list of {source.split}: is the kit of another year?")
    images = np.array([positions[str(record.image_id)] for record in split.records], dtype=np.int64)
    return DetNumbers(images, _kit_labels(split, folders[0]))


def _kit_labels(split: EvaluationSplit, kit: Path) -> Ints:
    """(K,) the kit's label of each class. Raises DatasetError for one that has none, or several."""
    by_name: dict[str, list[int]] = {}
    for label, name in enumerate(read_det_classes(kit).names):
        by_name.setdefault(split.rename.get(name, name), []).append(label)
    for name in split.class_names:
        if len(by_name.get(name, ())) != 1:
            fault = "several classes" if name in by_name else f"no class{did_you_mean(name, by_name)}"
            raise DatasetError(
                f"class '{printable(name)}' is {fault} of {kit / 'map_det.txt'}: its detections cannot be submitted"
            )
    return np.array([by_name[name][0] for name in split.class_names], dtype=np.int64)


def write_submission(file: Path, split: EvaluationSplit, numbers: DetNumbers, detections: DetectionsByImage) -> None:
    """Write lines "image_index DET_ID confidence xmin ymin xmax ymax", as the kit and `evaluate_det_files` read them."""
    found = detections_as_det(split.records, detections)
    numbered = DetDetections(numbers.images[found.images], numbers.labels[found.labels], found.scores, found.boxes)
    write_det_detections(file, numbered)


def _folders(source: IlsvrcDetSource) -> Sequence[Path]:
    """Where the lists of a source's splits are: the kit's, whose numbers the blacklist has, before those of the data set."""
    root = resolve_root(source.root)
    return resolve_devkit(source, root), root / "ImageSets" / "DET"
