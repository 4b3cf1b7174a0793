"""Which images a split of ImageNet DET has, and which classes are annotated in each.

N images, C classes of the development kit. In val all objects of all classes are annotated. An image of train has a label for
some classes: 1, all objects of the class are annotated; 0, only some may be; -1, it shows none. A class that an image has no
label for is unknown there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from backbones.errors import printable, shorten
from detection.config import IlsvrcDetSplit
from detection.config.class_lists import list_names
from detection.data.faults import Faults
from detection.data.ilsvrc_devkit import IlsvrcClasses, find_det_list, read_det_images, read_image_list
from detection.errors import DatasetError
from detection.files import is_file, read_text

NO_CLASS = -1

_LABELS = {"1": 1, "0": 0, "-1": -1}
_KINDS_OF_2014 = {"pos": 1, "part": 0, "neg": -1}  # lists without labels


@dataclass(frozen=True)
class DetImages:
    """The images of a split, by what is known of them. Few masks are different: hundreds in train's half a million images."""

    ids: Sequence[str]  # N, as the lists have them: "ILSVRC2013_train/n02672831/n02672831_11478"
    known: np.ndarray  # (U, C) bool: the different masks of classes of which all objects are annotated
    mask_of: np.ndarray  # (N,) int: each image's row of `known`
    shown: np.ndarray  # (N,) int: the first class that has label 1 in the image, or NO_CLASS

    @classmethod
    def alike(cls, ids: Sequence[str], num_classes: int, *, known: bool) -> DetImages:
        """Images of which all classes are known, or none."""
        masks = np.full((1, num_classes), known)
        return cls(ids, masks, np.zeros(len(ids), np.int64), np.full(len(ids), NO_CLASS, np.int16))

    def __len__(self) -> int:
        return len(self.ids)


def list_det_images(split: IlsvrcDetSplit, image_sets: Path, devkit: Path, classes: IlsvrcClasses, faults: Faults) -> DetImages:
    """The images of a split. `image_sets` is ImageSets/DET, `devkit` the kit's data folder.

    Raises DatasetError: no list, a line that is none, an image that a list of another year must have, labels that contradict.
    """
    num_classes = len(classes.names)
    if split == "train":
        return _read_train(image_sets, devkit, classes, faults)
    own = find_det_list([image_sets], "test" if split == "test" else "val")
    if split in ("val", "test"):
        images = read_det_images([devkit], split) if own is None else read_image_list(own)
        return DetImages.alike(images.ids, num_classes, known=split == "val")
    half = read_det_images([devkit, image_sets], split)
    present = half.positions.keys() if own is None else read_image_list(own).positions.keys()
    ids = [image_id for image_id in half.ids if image_id in present]
    if len(ids) < len(half.ids):
        faults.inform(f"{own} lists {len(ids)} of the {len(half.ids)} images of {split}: the others are left out")
    return DetImages.alike(ids, num_classes, known=True)


def _read_train(image_sets: Path, devkit: Path, classes: IlsvrcClasses, faults: Faults) -> DetImages:
    """The images of all lists, in the order in which they are met."""
    places: dict[str, int] = {}  # image id -> its place
    labelled: list[_Labelled] = []
    missing = []
    numbers = range(1, len(classes.names) + 1)
    # One layout for all classes: their ids of one image differ.
    of_2015 = any(is_file(_list_of_2015(image_sets, number)) for number in numbers)
    for number, name in zip(numbers, classes.names, strict=True):
        files = _present([_list_of_2015(image_sets, number)] if of_2015 else _lists_of_2014(devkit, number))
        labelled.append(_read_class(files, name, places))
        missing += [] if files else [name]
    if len(missing) == len(classes.names):
        raise DatasetError(
            f"there is no list of train images: neither train_1.txt in {image_sets} nor det_lists/train_pos_1.txt in {devkit}"
        )
    if missing:
        faults.inform(
            f"no list of train images for {len(missing)} of the {len(classes.names)} classes, which are unknown in them: "
            f"{list_names(list(map(printable, missing)))}"
        )
    return _gather(tuple(places), labelled)


def _list_of_2015(image_sets: Path, number: int) -> Path:
    return image_sets / f"train_{number}.txt"


def _lists_of_2014(devkit: Path, number: int) -> list[Path]:
    return [devkit / "det_lists" / f"train_{kind}_{number}.txt" for kind in _KINDS_OF_2014]


def _present(files: list[Path]) -> list[Path]:
    """The lists of a class, or none where it has none. Raises DatasetError where it has some of them."""
    absent = [file for file in files if not is_file(file)]
    if 0 < len(absent) < len(files):
        raise DatasetError(f"there is no {absent[0]}: a class has three lists, train_pos, train_part and train_neg, or none")
    return [] if absent else files


class _Labelled(NamedTuple):
    """What the lists of one class say: different images, a label each."""

    places: np.ndarray  # int
    labels: np.ndarray  # int8


def _read_class(files: Sequence[Path], name: str, places: dict[str, int]) -> _Labelled:
    """`places` gets the images that are new. Raises DatasetError, also for an image with two labels."""
    rows = [row for file in files for row in _read_list(file)]
    images = np.array([places.setdefault(image_id, len(places)) for image_id, _ in rows], np.int64)
    pairs = np.unique(images * 3 + np.array([label + 1 for _, label in rows], np.int64))
    images, labels = (pairs // 3).astype(np.int32), (pairs % 3 - 1).astype(np.int8)
    twice = images[1:][images[1:] == images[:-1]]
    if len(twice):
        image_id = next(image_id for image_id, place in places.items() if place == twice[0])
        found = " and ".join(map(str, labels[images == twice[0]].tolist()))
        raise DatasetError(f"{files[0]}: image {shorten(image_id)} has the labels {found} for {printable(name)}")
    return _Labelled(images, labels)


def _read_list(file: Path) -> list[tuple[str, int]]:
    """The image ids of a list and their labels; a list of 2014 has the one of its name. Raises DatasetError naming the line."""
    own_label = _KINDS_OF_2014.get(file.stem.split("_")[1])
    rows = []
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        words = line.split()
        if own_label is not None and len(words) == 1:
            rows.append((words[0], own_label))
        elif own_label is None and len(words) == 2 and words[1] in _LABELS:
            rows.append((words[0], _LABELS[words[1]]))
        elif words:
            form = "'IMAGE_ID LABEL' with the label 1, 0 or -1" if own_label is None else "'IMAGE_ID'"
            raise DatasetError(f"{file}, line {number}: expected {form}, found {shorten(line.strip())}")
    return rows


def _gather(ids: Sequence[str], labelled: Sequence[_Labelled]) -> DetImages:
    """What the lists of all classes say, image by image; a bit for each image and class meanwhile."""
    bits = np.zeros((len(ids), -(-len(labelled) // 8)), np.uint8)
    shown = np.full(len(ids), NO_CLASS, np.int16)
    for number, (images, labels) in reversed(list(enumerate(labelled))):
        bits[images[labels != 0], number // 8] |= np.uint8(1 << number % 8)
        shown[images[labels == 1]] = number
    masks, mask_of = np.unique(bits, axis=0, return_inverse=True)
    known = np.unpackbits(masks, axis=1, count=len(labelled), bitorder="little").astype(bool)
    return DetImages(ids, known, mask_of.reshape(-1), shown)
