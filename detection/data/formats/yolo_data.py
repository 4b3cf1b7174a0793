"""What tells about a YOLO folder as a whole: data.yaml, darknet's obj.data, and files of class names.

Paths in them were written on another machine as often as not; the folder itself says what they mean.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from backbones.errors import first_names, name_fault, printable, shorten
from detection.data.faults import Faults
from detection.data.formats.listing import FolderListing
from detection.data.formats.splits import canonical_split, split_of
from detection.errors import DatasetError
from detection.files import exists, read_text

MAX_DATA_BYTES = 1 << 20
MAX_NAMES_BYTES = 1 << 22

DATA_SUFFIXES = (".yaml", ".yml", ".data")

_SPLIT_KEYS = ("train", "val", "valid", "validation", "test")
_NAMES_FILES = ("classes.txt", "obj.names", "_darknet.labels", "data.names", "names.txt", "labels.txt", "coco.names")


@dataclass(frozen=True)
class YoloData:
    """What a data.yaml or obj.data says; one without a file says nothing."""

    file: Path | None = None
    names: Mapping[int, str] | None = None  # of the class ids; None: not told
    num_classes: int | None = None
    splits: Mapping[str, Sequence[str]] = field(default_factory=dict)  # train, val, test -> folders and lists, as written
    base: str = ""  # what the splits are relative to, as written
    key_point_fields: int = 0  # numbers after the box on each line; 0: no key points


def find_data_file(listing: FolderListing) -> Path | None:
    """The data.yaml or obj.data of a folder, by what it holds, the nearest to the top. Raises DatasetError for several."""
    named = [file for suffix in DATA_SUFFIXES for file in listing.by_suffix.get(suffix, ())]
    for depth in sorted({file.count("/") for file in named}):
        found = [listing.root / file for file in named if file.count("/") == depth and _is_data_file(listing.root / file)]
        if len(found) > 1:
            found = [file for file in found if _has_usual_name(file)] or found
        if len(found) > 1:
            names = first_names([str(file.relative_to(listing.root)) for file in found])
            raise DatasetError(f"{listing.root} holds {names}: set 'annotations' of the source to the one that is meant")
        if found:
            return found[0]
    return None


def _is_data_file(file: Path) -> bool:
    """Whether a file is one of YOLO's, for which other programs' YAML may lie beside it; a broken one is by its name."""
    try:
        values = _read_values(file)
    except DatasetError:
        return _has_usual_name(file)
    splits = [values.get(key) for key in _SPLIT_KEYS]
    return bool(values.get("names") or values.get("nc")) or any(isinstance(each, str | list) and each for each in splits)


def _has_usual_name(file: Path) -> bool:
    return file.stem.lower() in ("data", "dataset", "obj")


def read_data_file(file: Path) -> YoloData:
    """What a data.yaml or obj.data says. Raises DatasetError: no YAML, names or splits of another form, another nc."""
    values = _read_values(file)
    splits = {canonical_split(key): _paths(values[key], key, file) for key in _SPLIT_KEYS if values.get(key)}
    names, number = _names(values.get("names"), file), _whole(values.get("nc"))
    if names is not None and number is not None and number != len(names):
        raise DatasetError(f"{file}: nc is {number}, but 'names' has {len(names)}: make them agree")
    shape, base = values.get("kpt_shape"), values.get("path")
    sizes = [_whole(each) or 0 for each in shape] if isinstance(shape, list) and len(shape) == 2 else [0, 0]
    return YoloData(file, names, number, splits, base if isinstance(base, str) else "", sizes[0] * sizes[1])


def _read_values(file: Path) -> Mapping[str, Any]:
    return _read_pairs(file) if file.suffix.lower() == ".data" else _read_yaml(file)


def _read_yaml(file: Path) -> Mapping[str, Any]:
    """The mapping of a YAML file, all of whose values are texts, for a class may be called "no" or "1.5"."""
    try:
        values = yaml.load(read_text(file, MAX_DATA_BYTES), Loader=yaml.BaseLoader)  # noqa: S506 - it makes texts alone
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f", line {mark.line + 1}"
        problem = printable(str(getattr(error, "problem", None) or getattr(error, "reason", None) or "nested too deep"))
        raise DatasetError(f"{file} is not valid YAML{line}: {problem}") from None
    if not isinstance(values, dict):
        raise DatasetError(f"{file} must hold keys such as 'names' and 'train', found {shorten(values)}")
    return {key: value for key, value in values.items() if isinstance(key, str)}


def _read_pairs(file: Path) -> Mapping[str, Any]:
    """darknet's obj.data: a "key = value" a line; its names are in a file, which is found by its own name."""
    pairs = [line.partition("=") for line in read_text(file, MAX_DATA_BYTES).split("\n")]
    values = {key.strip(): value.strip() for key, equals, value in pairs if equals and key.strip() != "names"}
    return values | {"nc": values.get("classes", "")}


def _paths(value: Any, key: str, file: Path) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(each, str) and each for each in values):
        raise DatasetError(f"{file}: '{key}' must be a path or a list of paths, found {shorten(value)}")
    return tuple(values)


def _names(value: Any, file: Path) -> dict[int, str] | None:
    """The class names by their ids, of a list or of a mapping."""
    if isinstance(value, list):
        value = {str(label): name for label, name in enumerate(value)}
    if value in (None, "", {}):
        return None
    if not isinstance(value, dict):
        raise DatasetError(f"{file}: 'names' must be a list or a mapping of ids, found {shorten(value)}")
    names = {}
    for key, name in value.items():
        label, fault = _whole(key), name_fault(name)
        if label is None:
            raise DatasetError(f"{file}: 'names' has the id {shorten(key)}, which is no whole number from 0 on")
        if fault is not None:
            raise DatasetError(f"{file}: the name of class {label} {fault}")
        names[label] = name.strip()
    return names


def _whole(value: Any) -> int | None:
    """A whole number from 0 on, as text."""
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10 else None


def find_names_file(listing: FolderListing) -> Path | None:
    """The file of class names of a folder, the nearest to the top. Raises DatasetError where several there differ."""
    found = [file for file in listing.files if PurePosixPath(file).name.lower() in _NAMES_FILES or file.endswith(".names")]
    depth = min((file.count("/") for file in found), default=0)
    nearest = [listing.root / file for file in found if file.count("/") == depth]
    differing = [file for file in nearest[1:] if read_names_file(file) != read_names_file(nearest[0])]
    if differing:
        raise DatasetError(f"{nearest[0]} and {differing[0]} name other classes: read them as two sources, with a 'root' each")
    return nearest[0] if nearest else None


def read_names_file(file: Path) -> dict[int, str]:
    """The class of each line by its number from 0 on; an empty line is of no class. Raises DatasetError."""
    names = {}
    for label, line in enumerate(read_text(file, MAX_NAMES_BYTES).split("\n")):
        if not line.strip():
            continue
        fault = name_fault(line.strip())
        if fault is not None:
            raise DatasetError(f"{file}, line {label + 1}: the class name {fault}")
        names[label] = line.strip()
    if not names:
        raise DatasetError(f"{file} names no class")
    return names


def resolve_place(data: YoloData, entry: str, listing: FolderListing, faults: Faults) -> Path | None:
    """The folder, list or image that an entry of a data file means; None where there is none. A guess is told.

    As written, relative to `path` or to the file; without the "../" that Roboflow writes too many; or where the folder has a
    place of that name: of another machine's path as much of its end as fits. Raises DatasetError if several places fit alike.
    """
    if data.file is None:
        return None
    written = entry.replace("\\", "/")
    inner = written.lstrip("./")
    bases = list(dict.fromkeys((data.file.parent / data.base.replace("\\", "/"), data.file.parent, listing.root)))
    places = [below(base / form, listing.root) for form in (written, inner) for base in bases]
    found = [place for place in places if exists(place)]
    inside = [place for place in found if place.is_relative_to(listing.root)]
    place = next(iter(inside or found), None) or _by_its_end(inner, data.file, listing)
    if place is not None and place != places[0]:
        faults.inform(f"{data.file}: {shorten(entry)} is taken for {printable(str(place))}")
    return place


def below(path: Path, root: Path) -> Path:
    """The same path without "..", written as one below the root, if it lies there."""
    whole, top = Path(os.path.abspath(path)), Path(os.path.abspath(root))  # noqa: PTH100 - resolve() would follow links
    return root / whole.relative_to(top) if whole.is_relative_to(top) else whole


def _by_its_end(path: str, file: Path, listing: FolderListing) -> Path | None:
    # That of another split is not meant, though it be called alike.
    split, parts = split_of(f"{path}/"), PurePosixPath(path).parts
    places = [each for each in (*listing.folders, *listing.files) if split_of(f"{each}/") == split]
    for length in range(len(parts), 0, -1):
        end = "/".join(parts[-length:])
        found = [each for each in places if f"/{each}".endswith(f"/{end}")]
        if len(found) > 1:
            raise DatasetError(f"{file}: {shorten(path)} may be any of {first_names(found)}: write where it is")
        if found:
            return listing.root / found[0]
    return None
