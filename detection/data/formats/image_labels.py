"""What formats with a label file for each image share: which files they are, and which image each belongs to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from backbones.errors import printable
from detection.config import FolderFormat, FolderSource
from detection.data.faults import Faults
from detection.data.formats.listing import FolderListing, list_folder
from detection.data.formats.named_images import image_folder
from detection.data.formats.splits import canonical_split, in_split, split_of
from detection.data.image_paths import ImageFinder
from detection.errors import DatasetError
from detection.files import fold_name, is_file

MOST_LOOKED_AT = 50
"""Label files of a folder that are opened to tell its format."""


def label_files_of(source: FolderSource, root: Path, suffix: str) -> list[Path]:
    """The files of a suffix in the folder of a source, or the one that it names, those of its split if it asks for one."""
    place = root if source.annotations is None else root / source.annotations
    if is_file(place):
        return [place] if place.suffix.lower() == suffix else []
    split = None if source.split is None else canonical_split(source.split)
    files = list_folder(place).by_suffix.get(suffix, ())
    return [place / file for file in files if split is None or in_split(file, split)]


def sources_of_splits(listing: FolderListing, files: Iterable[str], key: FolderFormat) -> list[FolderSource]:
    """A source for each split that the folders of label files are called by; one for all where they are called by none."""
    splits: list[str | None] = list(dict.fromkeys(split_of(f"{PurePosixPath(file).parent}/") for file in files))
    return [FolderSource(format=key, root=listing.root, split=split) for split in ([None] if None in splits else splits)]


def some_are(listing: FolderListing, files: Sequence[str], is_one: Callable[[Path], bool]) -> bool:
    """Whether some of the files, looked at from all over them, are of a kind."""
    return any(is_one(listing.root / file) for file in files[:: len(files) // MOST_LOOKED_AT + 1])


@dataclass
class ImagesOfLabels:
    """Finds the image of each label file of a source."""

    source: FolderSource
    root: Path
    finder: ImageFinder = field(init=False)
    _found: set[Path] = field(default_factory=set)
    _renamed: list[tuple[Path, str]] = field(
        default_factory=list
    )  # label files that name another image than that of their name

    def __post_init__(self) -> None:
        self.finder = ImageFinder([image_folder(self.source, self.root)])

    def find(self, names: Sequence[str], label_file: Path) -> Path:
        """The image of a label file: the one that it names, under the first of the names that leads to one.

        Where that is called otherwise than the label file, and there is an image that is not, this is it: who renames both
        files does not edit the name inside. Raises DatasetError, MissingImageError where there is none.
        """
        image = self._find(names, label_file)
        self._found.add(image)
        return image

    def _find(self, names: Sequence[str], label_file: Path) -> Path:
        own_name = fold_name(label_file.stem)
        same = [name for name in names if own_name in (fold_name(_base(name)), fold_name(PurePosixPath(_base(name)).stem))]
        for name in same:
            image = self._look_up(name, label_file)
            if image is not None:
                return image
        image = self.finder.of_label_file(label_file)
        if image is not None:
            if names and not same:
                self._renamed.append((label_file, names[0]))
            return image
        others = [name for name in names if name not in same]
        found = (self._look_up(name, label_file) for name in others)
        image = next((image for image in found if image is not None), None)
        return image or self.finder.find(names[0] if names else label_file.stem, str(label_file), label_file)

    def _look_up(self, name: str, label_file: Path) -> Path | None:
        try:
            return self.finder.look_up(name, label_file)
        except DatasetError as error:
            raise DatasetError(f"{label_file}: {error}") from None

    def inform(self, faults: Faults) -> None:
        """Tell what was guessed, and how many images have no label file."""
        self.finder.inform(str(self.root), faults)
        if self._renamed:
            file, name = self._renamed[0]
            faults.inform(
                f"{self.root}: {len(self._renamed)} label files name another image than the one that is called as they are, "
                f"which is taken, e.g. {printable(str(file))} names {printable(name)}"
            )
        if self.root.is_dir():
            self._inform_of_unlabelled(faults)

    def _inform_of_unlabelled(self, faults: Faults) -> None:
        split = None if self.source.split is None else canonical_split(self.source.split)
        listing = list_folder(self.finder.folders[0])
        images = [listing.root / image for image in listing.images if split is None or in_split(image, split)]
        unlabelled = [image for image in images if image not in self._found]
        if unlabelled:
            first = printable(str(unlabelled[0]))
            faults.inform(f"{self.root}: {len(unlabelled)} images have no label file, and are left out, e.g. {first}")

    def none_found(self, what: str) -> DatasetError:
        """The error of a source without a label file; `what`: what such a file is."""
        split = "" if self.source.split is None else f"split '{self.source.split}' of "
        return DatasetError(f"{split}{self.root} holds no {what}: is 'root' right? 'annotations' may name their folder")


def _base(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).name
