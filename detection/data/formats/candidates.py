"""What a folder may be: the sources that each kind of label files in it would make."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from backbones.errors import printable
from detection.config import CocoSource, FolderFormat, FolderSource, IlsvrcDetSource, IlsvrcDetSplit, Source, VocSource
from detection.data.formats.contents import cvat_subsets, read_ends
from detection.data.formats.listing import FolderListing
from detection.data.formats.splits import canonical_split, split_of
from detection.errors import DatasetError

_FILE_NAME = re.compile(r'"file_name"\s*:\s*("(?:[^"\\]|\\.){1,4096}")')
_SAMPLED = 50  # file names of a COCO file that are looked for
_OTHER_TASKS = ("captions", "panoptic", "stuff", "person_keypoints", "image_info")  # COCO's files beside its instances
_ILSVRC_SPLITS: tuple[IlsvrcDetSplit, ...] = ("train", "val", "test")
_YEAR = re.compile(r"VOC([0-9]{4})")


@dataclass(frozen=True)
class Candidate:
    """A way to read a folder, or some of it."""

    title: str  # for people: "COCO JSON"
    key: str  # of `format`, that asks for it
    sources: tuple[tuple[str | None, Source], ...]  # with the split of each; None: the folder has no splits
    labels: tuple[str, ...]  # label files of it, some or all, for messages

    @property
    def deciding_key(self) -> str:
        """What to write into a source so that it is read like this, and not otherwise."""
        if self.key == "coco":
            return f"'annotations' to {printable(self.labels[0])}"
        return "'format' to voc, with 'split'" if self.key == "voc" else f"'format' to {self.key}"


def coco_candidate(listing: FolderListing, files: Sequence[str]) -> Candidate | None:
    """COCO's JSON, the files being of that kind. Raises DatasetError where two of them are of one split."""
    boxes = [file for file in files if not PurePosixPath(file).name.startswith(_OTHER_TASKS)] or list(files)
    if not boxes:
        return None
    by_split: dict[str | None, list[str]] = {}
    for file in boxes:
        by_split.setdefault(split_of(file), []).append(file)
    chosen = {split: _instances(found) for split, found in by_split.items()}
    unclear = next((found for found in chosen.values() if len(found) > 1), None)
    if None in chosen and len(chosen) > 1:
        unclear = [*chosen[None], *next(found for split, found in chosen.items() if split is not None)]
    if unclear is not None:
        raise DatasetError(
            f"{listing.root} holds {printable(unclear[0])} and {printable(unclear[1])}, and it cannot be told which is meant: "
            f"set 'annotations' of the source to one of them"
        )
    sources = tuple((split, _coco_source(listing, file)) for split, (file,) in chosen.items())
    return Candidate("COCO JSON", "coco", sources, tuple(boxes))


def _instances(files: Sequence[str]) -> Sequence[str]:
    """The files of boxes among those of one split, where one of them is called as COCO's are."""
    called = [file for file in files if PurePosixPath(file).name.startswith("instances")]
    return called if len(called) == 1 else files


def _coco_source(listing: FolderListing, file: str) -> CocoSource:
    return CocoSource(format="coco", root=listing.root, annotations=Path(file), images=Path(coco_images(listing, file)))


def coco_images(listing: FolderListing, file: str) -> str:
    """The folder that the file names of a COCO file start from, "." for the root: where most of them are found.

    Of several that hold as many, the one with the name of the file's split, or beside it; of none, the file's own.
    """
    names = [json.loads(match) for match in _FILE_NAME.findall(read_ends(listing.root / file))[:_SAMPLED] if _is_text(match)]
    by_name: dict[str, list[str]] = {}
    for image in listing.images:
        by_name.setdefault(PurePosixPath(image).name, []).append(image)
    counts = Counter[str]()
    for name in names:
        path = re.sub(r"^(\./)+", "", name.replace("\\", "/"))
        counts.update({_base(image, path) for image in by_name.get(PurePosixPath(path).name, ())})
    own, split = str(PurePosixPath(file).parent), split_of(file)
    if not counts:
        return own
    return max(
        counts, key=lambda folder: (counts[folder], split is not None and split_of(f"{folder}/") == split, folder == own)
    )


def _is_text(literal: str) -> bool:
    try:
        return isinstance(json.loads(literal), str)
    except ValueError:
        return False


def _base(image: str, path: str) -> str:
    """The folder from which a path leads to an image; the image's own where only its name agrees."""
    if image == path:
        return "."
    return image[: -len(path) - 1] if image.endswith(f"/{path}") else str(PurePosixPath(image).parent)


def voc_candidate(listing: FolderListing) -> Candidate | None:
    """Pascal VOC's folders with lists of splits, of one year or several."""
    sources: list[tuple[str | None, Source]] = []
    labels = []
    for folder in listing.folders:
        path = PurePosixPath(folder)
        if path.name == "Annotations":
            names = _voc_splits(listing, f"{_inside(path.parent)}ImageSets/Main")
            sources += [(canonical_split(name), _voc_source(listing.root, path.parent, name)) for name in names]
            labels += [folder] if names else []
    return Candidate("Pascal VOC", "voc", tuple(sources), tuple(labels)) if sources else None


def _inside(folder: PurePosixPath) -> str:
    return "" if folder == PurePosixPath() else f"{folder}/"


def _voc_splits(listing: FolderListing, folder: str) -> list[str]:
    """The splits that a folder lists; its lists of single classes (cat_train.txt) are none, if it has others."""
    names = [PurePosixPath(file) for file in listing.within(folder) if file.endswith(".txt")]
    stems = [name.stem for name in names if str(name.parent) == folder]
    usual = [stem for stem in stems if canonical_split(stem) in ("train", "val", "test", "trainval")]
    return usual or stems


def _voc_source(root: Path, folder: PurePosixPath, split: str) -> VocSource:
    year = _YEAR.fullmatch(folder.name)
    if year is not None:
        return VocSource(format="voc", root=root / folder.parent, year=year[1], split=split)
    return VocSource(format="voc", root=root / folder, split=split)


def ilsvrc_candidate(listing: FolderListing) -> Candidate | None:
    """ImageNet DET's folders, with a source for each split that has images; the development kit may lie beside them."""
    folders = set(listing.folders)
    inside = next((folder.removesuffix("Data/DET") for folder in listing.folders if f"/{folder}".endswith("/Data/DET")), None)
    if inside is None or f"{inside}ImageSets/DET" not in folders:
        return None
    root = listing.root / inside
    kits = [listing.root / file for file in listing.files if PurePosixPath(file).name == "map_det.txt"]
    devkit = {"devkit": kits[0].parent.absolute()} if len(kits) == 1 else {}
    sources = tuple(
        (split, IlsvrcDetSource(format="ilsvrc_det", root=root, split=split, **devkit))
        for split in _ILSVRC_SPLITS
        if f"{inside}Data/DET/{split}" in folders
    )
    return Candidate("ImageNet DET", "ilsvrc_det", sources, (f"{inside}ImageSets/DET",)) if sources else None


def file_candidate(listing: FolderListing, title: str, key: FolderFormat, files: Sequence[str]) -> Candidate | None:
    """A format whose label files each list images: a source for each file, or, without splits, one for all of them."""
    if not files:
        return None
    splits = [split_of(file) for file in files]
    if None in splits and len(files) > 1:
        return Candidate(title, key, ((None, FolderSource(format=key, root=listing.root)),), tuple(files))
    sources = tuple(
        (
            split,
            FolderSource(format=key, root=listing.root, annotations=Path(file), images=_own_images(listing, file)),
        )
        for split, file in zip(splits, files, strict=True)
    )
    return Candidate(title, key, sources, tuple(files))


def _own_images(listing: FolderListing, file: str) -> Path | None:
    """The folder of a label file below the root, if it has images: other folders may have some of the same names."""
    folder = PurePosixPath(file).parent
    has_images = any(image.startswith(f"{folder}/") for image in listing.images)
    return Path(folder) if folder != PurePosixPath() and has_images else None


def cvat_candidate(listing: FolderListing, files: Sequence[str]) -> Candidate | None:
    """CVAT's annotations, with a source for each of the subsets that they list."""
    found = file_candidate(listing, "CVAT", "cvat", files)
    subsets = list(dict.fromkeys(name for file in files for name in cvat_subsets(read_ends(listing.root / file))))
    if found is None or len(subsets) < 2:
        return found
    sources = tuple((canonical_split(name), FolderSource(format="cvat", root=listing.root, split=name)) for name in subsets)
    return Candidate(found.title, found.key, sources, found.labels)


def folder_candidate(
    title: str, key: FolderFormat, found: Sequence[FolderSource], listing: FolderListing, suffixes: Sequence[str]
) -> Candidate | None:
    """A format with a label file for each image, which finds its own sources; `suffixes`: of its label files."""
    sources = tuple((None if source.split is None else canonical_split(source.split), source) for source in found)
    labels = [file for suffix in suffixes for file in listing.by_suffix.get(suffix, ())]
    return Candidate(title, key, sources, (*labels, *map(str, suffixes))) if sources else None
