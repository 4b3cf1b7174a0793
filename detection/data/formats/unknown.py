"""What to say of a folder that is in no format that is known: what is in it, and what it lacks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath

from backbones.errors import first_names, printable
from detection.data.formats.listing import FolderListing
from detection.errors import DatasetError
from detection.files import is_file

ARCHIVE_SUFFIXES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
_LABEL_SUFFIXES = (".json", ".xml", ".csv", ".txt", ".yaml", ".yml")
_FORMATS = "COCO JSON, YOLO, Pascal VOC, labelme, CVAT, Label Studio, VoTT, VIA, makesense, Open Images, CSV"


def refuse_archive(path: Path) -> None:
    """Raise DatasetError if a file is an archive, by its suffix."""
    if path.suffix.lower() in ARCHIVE_SUFFIXES and is_file(path):
        raise DatasetError(f"{path} is an archive: unpack it, and name the folder")


def describe_unknown(listing: FolderListing) -> str:
    """Why a folder cannot be read, and what to do: the end of a message that begins with its name."""
    if not listing.files:
        return "the folder is empty"
    archives = [file for suffix in ARCHIVE_SUFFIXES for file in listing.by_suffix.get(suffix, ())]
    if archives and not listing.images:
        return f"the folder holds an archive, {printable(archives[0])}: unpack it"
    records = [*listing.by_suffix.get(".tfrecord", ()), *listing.by_suffix.get(".tfrecords", ())]
    if records:
        return f"TFRecord files ({printable(records[0])}) are not read: export the data as COCO JSON, YOLO or Pascal VOC"
    labels = [file for suffix in _LABEL_SUFFIXES for file in listing.by_suffix.get(suffix, ())]
    if not listing.images:
        return f"the folder holds no images, but {_describe_files(listing)}"
    if labels:
        return (
            f"no format is recognised by {first_names(labels)}: those that are known are {_FORMATS}; "
            f"'format' of the source asks for one, and the message then says what it misses"
        )
    folders = Counter(PurePosixPath(image).parent.name for image in listing.images if "/" in image)
    if len(folders) >= 2:
        names = first_names([name for name, _ in folders.most_common()])
        return (
            f"{len(listing.images)} images in folders ({names}) and no labels: a set for classification has no boxes to "
            f"learn from; for a classifier, see resdet pretrain"
        )
    return f"{len(listing.images)} images and no labels: the label files have to lie in the folder too"


def _describe_files(listing: FolderListing) -> str:
    counts = Counter({suffix or "without a suffix": len(files) for suffix, files in listing.by_suffix.items()})
    return "files of the kinds " + ", ".join(f"{printable(suffix[:20])} ({count})" for suffix, count in counts.most_common(5))
