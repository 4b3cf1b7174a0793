"""What the readers of single label files share: images that a file names -> images that are there; names, sides, counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backbones.errors import name_fault, printable, shorten
from detection.config import FolderSource
from detection.data.faults import Faults
from detection.data.formats.listing import list_folder
from detection.data.formats.splits import canonical_split, split_of
from detection.data.image_paths import ImageFinder
from detection.data.labelled import LabelledImage, LabelledObject
from detection.data.records import finite_number, parse_number
from detection.errors import DatasetError
from detection.files import is_file


@dataclass(frozen=True)
class NamedImage:
    """An image and its objects as a label file says, before the image's file is found."""

    name: str  # the path or URL that the label file has
    label_file: Path
    objects: Sequence[LabelledObject] = field(default_factory=tuple)
    size_hw: tuple[int, int] | None = None
    relative: bool = False  # as LabelledImage.relative


def find_images(images: Sequence[NamedImage], root: Path, folders: Sequence[Path], faults: Faults) -> list[LabelledImage]:
    """The images whose files are found below the folders. Those that are not raise DatasetError, or are kept in `faults`."""
    finder, found = ImageFinder(folders), list[LabelledImage]()
    for image in images:
        with faults.guard():
            file = finder.find(image.name, str(image.label_file), image.label_file)
            name = path_below(file, root)
            found.append(LabelledImage(name, file, str(image.label_file), image.size_hw, image.objects, image.relative))
    finder.inform(str(root), faults)
    return found


def inform_of_unnamed(found: Sequence[LabelledImage], source: FolderSource, root: Path, faults: Faults) -> None:
    """Tell how many images no label file names, which are left out: those of the source's split, where the folders tell it."""
    split = canonical_split(source.split) if source.split is not None else split_of(f"{source.annotations or ''}")
    folder, named = image_folder(source, root), {image.file for image in found}
    images = [
        folder / name for name in list_folder(folder).images if split in (None, split_of(name), split_of(f"{folder.name}/"))
    ]
    unnamed = [image for image in images if image not in named]
    if unnamed:
        first = printable(str(unnamed[0]))
        faults.inform(f"{root}: {len(unnamed)} images are in no label file, and are left out, e.g. {first}")


def image_folder(source: FolderSource, root: Path) -> Path:
    """Where a source's images are looked for. Raises DatasetError if `images` names no folder."""
    folder = root if root.is_dir() else root.parent
    if source.images is not None and not (folder / source.images).is_dir():
        raise DatasetError(f"there is no folder {folder / source.images}: 'images' of the source must name one below 'root'")
    return folder if source.images is None else folder / source.images


def path_below(file: Path, root: Path) -> str:
    """A file's path in the folder, with "/"; the whole path of a file elsewhere."""
    folder = root if root.is_dir() else root.parent
    return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else file.as_posix()


def read_class_name(value: Any, where: str, faults: Faults) -> str | None:
    """A class's name, white space around it left out, a number as text; None, noted in `faults`, where it is no name."""
    name = str(value) if isinstance(value, int) and abs(value) < 10**18 and not isinstance(value, bool) else value
    name = name.strip() if isinstance(name, str) else name
    if name is None or name == "":
        faults.note(where, "object without a class", "dropped")
    elif name_fault(name) is not None:
        faults.note(f"{where}: class {shorten(name)}", "class name that cannot be shown", "dropped")
    else:
        return str(name)
    return None


def read_size(height: Any, width: Any) -> tuple[int, int] | None:
    """(height, width) of an image from values of a file, numbers or text; None where they are no such numbers."""
    sides = [parse_number(value) if isinstance(value, str) else finite_number(value) for value in (height, width)]
    if any(side is None or not 1 <= side < 2**31 or side != int(side) for side in sides):
        return None
    return int(sides[0] or 0), int(sides[1] or 0)


def inform_left_out(counts: Mapping[str, int], file: Path, faults: Faults) -> None:
    """Tell how many shapes of which kinds have no box, and are left out."""
    if counts:
        kinds = ", ".join(f"{printable(kind[:80])} ({count})" for kind, count in Counter(counts).most_common(8))
        faults.inform(f"{file}: {sum(counts.values())} shapes without an extent are left out: {kinds}")


def label_files(
    source: FolderSource, root: Path, suffix: str, is_one: Callable[[Path], bool], what: str, by_file: bool = True
) -> list[Path]:
    """The label files of a source: the one that it names, or those of a suffix in its folder for which `is_one` holds.

    `by_file`: a split is a part of the files, told by their names and folders. Raises DatasetError if there is none; `what` is
    what such a file is called.
    """
    place = root if source.annotations is None else root / source.annotations
    if is_file(place):
        return [place]
    listing = list_folder(place)
    split = canonical_split(source.split) if source.split is not None and by_file else None
    named = [file for file in listing.by_suffix.get(suffix, ()) if split in (None, split_of(file))]
    found = [listing.root / file for file in named if is_one(listing.root / file)]
    if not found:
        where = f"split '{source.split}' of {place}" if split is not None else str(place)
        raise DatasetError(f"{where} holds no {what}: is 'root' right? 'annotations' of the source may name the file")
    return found
