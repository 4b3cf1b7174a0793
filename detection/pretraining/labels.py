"""A flat folder of images with a text file of their classes, as ImageNet's devkit and Caffe's lists have them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detection.errors import DatasetError


def read_labels(path: Path, files: Sequence[str], classes: Sequence[str], order: Sequence[str] | None = None) -> dict[str, str]:
    """The class of each of `files`, by name.

    A line is "FILE CLASS", in any order, or just "CLASS", for the files in alphabetical order. CLASS is one of `classes` or
    a number in `order` (by default `classes` in alphabetical order): from 0 beside a file's name, as Caffe counts, and from
    1 alone, as the devkit does. Raises DatasetError naming the file, the line and the fix.
    """
    lines = [(number, line.split()) for number, line in enumerate(_read(path).splitlines(), start=1) if line.strip()]
    order = order or sorted(classes)
    if lines and all(len(words) == 1 for _, words in lines):
        if len(lines) != len(files):
            raise DatasetError(
                f"{path} has {len(lines)} labels for {len(files)} images: write 'FILE CLASS' on each line to find "
                f"out which is missing"
            )
        names = zip(sorted(files), lines, strict=True)
        return {file: _class(path, number, words[0], classes, order, 1) for file, (number, words) in names}
    labels: dict[str, str] = {}
    known = set(files)
    for number, words in lines:
        if len(words) != 2:
            raise DatasetError(f"{path}, line {number}: expected 'FILE CLASS', got '{' '.join(words)}'")
        if words[0] not in known:
            raise DatasetError(f"{path}, line {number}: there is no image '{words[0]}' in the folder")
        if words[0] in labels:
            raise DatasetError(f"{path}, line {number}: '{words[0]}' has a label already")
        labels[words[0]] = _class(path, number, words[1], classes, order, 0)
    missing = sorted(known - labels.keys())
    if missing:
        raise DatasetError(f"{path} has no label for {len(missing)} of {len(files)} images; the first is '{missing[0]}'")
    return labels


def read_class_order(path: Path) -> list[str]:
    """Class names in the order of their numbers: the first word of each line, or ImageNet's meta.mat (with SciPy)."""
    if path.suffix != ".mat":
        return [line.split()[0] for line in _read(path).splitlines() if line.strip()]
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ImportError:
        raise DatasetError(f"reading {path} needs the package scipy: pip install scipy") from None
    try:
        synsets = loadmat(str(path), squeeze_me=True)["synsets"]
        # Inner nodes of the hierarchy follow the classes and have children.
        leaves = sorted((int(row[0]), str(row[1])) for row in synsets if int(row[4]) == 0)
    except (MatReadError, OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise DatasetError(f"{path} is not the meta.mat of ImageNet's devkit: {error}") from None
    return [name for _, name in leaves]


def _class(path: Path, line: int, word: str, classes: Sequence[str], order: Sequence[str], first: int) -> str:
    if word in classes:
        return word
    if not word.isdecimal():
        raise DatasetError(f"{path}, line {line}: '{word}' is not a class folder of the training split")
    if not first <= int(word) < first + len(order):
        raise DatasetError(f"{path}, line {line}: class {word} is outside of {first}..{first + len(order) - 1}")
    name = order[int(word) - first]
    if name not in classes:
        raise DatasetError(f"{path}, line {line}: class {word} is '{name}', which is not a class folder of the training split")
    return name


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise DatasetError(f"cannot read {path}: {reason}") from None
