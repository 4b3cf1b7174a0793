"""Tables of boxes, one a row: CSV with a header of any usual names, and two kinds without one, RetinaNet's and makesense's.

Commas, semicolons and tabs separate columns. A row with an image and no box is an image without objects. Boxes are in pixels,
as corners or as corner, width and height, in four columns or as text in one. Without a column for it, all are of one class.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from backbones.errors import printable, shorten
from detection.config import FolderSource
from detection.data.faults import Faults
from detection.data.formats.contents import read_ends
from detection.data.formats.named_images import (
    NamedImage,
    find_images,
    image_folder,
    inform_of_unnamed,
    label_files,
    read_class_name,
    read_size,
)
from detection.data.formats.shapes import corner_box, sized_box
from detection.data.images import looks_like_image
from detection.data.labelled import LabelledImage, LabelledObject
from detection.errors import DatasetError
from detection.files import read_text

# Names of columns, in lower case and without anything but letters and digits; the likeliest first.
_FILE = ("filename", "file", "imagename", "imagepath", "filepath", "image", "path", "img", "imgname", "imgpath", "imageid")
_CLASS = ("class", "label", "classname", "labelname", "category", "categoryname", "objectclass", "cls", "tag", "name")
_CORNERS = (
    ("xmin", "x1", "left", "minx", "bboxxmin", "bboxx1", "boxx1", "xtl"),
    ("ymin", "y1", "top", "miny", "bboxymin", "bboxy1", "boxy1", "ytl"),
    ("xmax", "x2", "right", "maxx", "bboxxmax", "bboxx2", "boxx2", "xbr"),
    ("ymax", "y2", "bottom", "maxy", "bboxymax", "bboxy2", "boxy2", "ybr"),
)
_SIZED = (
    ("x", "bboxx", "boxx", "bboxleft", *_CORNERS[0]),
    ("y", "bboxy", "boxy", "bboxtop", *_CORNERS[1]),
    ("w", "bboxwidth", "boxwidth", "bboxw", "boxw", "width"),
    ("h", "bboxheight", "boxheight", "bboxh", "boxh", "height"),
)
_BOX = ("bbox", "box", "boundingbox")  # one column with all four numbers
_IMAGE_SIZE = (
    ("imageheight", "imgheight", "imageh", "imgh", "height"),
    ("imagewidth", "imgwidth", "imagew", "imgw", "width"),
)
_NUMBER = re.compile(r"\s*[+-]?[0-9]*[.,]?[0-9]+([eE][+-]?[0-9]+)?\s*")
_BRACKETS = re.compile(r"[\[\](){}]")
ONLY_CLASS = "object"
"""The class of the boxes of a table that names none."""


@dataclass(frozen=True)
class Columns:
    """Which column of a table holds what, as indices."""

    file: int
    label: int | None  # None: all boxes are of one class
    box: tuple[int, ...]  # four, or the one that holds four numbers as text
    sized: bool | None  # the box is x, y, width, height; else two corners; None: the rows tell
    image_size: tuple[int, ...] = ()  # height and width, or neither
    has_header: bool = True


RETINANET = Columns(0, 5, (1, 2, 3, 4), sized=False, has_header=False)
MAKESENSE = Columns(5, 0, (1, 2, 3, 4), sized=True, image_size=(7, 6), has_header=False)


def read_table(path: Path, faults: Faults) -> list[NamedImage]:
    """The images of a table in the order in which they first occur. Raises DatasetError if its columns cannot be told."""
    rows = read_rows(path)
    line, first = next(rows, (0, list[str]()))
    columns = find_columns(first)
    if columns is None:
        raise DatasetError(
            f"{path}: the first line does not tell which columns are image, class and box: {shorten(', '.join(first))}; "
            f"name them filename,class,xmin,ymin,xmax,ymax in a first line"
        )
    if not columns.has_header:
        rows = chain([(line, first)], rows)
    if columns.sized is None:
        rows, columns = _with_kind_of_box(list(rows), columns, path, faults)
    if columns.label is None:
        faults.inform(f"{path} has no column for the class: all of its boxes are of the class '{ONLY_CLASS}'")
    return _read_images(rows, columns, path, faults)


def _with_kind_of_box(
    rows: Sequence[tuple[int, list[str]]], columns: Columns, path: Path, faults: Faults
) -> tuple[Iterator[tuple[int, list[str]]], Columns]:
    """The rows, and columns that say what the four numbers of a box are: corners only where they can be those in each row."""
    boxes = [corner_box(numbers) for _, row in rows if len(numbers := _numbers_of(_padded(row, columns), columns)) == 4]
    sized = not all(box is not None and box[0] < box[2] and box[1] < box[3] for box in boxes)
    faults.inform(f"{path}: boxes are taken as {'x, y, width, height' if sized else 'x1, y1, x2, y2, for all of them may be'}")
    return iter(rows), replace(columns, sized=sized)


def _read_images(rows: Iterable[tuple[int, list[str]]], columns: Columns, path: Path, faults: Faults) -> list[NamedImage]:
    images: dict[str, list[LabelledObject]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    for number, row in rows:
        where = f"{path}, line {number}"
        cells = _padded(row, columns)
        name = cells[columns.file].strip()
        if not name:
            faults.note(where, "row without an image", "dropped")
            continue
        found = _read_object(cells, columns, where, faults)
        images.setdefault(name, []).extend([] if found is None else [found])
        size = read_size(*(cells[index] for index in columns.image_size)) if columns.image_size else None
        sizes |= {} if size is None else {name: size}
    return [NamedImage(name, path, objects, sizes.get(name)) for name, objects in images.items()]


def _padded(row: Sequence[str], columns: Columns) -> list[str]:
    """A row with as many cells as the columns need."""
    return [*row, *[""] * (max(columns.file, columns.label or 0, *columns.box, *columns.image_size) + 1 - len(row))]


def _numbers_of(cells: Sequence[str], columns: Columns) -> list[str]:
    """The texts of a box's numbers, four where it has all of them."""
    texts = [cells[index].strip() for index in columns.box]
    return texts if len(texts) == 4 else re.split(r"[\s,;]+", _BRACKETS.sub(" ", texts[0]).strip())


def read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a table with the numbers of their lines, without empty ones. Raises DatasetError."""
    lines = read_text(path).split("\n")
    first = next((line for line in lines if line.strip()), "")
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=_delimiter(first))
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, row
    except csv.Error as error:
        raise DatasetError(f"{path}, line {reader.line_num}: {printable(str(error))}") from None


def _delimiter(line: str) -> str:
    return max(",;\t", key=line.count)


def find_columns(first: Sequence[str]) -> Columns | None:
    """The columns of a table by its first row: a header, or a row of a kind without one; None where they cannot be told."""
    names = [re.sub(r"[^a-z0-9]", "", cell.lower()) for cell in first]
    at = {name: index for index, name in reversed(list(enumerate(names)))}
    file, label = _first(at, _FILE), _first(at, _CLASS)
    if file is not None:
        return _with_header(at, file, label)
    if len(first) == 6 and _is_image(first[0]) and _are_numbers(first[1:5], or_empty=True):
        return RETINANET
    return MAKESENSE if len(first) == 8 and _is_image(first[5]) and _are_numbers([*first[1:5], *first[6:]]) else None


def _with_header(at: Mapping[str, int], file: int, label: int | None) -> Columns | None:
    for names, sized in ((_CORNERS, False), (_SIZED, True)):
        box = tuple(index for each in names if (index := _first(at, each)) is not None)
        if len(box) == 4:
            # The width of a box may be called as that of an image is.
            size = tuple(index for each in _IMAGE_SIZE if (index := _first(at, each)) is not None and index not in box)
            return Columns(file, label, box, sized, size if len(size) == 2 else ())
    text = _first(at, _BOX)
    size = tuple(index for each in _IMAGE_SIZE if (index := _first(at, each)) is not None)
    return None if text is None else Columns(file, label, (text,), None, size if len(size) == 2 else ())


def _first(at: Mapping[str, int], names: Sequence[str]) -> int | None:
    return next((at[name] for name in names if name in at), None)


def _is_image(cell: str) -> bool:
    return looks_like_image(cell.strip())


def _are_numbers(cells: Sequence[str], or_empty: bool = False) -> bool:
    return all(_NUMBER.fullmatch(cell) for cell in cells) or (or_empty and not any(cell.strip() for cell in cells))


def _read_object(cells: Sequence[str], columns: Columns, where: str, faults: Faults) -> LabelledObject | None:
    """The object of a row, or None where it has no box: by intention, if all of its cells are empty, or by a fault."""
    texts = _numbers_of(cells, columns)
    if not any(texts):
        return None
    read_box = sized_box if columns.sized else corner_box
    # Where semicolons separate columns, commas may be decimal points.
    box = (read_box(texts) or read_box([text.replace(",", ".", 1) for text in texts])) if len(texts) == 4 else None
    if box is None:
        faults.note(f"{where}: {shorten(' '.join(texts))}", "row without four numbers", "dropped")
        return None
    name = ONLY_CLASS if columns.label is None else read_class_name(cells[columns.label], where, faults)
    return None if name is None else LabelledObject(name, box, where)


def read_csv(source: FolderSource, root: Path, faults: Faults) -> list[LabelledImage]:
    """The images of tables of boxes. Raises DatasetError."""
    files = label_files(source, root, ".csv", is_table, "table of boxes (.csv)")
    files = [file for file in files if names_classes(first_row(read_ends(file)))] or files
    named = [image for file in files for image in read_table(file, faults)]
    found = find_images(named, root, [image_folder(source, root)], faults)
    inform_of_unnamed(found, source, root, faults)
    return found


def names_classes(first: Sequence[str]) -> bool:
    """Whether a table that begins with a row has a class for each box; beside such, one that has not is another thing."""
    columns = find_columns(first)
    return columns is not None and columns.label is not None


def is_table(path: Path) -> bool:
    """Whether a file is a table of boxes, by its first row. Raises DatasetError if it cannot be read."""
    return find_columns(first_row(read_ends(path))) is not None


def first_row(text: str) -> list[str]:
    """The first row of a table; of one that is quoted wrongly, none."""
    line = next((line for line in text.splitlines() if line.strip()), "")
    try:
        return next(csv.reader([line], delimiter=_delimiter(line)), [])
    except csv.Error:
        return []
