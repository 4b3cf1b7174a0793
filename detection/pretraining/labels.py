"""A flat folder of images with a text file of their classes, as ImageNet's devkit and Caffe's lists have them."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from pathlib import Path

from backbones.errors import shorten
from detection.errors import DatasetError
from detection.files import read_text
from detection.matlab import read_matlab

_MAX_LINE = 4096


def read_labels(path: Path, files: Sequence[str], classes: Sequence[str], order: Sequence[str] | None = None) -> dict[str, str]:
    """The class of each of `files`, by name.

    A line is "FILE CLASS", in any order, or just "CLASS", for the files in alphabetical order. CLASS is one of `classes` or
    a number in `order` (by default `classes` in alphabetical order): from 0 beside a file's name, as Caffe counts, and from
    1 alone, as the devkit does. Raises DatasetError naming the file, the line and the fix.
    """
    lines = [(number, line.strip()) for number, line in enumerate(read_text(path).split("\n"), start=1) if line.strip()]
    order, known_classes = order or sorted(classes), set(classes)
    if lines and all(text in known_classes or len(text.split()) == 1 for _, text in lines):
        if len(lines) != len(files):
            raise DatasetError(
                f"{path} has {len(lines)} labels for {len(files)} images: write 'FILE CLASS' on each line to find "
                f"out which is missing"
            )
        names = zip(sorted(files), lines, strict=True)
        return {file: _class(path, number, text, known_classes, order, 1) for file, (number, text) in names}
    labels: dict[str, str] = {}
    known = set(files)
    for number, text in lines:
        file, word = _split(path, number, text, known, known_classes)
        if file in labels:
            raise DatasetError(f"{path}, line {number}: {shorten(file)} has a label already")
        labels[file] = _class(path, number, word, known_classes, order, 0)
    missing = sorted(known - labels.keys())
    if missing:
        raise DatasetError(f"{path} has no label for {len(missing)} of {len(files)} images; the first is {shorten(missing[0])}")
    return labels


def _split(path: Path, line: int, text: str, known: Container[str], classes: Container[str]) -> tuple[str, str]:
    """(file, class) of a line. Either may hold blanks: the file is one that is known. Raises DatasetError."""
    if len(text) > _MAX_LINE:
        raise DatasetError(f"{path}, line {line}: expected 'FILE CLASS', got {len(text)} characters")
    readings = [(text[: gap.start()], text[gap.end() :]) for gap in re.finditer(r"\s+", text)]
    found = [(file, word) for file, word in readings if file in known]
    if len(found) == 1 and (len(found[0][1].split()) == 1 or found[0][1] in classes):
        return found[0]
    if len(readings) == 1:
        raise DatasetError(f"{path}, line {line}: there is no image {shorten(readings[0][0])} in the folder")
    problem = "which begins with several of the images" if found else "which begins with none of the images"
    problem = "whose end is no class" if len(found) == 1 else problem
    raise DatasetError(f"{path}, line {line}: expected 'FILE CLASS', got {shorten(text)}, {problem}")


def read_class_order(path: Path) -> list[str]:
    """Class names in the order of their numbers: the first word of each line, or ImageNet's meta.mat (with SciPy).

    Raises DatasetError."""
    if path.suffix != ".mat":
        return [line.split()[0] for line in read_text(path).split("\n") if line.strip()]
    title = "the meta.mat of ImageNet's devkit"
    found = read_matlab(path, ("synsets",), title)["synsets"]
    try:
        # Inner nodes of the hierarchy follow the classes and have children. Each field is a list of its values.
        synsets = [list(row.values()) for row in found]
        leaves = [(int(row[0][0][0]), str(row[1][0])) for row in synsets if int(row[4][0][0]) == 0]
    except (LookupError, TypeError, ValueError, AttributeError):
        raise DatasetError(f"{path} is not {title}") from None
    return [name for _, name in sorted(leaves)]


def _class(path: Path, line: int, word: str, classes: Container[str], order: Sequence[str], first: int) -> str:
    if word in classes:
        return word
    if re.fullmatch("[0-9]{1,9}", word) is None:
        raise DatasetError(f"{path}, line {line}: {shorten(word)} is not a class folder of the training split")
    if not first <= int(word) < first + len(order):
        raise DatasetError(f"{path}, line {line}: class {word} is outside of {first}..{first + len(order) - 1}")
    name = order[int(word) - first]
    if name not in classes:
        name = shorten(name)
        raise DatasetError(f"{path}, line {line}: class {word} is {name}, which is not a class folder of the training split")
    return name
