"""Class-folder data sets: ROOT/SPLIT/CLASS/IMAGE on disk, or the same layout inside a .tar, .tar.gz or .tar.xz archive.

N images, K classes. The class names are the folders' names in alphabetical order; a label is a place in that order.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from backbones.errors import name_fault, printable, shorten
from detection.config import MAX_PIXELS, OnBadImage
from detection.data.images import UNREAD_SUFFIXES, decode_image, is_image_name, read_image
from detection.data.records import list_files
from detection.errors import DatasetError
from detection.pretraining.archives import MEMORY_LIMIT, Parts, read_archive
from detection.pretraining.labels import read_class_order, read_labels

ListedImage = tuple[str, bytes | None]  # the image as messages name it, and its encoded bytes where it is no file of its own
Listing = dict[str, list[ListedImage]]  # the images of each class of one split

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageFolder:
    """One split. Its images are files, or encoded bytes in memory, or (`pixels`) decoded already."""

    class_names: tuple[str, ...]
    files: list[str]  # N
    labels: Tensor  # (N,) int64
    encoded: list[bytes] | None = None  # N
    pixels: Tensor | None = None  # (N, H, W, 3) uint8 RGB; a tensor, as loader processes share its memory
    max_pixels: int = MAX_PIXELS  # an image of more is refused

    def __len__(self) -> int:
        return len(self.files)

    def subset(self, indices: Sequence[int]) -> ImageFolder:
        """Some of the images, in this order."""
        chosen = list(indices)
        return replace(
            self,
            files=[self.files[index] for index in chosen],
            labels=self.labels[chosen],
            encoded=None if self.encoded is None else [self.encoded[index] for index in chosen],
            pixels=None if self.pixels is None else self.pixels[chosen],
        )

    def image(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB. Raises DatasetError where it cannot be decoded."""
        if self.pixels is not None:
            return self.pixels[index].numpy()
        if self.encoded is not None:
            return decode_image(self.encoded[index], self.files[index], self.max_pixels)
        return read_image(self.files[index], self.max_pixels)


@dataclass(frozen=True)
class LabelFile:
    """Where the classes of a split without class folders are written; see `read_labels`."""

    file: Path
    classes_of: str  # the split whose class folders are the classes
    order: Path | None = None


def load_folders(
    root: Path,
    splits: Sequence[str],
    labels: Mapping[str, LabelFile] = MappingProxyType({}),
    max_pixels: int = MAX_PIXELS,
) -> list[ImageFolder]:
    """The splits of a folder or archive, indexed but not decoded. `labels` are those of splits without class folders.

    Raises DatasetError: no such root or split, a split or class without images, splits whose classes differ.
    """
    if not root.exists():
        raise DatasetError(f"there is no folder or archive of images at {root}")
    if not root.is_dir():
        if labels:
            raise DatasetError(f"{root} is an archive, and labels in a file need a folder: unpack it, and name the folder")
        listings = _list_archive(root, splits)
    else:
        listings = [
            _list_labelled(root, split, labels[split]) if split in labels else _list_split(root, split) for split in splits
        ]
    for split, listing in zip(splits, listings, strict=True):
        _check_listing(root, split, listing)
        _check_same_classes(root, splits[0], listings[0], split, listing)
    return [_folder(listing, max_pixels) for listing in listings]


def decode_ahead(folder: ImageFolder, on_bad_image: OnBadImage = "error") -> ImageFolder:
    """The same split with its pixels in memory, if its images are of one size and fit; otherwise it is given back as it is.

    Small images (CIFAR: 184 MB) then cost the loader nothing but their augmentation. With "skip", images that cannot
    be decoded are left out and counted in the log; with "error" they raise DatasetError.
    """
    pixels: np.ndarray | None = None
    good: list[int] = []
    for index in range(len(folder)):
        image = _try_image(folder, index, on_bad_image)
        if image is None:
            continue
        if pixels is None:
            if image.nbytes * len(folder) > MEMORY_LIMIT:
                return folder
            pixels = np.empty((len(folder), *image.shape), np.uint8)
        if image.shape != pixels.shape[1:]:
            return folder
        pixels[len(good)] = image
        good.append(index)
    if pixels is None:
        raise DatasetError(f"none of the {len(folder)} images can be decoded, the first is {folder.files[0]}")
    if len(good) < len(folder):
        logger.warning("%d of %d images cannot be decoded and are skipped", len(folder) - len(good), len(folder))
    files = [folder.files[index] for index in good]
    return replace(folder, files=files, labels=folder.labels[good], encoded=None, pixels=torch.from_numpy(pixels[: len(good)]))


def _try_image(folder: ImageFolder, index: int, on_bad_image: OnBadImage) -> np.ndarray | None:
    try:
        return folder.image(index)
    except DatasetError:
        if on_bad_image == "error":
            raise
        return None


def _folder(listing: Listing, max_pixels: int) -> ImageFolder:
    class_names = tuple(sorted(listing))
    for name in class_names:
        if (fault := name_fault(name)) is not None:
            raise DatasetError(f"the name of a class folder {fault}")
    items = [(item, label) for label, name in enumerate(class_names) for item in sorted(listing[name])]
    encoded = [data for (_, data), _ in items if data is not None]
    return ImageFolder(
        class_names,
        [file for (file, _), _ in items],
        torch.tensor([label for _, label in items], dtype=torch.long, device="cpu"),
        encoded or None,
        max_pixels=max_pixels,
    )


def _list_split(root: Path, split: str, *, count: bool = True) -> Listing:
    """The images of each class folder; without `count` just the classes, each with no images."""
    folder = _existing(root, split)
    # A link to a folder is one.
    inside = list_files(folder)
    classes = [name for name in inside if not name.startswith(".") and (folder / name).is_dir()]
    _warn_of_classless(folder, inside.difference(classes))
    names = {name: list_files(folder / name) if count else set() for name in classes}
    _warn_of_unread(folder, [f"{name}/{file}" for name in classes for file in names[name]])
    return {name: [(str(folder / name / file), None) for file in names[name] if _is_image(file)] for name in classes}


def _is_image(name: str) -> bool:
    """Hidden files are leavings of file managers (.DS_Store, ._photo.jpg), not images."""
    return not name.startswith(".") and is_image_name(name)


def _warn_of_unread(place: Path, names: Iterable[str]) -> None:
    """Log how many of the files are images of kinds that cannot be read."""
    unread = sorted(name for name in names if PurePosixPath(name).suffix.lower() in UNREAD_SUFFIXES)
    if unread:
        message = "%s: %d files are left out, images of kinds that are not read; convert them, e.g. to .jpg; the first: %s"
        logger.warning(message, place, len(unread), shorten(unread[0]))


def _warn_of_classless(place: Path, names: Iterable[str]) -> None:
    """Log how many of the files are images beside the class folders."""
    classless = sorted(name for name in names if _is_image(PurePosixPath(name).name))
    if classless:
        message = "%s: %d images are in no class folder and left out; the first: %s"
        logger.warning(message, place, len(classless), shorten(classless[0]))


def _list_labelled(root: Path, split: str, labels: LabelFile) -> Listing:
    """A flat folder of images, sorted into the classes that a file gives them."""
    classes = list(_list_split(root, labels.classes_of, count=False))
    folder = _existing(root, split)
    names = list_files(folder)
    _warn_of_unread(folder, names)
    files = [name for name in names if _is_image(name)]
    order = None if labels.order is None else read_class_order(labels.order)
    listing: Listing = {}
    for name, label in read_labels(labels.file, files, classes, order).items():
        listing.setdefault(label, []).append((str(folder / name), None))
    return listing


def _existing(root: Path, split: str) -> Path:
    folder = root / split
    if not folder.is_dir():
        raise DatasetError(f"{root} has no split '{split}'; it holds {_shorten(sorted(list_files(root)))}")
    return folder


def _list_archive(root: Path, splits: Sequence[str]) -> list[Listing]:
    """Read the archive once, from its beginning to its end; compressed archives allow no other way."""
    listings: dict[Parts, Listing] = {PurePosixPath(split).parts: {} for split in splits}

    def in_class(parts: Parts) -> bool:
        return len(parts) >= 2 and parts[:-2] in listings and not parts[-2].startswith(".")

    archive = read_archive(root, lambda parts: in_class(parts) and _is_image(parts[-1]))
    for parts in archive.folders:
        if parts and parts[:-1] in listings and not parts[-1].startswith("."):
            listings[parts[:-1]].setdefault(parts[-1], [])
    for parts, data in archive.images.items():
        listings[parts[:-2]].setdefault(parts[-2], []).append((f"{root}/{'/'.join(parts)}", data))
    _warn_of_unread(root, ["/".join(parts) for parts in archive.others if in_class(parts)])
    _warn_of_classless(root, ["/".join(parts) for parts in archive.others if parts[:-1] in listings])
    # A link in the place of a class is one to its folder, and what lies there has other names in the archive.
    lost = sorted("/".join(parts) for parts in archive.lost if in_class(parts) or parts[:-1] in listings)
    if lost:
        message = "%s: %d links to no image of the archive, pipes and the like are left out; the first: %s"
        logger.warning(message, root, len(lost), shorten(lost[0]))
    return [listings[PurePosixPath(split).parts] for split in splits]


def _check_listing(root: Path, split: str, listing: Listing) -> None:
    if not listing:
        raise DatasetError(f"split '{split}' of {root} has no class folders (ROOT/SPLIT/CLASS/IMAGE)")
    empty = sorted(name for name, items in listing.items() if not items)
    if empty:
        raise DatasetError(f"split '{split}' of {root} has classes without images: {_shorten(empty)}")


def _check_same_classes(root: Path, first: str, first_listing: Listing, split: str, listing: Listing) -> None:
    only_first, only_split = sorted(set(first_listing) - set(listing)), sorted(set(listing) - set(first_listing))
    if only_first or only_split:
        differences = [
            f"only '{name}' has {_shorten(classes)}" for name, classes in ((first, only_first), (split, only_split)) if classes
        ]
        raise DatasetError(f"the splits '{first}' and '{split}' of {root} have different classes: {'; '.join(differences)}")


def _shorten(names: Sequence[str], max_names: int = 8) -> str:
    """A list of names for a message, cut after a few."""
    rest = f" and {len(names) - max_names} more" if len(names) > max_names else ""
    return ", ".join(printable(name[:80]) for name in names[:max_names]) + rest if names else "nothing"
