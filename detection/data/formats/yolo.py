"""YOLO: images, a text file of labels for each of them in one of many places, and perhaps a data.yaml that tells of both.

An image without a label file is one without objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from backbones.errors import first_names, printable, shorten
from detection.config import SPLITS, FolderSource
from detection.data.faults import Faults
from detection.data.formats.image_labels import MOST_LOOKED_AT
from detection.data.formats.listing import FolderListing, list_folder
from detection.data.formats.named_images import path_below
from detection.data.formats.splits import canonical_split, in_split, split_of
from detection.data.formats.yolo_data import (
    DATA_SUFFIXES,
    YoloData,
    below,
    find_data_file,
    find_names_file,
    read_data_file,
    read_names_file,
    resolve_place,
)
from detection.data.formats.yolo_lines import LineReader, looks_like_labels
from detection.data.image_paths import ImageFinder
from detection.data.images import is_image_name
from detection.data.labelled import LabelledImage
from detection.errors import DatasetError, MissingImageError
from detection.files import fold_name, is_file, read_text

MAX_LIST_BYTES = 1 << 28

_LABEL_FOLDERS = ("labels", "label", "annotations")


def read_yolo(source: FolderSource, root: Path, faults: Faults) -> list[LabelledImage]:
    """The images of a YOLO folder, or of its data.yaml. Raises DatasetError."""
    folder = root if root.is_dir() else root.parent
    listing = list_folder(folder)
    data = _read_data(source, root, listing)
    images = _images(source, data, listing, faults)
    if not images:
        asked = "" if source.split is None else f" of split '{source.split}'"
        raise DatasetError(f"{root} holds no image{asked}; folders with images: {_image_folders(listing)}")
    labels = LabelFiles(listing, _label_folder(source, folder))
    found = {image: labels.of(image) for image in images}
    if not any(found.values()):
        first, place = (printable(str(each)) for each in (images[0], next(label_places(images[0], folder))))
        raise DatasetError(
            f"{root}: none of {len(images)} images has a label file; of {first} it would be {place}, or beside it; "
            f"'annotations' of the source may name the folder"
        )
    reader = LineReader(_class_names(data, listing, faults), data, faults)
    labelled = []
    for image, file in found.items():
        with faults.guard():
            objects = [] if file is None else list(reader.read(file))
            labelled.append(LabelledImage(path_below(image, root), image, str(file or image), None, objects, relative=True))
    reader.inform(root)
    _inform_of_unlabelled([image for image, file in found.items() if file is None], root, faults)
    _check_images(labels, {file for file in found.values() if file is not None}, listing, faults)
    return labelled


def find(listing: FolderListing) -> list[FolderSource]:
    """The sources of a YOLO folder, one for each of its splits; none where it is no such folder. Raises DatasetError."""
    labels = LabelFiles(listing, None)
    labelled = {image: file for image in listing.images if (file := labels.of(listing.root / image)) is not None}
    files = list(labelled.values())
    if not any(map(looks_like_labels, files[:: len(files) // MOST_LOOKED_AT + 1])):
        return []
    file = find_data_file(listing)
    data = YoloData() if file is None else read_data_file(file)
    places = {split: resolve_place(data, entries[0], listing, Faults()) for split, entries in data.splits.items()}
    splits: list[str | None] = [split for split, place in places.items() if place is not None]
    splits = splits or list(_split_lists(listing))
    splits = splits or list(dict.fromkeys(split_of(f"{PurePosixPath(image).parent}/") for image in labelled))
    return [FolderSource(format="yolo", root=listing.root, split=split) for split in ([None] if None in splits else splits)]


def num_images(source: FolderSource, listing: FolderListing) -> int:
    """How many images a source has that `find` found; 0 where they are not found, which reading them then refuses."""
    try:
        return len(_images(source, _read_data(source, listing.root, listing), listing, Faults(collect=True)))
    except DatasetError:
        return 0


def _read_data(source: FolderSource, root: Path, listing: FolderListing) -> YoloData:
    """What the data file says that the source names, or that lies in the folder."""
    named = root if source.annotations is None else root / source.annotations
    file = named if named.suffix.lower() in DATA_SUFFIXES and is_file(named) else find_data_file(listing)
    return YoloData() if file is None else read_data_file(file)


def _label_folder(source: FolderSource, folder: Path) -> Path | None:
    """The folder of the labels where the source names it. Raises DatasetError if it is none."""
    if source.annotations is None or source.annotations.suffix.lower() in DATA_SUFFIXES:
        return None
    if not (folder / source.annotations).is_dir():
        raise DatasetError(f"there is no folder {folder / source.annotations}: 'annotations' must name one, or a data.yaml")
    return folder / source.annotations


def _class_names(data: YoloData, listing: FolderListing, faults: Faults) -> Mapping[int, str] | None:
    """The names of the class ids, or None where nothing tells them."""
    if data.names is not None:
        return data.names
    file = find_names_file(listing)
    if file is not None:
        return read_names_file(file)
    told = "they are called by their ids: 0, 1, ..."
    faults.inform(f"{listing.root} has no names of classes (data.yaml, classes.txt): {told}")
    return None if data.num_classes is None else {label: str(label) for label in range(data.num_classes)}


def _images(source: FolderSource, data: YoloData, listing: FolderListing, faults: Faults) -> list[Path]:
    """The images of the split, or of all of them."""
    split = None if source.split is None else canonical_split(source.split)
    if source.images is None and data.splits:
        if split is not None and split not in data.splits:
            raise DatasetError(f"{data.file} has no '{source.split}'; it has {', '.join(map(printable, data.splits))}")
        asked = list(data.splits) if split is None else [split]
        found = [image for each in asked for image in _split_images(data, each, listing, len(asked) == 1, faults)]
        if not found and split is None:
            raise _leads_nowhere(data, asked[0], data.splits[asked[0]][0], listing)
        return list(dict.fromkeys(found))
    folder = "" if source.images is None else source.images.as_posix()
    images = listing.within("" if folder == "." else folder)
    inside = [image for image in images if is_image_name(image)]
    if split is not None and split in (lists := _split_lists(listing)):
        return _listed(lists[split], listing.root, faults)
    return [listing.root / image for image in inside if split is None or in_split(image, split)]


def _split_lists(listing: FolderListing) -> dict[str, Path]:
    """The lists of images at the top of a folder, by the splits that they are called by, as "train.txt"."""
    files = {canonical_split(PurePosixPath(file).stem): file for file in listing.by_suffix.get(".txt", ()) if "/" not in file}
    lists = {split: listing.root / files[split] for split in SPLITS if split in files}
    return {split: file for split, file in lists.items() if _lists_images(file)}


def _lists_images(file: Path) -> bool:
    lines = (line.strip() for line in read_text(file, MAX_LIST_BYTES).split("\n"))
    return is_image_name(next(filter(None, lines), ""))


def _split_images(data: YoloData, split: str, listing: FolderListing, required: bool, faults: Faults) -> Iterator[Path]:
    """The images that a data file gives to a split. Raises DatasetError where it leads nowhere, if that is asked for."""
    for entry in data.splits[split]:
        place = resolve_place(data, entry, listing, faults)
        if place is None and required:
            raise _leads_nowhere(data, split, entry, listing)
        if place is None:
            faults.inform(f"{data.file}: '{split}' leads nowhere, and is left out: {shorten(entry)}")
        elif is_file(place):
            yield from _listed(place, listing.root, faults)
        else:
            yield from (place / image for image in list_folder(place).images)


def _leads_nowhere(data: YoloData, split: str, entry: str, listing: FolderListing) -> DatasetError:
    return DatasetError(
        f"{data.file}: '{split}' leads nowhere: {shorten(entry)}; folders with images: {_image_folders(listing)}: "
        f"correct it, or set 'images' of a source with 'format: yolo' to one of them"
    )


def _listed(file: Path, root: Path, faults: Faults) -> list[Path]:
    """The images that a file lists, one a line. Raises DatasetError, or collects it, for one that is missing."""
    finder, images = ImageFinder(list(dict.fromkeys((file.parent, root)))), []
    for number, line in enumerate(read_text(file, MAX_LIST_BYTES).split("\n"), start=1):
        if line.strip():
            with faults.guard():
                images.append(below(finder.find(line.strip(), f"{file}, line {number}"), root))
    finder.inform(str(file), faults)
    return images


def _image_folders(listing: FolderListing) -> str:
    folders = dict.fromkeys(str(PurePosixPath(image).parent) for image in listing.images)
    return first_names(list(folders)) or "none"


def label_places(image: Path, root: Path) -> Iterator[Path]:
    """Where the labels of an image may lie, the likeliest first.

    In the parallel tree that has `labels` for the last `images`; beside the image; in a folder for labels that stands for one
    of the image's folders below the root, or lies in one.
    """
    name, parents = f"{image.stem}.txt", image.parent.parts
    images = [place for place, part in enumerate(parents) if part.lower() == "images"]
    if images:
        yield Path(*parents[: images[-1]], "labels", *parents[images[-1] + 1 :], name)
    yield image.parent / name
    inside = image.parent.relative_to(root).parts if image.is_relative_to(root) else ()
    for folder in _LABEL_FOLDERS:
        for place in range(len(inside), -1, -1):
            yield root.joinpath(*inside[:place], folder, *inside[place + 1 :], name)
            yield root.joinpath(*inside[:place], folder, *inside[place:], name)


class LabelFiles:
    """The label files of a folder, by the images that they belong to. `folder`: where they lie, if that is told."""

    def __init__(self, listing: FolderListing, folder: Path | None) -> None:
        self.folder, self.root = folder, listing.root
        files = [listing.root / file for file in listing.by_suffix.get(".txt", ())]
        self.files = {fold_name(str(file)): file for file in files} | {str(file): file for file in files}

    def of(self, image: Path) -> Path | None:
        """The label file of an image, or None."""
        for place in label_places(image, self.root) if self.folder is None else self._places(image, self.folder):
            file = self.files.get(str(place)) or self.files.get(fold_name(str(place)))
            if file is not None:
                return file
            if not place.is_relative_to(self.root) and is_file(place):
                return place
        return None

    @staticmethod
    def _places(image: Path, folder: Path) -> Iterator[Path]:
        """In a folder that is told: under as many of the image's folders as there are, or at its top."""
        parts = (*image.parent.parts, f"{image.stem}.txt")
        return (folder.joinpath(*parts[place:]) for place in range(1, len(parts)))


def _inform_of_unlabelled(images: Sequence[Path], root: Path, faults: Faults) -> None:
    if images:
        first = printable(str(images[0]))
        faults.inform(f"{root}: {len(images)} images have no label file, and are taken as images without objects, e.g. {first}")


def _check_images(labels: LabelFiles, used: set[Path], listing: FolderListing, faults: Faults) -> None:
    """Raise DatasetError, or collect it, for labels in the folders of those that are used whose image is not there."""
    folders = {file.parent for file in used}
    stems = {fold_name(PurePosixPath(image).stem) for image in listing.images}
    for file in dict.fromkeys(labels.files.values()):
        if file.parent in folders and fold_name(file.stem) not in stems and looks_like_labels(file):
            with faults.guard():
                raise MissingImageError(f"{printable(str(file))} labels an image that does not exist")
