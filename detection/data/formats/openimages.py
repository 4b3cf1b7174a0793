"""Open Images: a table of all boxes of a split, relative to the images' sizes, and one of the names of the classes.

The tables list millions of images, of which people fetch some: those that are not there are left out, with a count, and so are
images that are in no table: they are not known to be without objects. Objects that are a group (`IsGroupOf`) are crowds.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from backbones.errors import printable, shorten
from detection.config import FolderSource
from detection.data.faults import Faults
from detection.data.formats.contents import read_ends
from detection.data.formats.listing import FolderListing, list_folder
from detection.data.formats.named_images import image_folder, inform_of_unnamed, label_files, path_below, read_class_name
from detection.data.formats.shapes import corner_box
from detection.data.formats.tables import first_row
from detection.data.labelled import LabelledImage, LabelledObject
from detection.errors import DatasetError
from detection.files import open_regular

COLUMNS = ("ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax")
_CLASS_FILE = "class-descriptions"  # as in class-descriptions-boxable.csv, oidv7-class-descriptions-boxable.csv


def read_openimages(source: FolderSource, root: Path, faults: Faults) -> list[LabelledImage]:
    """The images of Open Images that are in a folder. Raises DatasetError."""
    tables = label_files(source, root, ".csv", is_openimages_table, "table of boxes of Open Images")
    listing = list_folder(root if root.is_dir() else root.parent)
    names, files = _class_names(listing, faults), _files_by_id(image_folder(source, root))
    found = [image for table in tables for image in _read_table(table, files, names, root, faults)]
    inform_of_unnamed(found, source, root, faults)
    return found


def is_openimages_table(path: Path) -> bool:
    """Whether a file is a table of boxes of Open Images, by its header. Raises DatasetError if it cannot be read."""
    return set(COLUMNS) <= set(first_row(read_ends(path)))


def _files_by_id(folder: Path) -> dict[str, Path]:
    """The image files below a folder by their ids. Raises DatasetError where two have one id."""
    files: dict[str, Path] = {}
    for name in list_folder(folder).images:
        stem = PurePosixPath(name).stem
        if stem in files:
            raise DatasetError(f"{files[stem]} and {folder / name} have one image id: set 'images' of the source to one folder")
        files[stem] = folder / name
    return files


def _class_names(listing: FolderListing, faults: Faults) -> dict[str, str]:
    """The names of the classes by their codes ("/m/01g317"), of the file of class descriptions; none without it."""
    names = {}
    for file in (file for file in listing.by_suffix.get(".csv", ()) if _CLASS_FILE in PurePosixPath(file).name):
        for _, row in _rows(listing.root / file):
            if len(row) >= 2 and row[0].startswith("/"):  # the header, where there is one, does not
                names[row[0]] = row[1]
    if not names:
        faults.inform(
            f"{listing.root} has no class-descriptions.csv: the classes of Open Images keep their codes, as /m/01g317"
        )
    return names


def _read_table(
    table: Path, files: dict[str, Path], names: dict[str, str], root: Path, faults: Faults
) -> Iterator[LabelledImage]:
    rows = _rows(table)
    header = next(rows, (0, []))[1]
    if not set(COLUMNS) <= set(header):
        raise DatasetError(f"{table} is no table of boxes of Open Images: its first line must name {', '.join(COLUMNS)}")
    at = {name: header.index(name) for name in header}
    objects: dict[str, list[LabelledObject]] = {}
    missing = set[str]()
    for number, row in rows:
        if len(row) < len(header):
            faults.note(f"{table}, line {number}", "row with too few columns", "dropped")
        elif row[at["ImageID"]] not in files:
            missing.add(row[at["ImageID"]])
        else:
            found = _read_object(row, at, names, f"{table}, line {number}", faults)
            objects.setdefault(row[at["ImageID"]], []).extend([] if found is None else [found])
    if missing:
        faults.inform(f"{table}: {len(missing)} images that it lists are not there, and are left out")
    for image_id, found_objects in objects.items():
        file = files[image_id]
        yield LabelledImage(path_below(file, root), file, str(table), None, found_objects, relative=True)


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a table with the numbers of their lines, read one by one: the largest has 14 million. Raises DatasetError."""
    try:
        with open_regular(path) as file:
            reader = csv.reader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""))
            for row in reader:
                yield reader.line_num, row
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DatasetError(f"{path} is not a text file in UTF-8: convert it") from None
    except csv.Error as error:
        raise DatasetError(f"{path}: {printable(str(error))}") from None


def _read_object(
    row: Sequence[str], at: dict[str, int], names: dict[str, str], where: str, faults: Faults
) -> LabelledObject | None:
    texts = [row[at[name]] for name in ("XMin", "YMin", "XMax", "YMax")]
    box = corner_box(texts)
    if box is None:
        faults.note(f"{where}: {shorten(' '.join(texts))}", "row without four numbers", "dropped")
        return None
    code = row[at["LabelName"]]
    name = read_class_name(names.get(code, code), where, faults)
    crowd = "IsGroupOf" in at and row[at["IsGroupOf"]].strip() == "1"
    return None if name is None else LabelledObject(name, box, where, crowd=crowd)
