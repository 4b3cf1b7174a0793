"""The lists of ImageNet's development kit: its classes, the images of its splits, and what is not evaluated of them.

N images, K classes. Raises DatasetError naming file, line, value and the fix.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from backbones.errors import shorten
from detection.errors import DatasetError
from detection.files import is_file, read_text

DET_BLACKLIST = "*det_validation_blacklist.txt"
"""How the kits of all years call the list of images and classes that are not evaluated."""
LOC_BLACKLIST = "*clsloc_validation_blacklist.txt"


@dataclass(frozen=True)
class IlsvrcClasses:
    """K classes in the order of the kit's ids, which count from 1: the label is the id - 1."""

    wnids: tuple[str, ...]
    names: tuple[str, ...]  # for people

    @property
    def labels(self) -> dict[str, int]:
        """WNID -> label."""
        return {wnid: label for label, wnid in enumerate(self.wnids)}

    @cached_property
    def name_of(self) -> dict[str, str]:
        """WNID -> name."""
        return dict(zip(self.wnids, self.names, strict=True))


@dataclass(frozen=True)
class ImageList:
    """A split's images in the order of their numbers, which count from 1."""

    ids: tuple[str, ...]  # "ILSVRC2012_val_00000001"

    @property
    def positions(self) -> dict[str, int]:
        """Image id -> position, from 0."""
        return {image_id: position for position, image_id in enumerate(self.ids)}


def data_folder(devkit: Path) -> Path:
    """The folder with the kit's maps: DEVKIT/data, or DEVKIT itself."""
    for folder in (devkit / "data", devkit):
        if any((folder / name).is_file() for name in ("map_det.txt", "map_clsloc.txt")):
            return folder
    raise DatasetError(f"{devkit} is no development kit of ImageNet: neither data/map_det.txt nor data/map_clsloc.txt is in it")


def kit_files(devkit: Path) -> list[Path]:
    """What may be read of a kit: its maps, lists and ground truth. Raises DatasetError as `data_folder` does."""
    folder = data_folder(devkit)
    return [*folder.glob("*.txt"), *folder.glob("*.mat"), folder / "det_lists"]


def read_det_classes(folder: Path) -> IlsvrcClasses:
    """map_det.txt of a kit's data folder. Its names tell the classes apart, which CLS-LOC's do not: two stand for two each."""
    file = folder / "map_det.txt"
    classes = read_classes(file)
    if len(classes.name_of) > len(set(classes.names)):
        raise DatasetError(f"{file}: two classes are called {shorten(_first_repeated(classes.names))}")
    return classes


def read_classes(file: Path) -> IlsvrcClasses:
    """map_det.txt or map_clsloc.txt: "WNID ID NAME" on each line, the ids 1 to K each once."""
    entries: dict[int, tuple[str, str]] = {}
    for where, fields in _each_line(file):
        number = _whole_number(fields[1]) if len(fields) == 3 else None
        if number is None:
            raise DatasetError(f"{where}: expected 'WNID ID NAME', found {shorten(' '.join(fields))}")
        if number in entries:
            raise DatasetError(f"{where}: class {number} is there already, as {shorten(entries[number][0])}")
        entries[number] = (fields[0], fields[2].replace("_", " "))
    if not entries:
        raise DatasetError(f"{file} lists no class")
    if sorted(entries) != list(range(1, len(entries) + 1)):
        raise DatasetError(f"{file}: the ids must be 1 to {len(entries)}, each once")
    ordered = [entries[number] for number in sorted(entries)]
    wnids = tuple(wnid for wnid, _ in ordered)
    if len(set(wnids)) < len(wnids):
        raise DatasetError(f"{file}: the WNID {shorten(_first_repeated(wnids))} is there twice")
    return IlsvrcClasses(wnids, tuple(name for _, name in ordered))


def read_image_list(file: Path) -> ImageList:
    """A list "IMAGE_ID NUMBER", where the number is that of the line, from 1; without numbers, in the order of the lines."""
    ids: list[str] = []
    for where, fields in _each_line(file):
        if len(fields) > 2 or (len(fields) == 2 and _whole_number(fields[1]) != len(ids) + 1):
            raise DatasetError(f"{where}: expected 'IMAGE_ID {len(ids) + 1}', found {shorten(' '.join(fields))}")
        ids.append(fields[0])
    if not ids:
        raise DatasetError(f"{file} lists no image")
    if len(set(ids)) < len(ids):
        raise DatasetError(f"{file}: image {shorten(_first_repeated(ids))} is there twice")
    return ImageList(tuple(ids))


def find_det_list(folders: Sequence[Path], split: str) -> Path | None:
    """The list of a split, det_val2.txt, val2.txt or det_lists/val2.txt, in the first folder that has one; else None."""
    names = _list_names(split)
    return next((folder / name for folder in folders for name in names if is_file(folder / name)), None)


def _list_names(split: str) -> tuple[str, ...]:
    return f"det_{split}.txt", f"{split}.txt", f"det_lists/{split}.txt"


def read_det_images(folders: Sequence[Path], split: str) -> ImageList:
    """The images of val, val1, val2 or test, by their numbers. `folders`: the kit's data folder, and others to look in.

    The lists of val1 and val2 number images anew, and must be of val's. Where there is no list of val1, it is what val2 and
    the blacklist leave of val: R-CNN's division, 9,887 + 9,917 = 20,121 - 317 images.
    """
    file = find_det_list(folders, split)
    if file is None and split == "val1" and find_det_list(folders, "val2"):
        return _rest_of_val(folders)
    if file is None:
        places = " or ".join(map(str, folders))
        raise DatasetError(f"{places} has no list of the images of '{split}': none of {', '.join(_list_names(split))}")
    images = read_image_list(file)
    if split in ("val1", "val2"):
        known = read_det_images(folders, "val").positions
        unknown = next((image_id for image_id in images.ids if image_id not in known), None)
        if unknown is not None:
            raise DatasetError(f"{file}: image {shorten(unknown)} is not in the list of val: of another year?")
    return images


def _rest_of_val(folders: Sequence[Path]) -> ImageList:
    val, val2 = (read_det_images(folders, split) for split in ("val", "val2"))
    blacklist = only_file(folders[0], DET_BLACKLIST)
    pairs = read_det_blacklist(blacklist, read_det_classes(folders[0]), len(val.ids))
    left_out = {*val2.ids, *(val.ids[image] for image, _ in pairs)}
    return ImageList(tuple(image_id for image_id in val.ids if image_id not in left_out))


def read_det_blacklist(file: Path, classes: IlsvrcClasses, num_images: int) -> list[tuple[int, int]]:
    """Lines "IMAGE_NUMBER WNID" as pairs of position in val and label."""
    labels = classes.labels
    pairs = []
    for where, fields in _each_line(file):
        number = _whole_number(fields[0])
        if len(fields) != 2 or number is None or not 1 <= number <= num_images or fields[1] not in labels:
            known = f"an image's number up to {num_images} and a WNID of map_det.txt"
            raise DatasetError(f"{where}: expected {known}, found {shorten(' '.join(fields))}")
        pairs.append((number - 1, labels[fields[1]]))
    return pairs


def read_loc_blacklist(file: Path, num_images: int) -> list[int]:
    """Lines "IMAGE_NUMBER" as positions in val of CLS-LOC: images whose boxes are not evaluated."""
    positions = []
    for where, fields in _each_line(file):
        number = _whole_number(fields[0])
        if number is None or not 1 <= number <= num_images:
            raise DatasetError(f"{where}: expected an image's number up to {num_images}, found {shorten(fields[0])}")
        positions.append(number - 1)
    return positions


def only_file(folder: Path, pattern: str) -> Path:
    """The one file of this form. Raises DatasetError for none and for several."""
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise DatasetError(f"{folder} has {len(found) or 'no'} files {pattern}: it must have one")
    return found[0]


def _each_line(file: Path) -> Iterator[tuple[str, list[str]]]:
    """Where each line stands that is not blank, and its first two words and the rest."""
    for number, text in enumerate(read_text(file).split("\n"), start=1):
        if text.strip():
            yield f"{file}, line {number}", text.strip().split(maxsplit=2)


def _first_repeated(values: Sequence[str]) -> str:
    return next(value for value, count in Counter(values).items() if count > 1)


def _whole_number(text: str) -> int | None:
    """A number of ASCII digits."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
