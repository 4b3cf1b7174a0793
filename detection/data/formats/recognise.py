"""Which format a folder is in, by its files: a folder as a labelling program leaves it -> sources that say how it is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from backbones.errors import printable
from detection.config import SPLITS, FolderSource, IlsvrcDetSource, Source, SplitName, VocSource
from detection.data.formats import labelimg, labelme, yolo
from detection.data.formats.candidates import (
    Candidate,
    coco_candidate,
    cvat_candidate,
    file_candidate,
    folder_candidate,
    ilsvrc_candidate,
    voc_candidate,
)
from detection.data.formats.contents import HEAD_BYTES, TAIL_BYTES, is_cvat, json_kind, read_ends
from detection.data.formats.listing import FolderListing, list_folder
from detection.data.formats.openimages import COLUMNS as OPEN_IMAGES_COLUMNS
from detection.data.formats.splits import canonical_split, split_of
from detection.data.formats.tables import MAKESENSE, find_columns, first_row, names_classes
from detection.data.formats.unknown import describe_unknown, refuse_archive
from detection.data.formats.via import COLUMNS as VIA_COLUMNS
from detection.data.formats.yolo_data import DATA_SUFFIXES
from detection.data.images import is_image_name
from detection.data.voc import MAX_SPLIT_BYTES
from detection.errors import DatasetError
from detection.files import exists, read_text

WHOLE = "all"
"""What `Recognised.splits` calls the images of a folder without splits."""

_YOLO_SUFFIXES = (".txt", *DATA_SUFFIXES)
_INNER_FOLDERS = ("images", "labels", "annotations", "jpegimages", "imagesets", "data")
_LABEL_FOLDERS = ("annotations", "annotation", "annots", "labels", "label", "json", "xml", "csv", "data")
_MOST_FILES = 20_000  # of a suffix that are looked into: opening each takes a tenth of a millisecond, over a network more


@dataclass(frozen=True)
class Recognised:
    """What a folder was taken for."""

    splits: Mapping[str, tuple[Source, ...]]  # under train, val, test, or names of the folder's own; WHOLE: it has no splits
    sentence: str  # for people: what was taken for what

    def sources(self, split: str | None = None, purpose: SplitName = "train") -> tuple[Source, ...]:
        """The sources of a split; for None those for a purpose: the split for that, if the folder has splits, or all images.

        Raises DatasetError naming the splits that there are.
        """
        own = ["train", "trainval"] if purpose == "train" else [purpose]
        wanted = [*own, WHOLE] if split is None else [canonical_split(split)]
        found = next((self.splits[name] for name in wanted if name in self.splits), None)
        if found is None and split is None and len(self.splits) == 1:
            found = next(iter(self.splits.values()))
        if found is None:
            there = "no splits" if list(self.splits) == [WHOLE] else f"the splits {', '.join(map(printable, self.splits))}"
            asked = f"no split for data.{purpose}" if split is None else f"no split '{split}'"
            raise DatasetError(f"{self.sentence}: {asked}; the folder has {there}: set 'split' of the source")
        return found


def recognise(root: Path, annotations: Path | None = None) -> Recognised:
    """What a folder, or a file of labels, is. `annotations`, relative to the folder: only these label files count.

    Raises DatasetError: nothing is recognised, with what is there; or two readings are possible, with the key that decides.
    """
    place = root if annotations is None else root / annotations
    refuse_archive(place)
    inside = _without_wrappers(list_folder(root if root.is_dir() else root.parent))
    listing = _with_images(inside)
    candidates = find_candidates(listing, _only(listing, place))
    if not candidates:
        raise DatasetError(f"{place}: {describe_unknown(inside)}")
    if len(candidates) > 1:
        found = " or ".join(f"{each.title} ({printable(each.labels[0])})" for each in candidates)
        keys = " or ".join(each.deciding_key for each in candidates)
        raise DatasetError(f"{listing.root} may be {found}: set the source's {keys}")
    narrowed = None if listing.root.is_relative_to(place) else place.relative_to(listing.root)
    return _recognised(candidates[0], listing, narrowed)


def _without_wrappers(listing: FolderListing) -> FolderListing:
    """The listing of the folder within folders that hold nothing else."""
    top = [folder for folder in listing.folders if "/" not in folder]
    alone = len(top) == 1 and not any("/" not in file for file in listing.files)
    if not alone or top[0].lower() in _INNER_FOLDERS or split_of(f"{top[0]}/") is not None or top[0].startswith("VOC"):
        return listing
    return _without_wrappers(list_folder(listing.root / top[0]))


def _with_images(listing: FolderListing) -> FolderListing:
    """The listing of the folder above one that labels alone lie in, as COCO's annotations/, if images are there."""
    if listing.images or listing.root.name.lower() not in _LABEL_FOLDERS:
        return listing
    above = list_folder(listing.root.parent)
    return above if above.images else listing


def _only(listing: FolderListing, place: Path) -> Sequence[str]:
    """The files that may be label files: all, or those that `place` names. Raises DatasetError if it names none."""
    if listing.root.is_relative_to(place):
        return listing.files
    if not exists(place) or not place.is_relative_to(listing.root):
        raise DatasetError(f"there is no {place}: 'annotations' of the source must name a file or folder below {listing.root}")
    path = place.relative_to(listing.root).as_posix()
    return [file for file in listing.files if file == path or file.startswith(f"{path}/")]


def find_candidates(listing: FolderListing, files: Sequence[str]) -> list[Candidate]:
    """The ways to read a folder, where only some of its files may be label files. Raises DatasetError."""
    chosen = FolderListing(listing.root, tuple(files), listing.folders)
    ilsvrc = ilsvrc_candidate(chosen)
    if ilsvrc is not None:
        return [ilsvrc]  # its XML files look like labelImg's, but count pixels from 0, and name classes by WNIDs
    with_images = FolderListing(listing.root, tuple(dict.fromkeys([*files, *listing.images])), listing.folders)
    jsons, tables = _by_kind(chosen, ".json", json_kind), _by_kind(chosen, ".csv", _kind_of_table, tail=0)
    xmls = _by_kind(chosen, ".xml", lambda text: "cvat" if is_cvat(text) else None, head=4096, tail=0)
    found = [
        coco_candidate(listing, jsons.get("coco", ())),
        voc_candidate(chosen),
        cvat_candidate(listing, xmls.get("cvat", ())),
        file_candidate(listing, "Label Studio", "labelstudio", jsons.get("labelstudio", ())),
        _vott_candidate(listing, jsons.get("vott", ())),
        file_candidate(listing, "VGG Image Annotator", "via", [*jsons.get("via", ()), *tables.get("via", ())]),
        file_candidate(listing, "Open Images", "openimages", tables.get("openimages", ())),
        file_candidate(listing, "makesense.ai", "makesense", tables.get("makesense", ())),
        file_candidate(listing, "a table of boxes", "csv", tables.get("csv") or tables.get("csv of one class", ())),
        folder_candidate("YOLO", "yolo", _find_yolo(listing, with_images), chosen, _YOLO_SUFFIXES),
        folder_candidate(labelimg.title(chosen), "labelimg", labelimg.find(with_images), chosen, (".xml", ".json")),
        folder_candidate("labelme", "labelme", labelme.find(with_images), chosen, (".json",)),
    ]
    return [candidate for candidate in found if candidate is not None]


def _find_yolo(listing: FolderListing, chosen: FolderListing) -> Sequence[FolderSource]:
    """The sources of a YOLO folder; a data file that is chosen stands for the label files of all of it."""
    if any(chosen.by_suffix.get(suffix) for suffix in DATA_SUFFIXES):
        chosen = listing
    # Without a text file the many folders in which one may lie need no look.
    return yolo.find(chosen) if chosen.by_suffix.get(".txt") else ()


def _by_kind(
    listing: FolderListing, suffix: str, kind: Callable[[str], str | None], head: int = HEAD_BYTES, tail: int = TAIL_BYTES
) -> Mapping[str, Sequence[str]]:
    """The files of a suffix by what they hold."""
    found: dict[str, list[str]] = {}
    for file in listing.by_suffix.get(suffix, ())[:_MOST_FILES]:
        name = kind(read_ends(listing.root / file, head, tail))
        if name is not None:
            found.setdefault(name, []).append(file)
    return found


def _kind_of_table(text: str) -> str | None:
    first = first_row(text)
    names = {cell.strip().lstrip("#") for cell in first}
    if names.issuperset(OPEN_IMAGES_COLUMNS) or names.issuperset(VIA_COLUMNS):
        return "openimages" if names.issuperset(OPEN_IMAGES_COLUMNS) else "via"
    columns = find_columns(first)
    if columns is None:
        return None
    if columns == MAKESENSE or {"label_name", "bbox_x"} <= names:
        return "makesense"
    return "csv" if names_classes(first) else "csv of one class"


def _vott_candidate(listing: FolderListing, files: Sequence[str]) -> Candidate | None:
    """The exports of a project, or else the folders of its assets, of which each image has one."""
    exports = [file for file in files if not file.endswith("-asset.json")]
    if exports or not files:
        return file_candidate(listing, "VoTT", "vott", exports)
    folders = list(dict.fromkeys(str(PurePosixPath(file).parent) for file in files))
    return file_candidate(listing, "VoTT", "vott", folders)


def _recognised(candidate: Candidate, listing: FolderListing, labels: Path | None) -> Recognised:
    """`labels`: the file or folder of labels that was asked for, which sources that name none have to name."""
    splits: dict[str, tuple[Source, ...]] = {}
    for split, source in sorted(candidate.sources, key=_place):
        name = WHOLE if split is None else split
        names_none = isinstance(source, FolderSource) and source.annotations is None
        splits[name] = (*splits.get(name, ()), source.model_copy(update={"annotations": labels} if names_none else {}))
    counts = {name: sum(_num_images(source, name, listing) for source in sources) for name, sources in splits.items()}
    numbers = ", ".join(f"{printable(name)} {count}" for name, count in counts.items())
    numbers = f"{counts[WHOLE]} images" if list(counts) == [WHOLE] else f"images: {numbers}"
    return Recognised(splits, f"{printable(str(listing.root))} is read as {candidate.title} ({numbers})")


def _place(split_and_source: tuple[str | None, Source]) -> int:
    split = split_and_source[0]
    return [*SPLITS, split].index(split)


def _num_images(source: Source, split: str, listing: FolderListing) -> int:
    """About how many images a source has: those in its lists, in its folder, or in folders named as its split."""
    if isinstance(source, VocSource):
        devkit = source.root if source.year is None else source.root / f"VOC{source.year}"
        return len(read_text(devkit / "ImageSets" / "Main" / f"{source.split}.txt", MAX_SPLIT_BYTES).split("\n")) - 1
    if isinstance(source, IlsvrcDetSource):
        images = (source.root / "Data" / "DET" / source.split).relative_to(listing.root)
        return len(listing.within(images.as_posix()))
    if isinstance(source, FolderSource) and source.format == "yolo":
        return yolo.num_images(source, listing)
    folder = (source.images or Path()).as_posix()
    files = [file for file in listing.within("" if folder == "." else folder) if is_image_name(file)]
    counts = Counter(file.rpartition("/")[0] for file in files)
    return sum(count for parent, count in counts.items() if split_of(f"{parent}/") == split) or len(files)
