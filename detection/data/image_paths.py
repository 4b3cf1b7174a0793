"""Where an image is that a label file names: its path as another program, system or person wrote it -> the file here.

A path that leads to a file is taken as it is. Else it is read as a URL, with backslashes, or as a path on another machine:
below the folders a file is looked for whose name is the same but for case, Unicode form or suffix, in folders that agree as far
as any do. It is taken if it is the only one. What was guessed is told once per kind, with a count.
"""

from __future__ import annotations

import os
import re
import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from backbones.errors import printable, shorten
from detection.data.faults import Faults
from detection.data.formats.listing import list_folder
from detection.data.formats.splits import split_of
from detection.data.images import is_image_name, looks_like_image, require_kind_that_is_read
from detection.data.records import list_files
from detection.errors import DatasetError, MissingImageError, did_you_mean
from detection.files import fold_name, is_file

MAX_NAME = 4096
"""Characters of a path that is looked for; no system has longer ones."""

_KINDS = {
    "url": "written as URLs",
    "backslash": "written with backslashes",
    "folder": "in another place than is named",
    "case": "named in other case",
    "unicode": "named in another Unicode form",
    "upload": "named with the prefix of an upload",
    "suffix": "named with another suffix or none",
}

_DOUBTFUL = frozenset({"folder", "upload", "suffix"})  # guesses that may lead to another image than is meant
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # of two letters at least: "C:" is a drive
_URL = re.compile(rf"{_SCHEME.pattern}|.*\?|.*%[0-9A-Fa-f]{{2}}", re.DOTALL)
_QUERY_KEYS = frozenset({"d", "file", "filename", "path", "image"})  # what a query names a file by; "d" is Label Studio's
_UPLOAD = re.compile(r"[0-9a-f]{8}-(?=[^/]+$)")  # Label Studio puts it before the name of a file that is uploaded
_MOST_RANKED = 1000  # files of one name that are compared; more cannot be told apart by their folders
_NEIGHBOURS = 30  # names on either side of a missing one, in alphabetical order, that it is compared with


class Reading(NamedTuple):
    """One way to read what a label file says."""

    path: str  # with "/"
    kinds: frozenset[str]  # of _KINDS: what has to be assumed for it


@dataclass
class ImageFinder:
    """Finds images below folders; what is below is listed once, when the first path leads nowhere.

    A relative path is looked up from each of the folders, in their order. Raises DatasetError for one that cannot be listed.
    """

    folders: Sequence[Path]
    _names: dict[Path, set[str]] = field(init=False)  # the images in each of the folders itself
    _counts: Counter[str] = field(default_factory=Counter)  # kind -> files
    _examples: dict[str, tuple[str, Path]] = field(default_factory=dict)
    _names_of: dict[Path, str] = field(default_factory=dict)  # file -> what the labels call it, at first
    _doubtful: dict[Path, str] = field(default_factory=dict)  # those of them that may mean another file, which is missing

    def __post_init__(self) -> None:
        # Asking for each file is slow over a network.
        self._names = {folder: set(filter(is_image_name, list_files(folder))) for folder in self.folders}

    def find(self, name: str, where: str, near: Path | None = None) -> Path:
        """The file of an image. `where`: the label file, for messages; `near`: a file beside which the image may rather lie.

        Raises DatasetError: no file fits (MissingImageError), several do, one that was guessed has two names in the labels, or
        it is of a kind that is not read.
        """
        try:
            file = self.look_up(name, near)
        except DatasetError as error:
            raise DatasetError(f"{where}: {error}") from None
        if file is None:
            raise MissingImageError(f"{where} lists an image that does not exist: {self._describe_missing(name)}")
        return file

    def look_up(self, name: str, near: Path | None = None) -> Path | None:
        """As `find`, but None where no file fits."""
        file = self._follow(name, near)
        if file is not None:
            return self._claim(file, name, frozenset())
        for reading in readings(name):
            file = self._follow(reading.path, near)
            if file is not None:
                return self._claim(file, name, reading.kinds)
        for index in (self._by_name, self._by_stem):
            for reading in readings(name):
                file = self._guess(reading.path, index, name, near)
                if file is not None:
                    return self._claim(file, name, reading.kinds | self._differences(reading.path, file, near))
        return None

    def of_label_file(self, label_file: Path) -> Path | None:
        """The image that a label file is named after; None where there is none, or several of which none is nearest."""
        for index, name in ((self._by_name, label_file.stem), (self._by_stem, _stem(label_file.stem))):
            found = _prefer(index.longest_agreement([name]), [name], label_file)
            if len(found) == 1:
                return self._claim(found[0], label_file.stem, frozenset())
        return None

    def inform(self, where: str, faults: Faults) -> None:
        """Tell which kinds of guesses led to files, each with a count and an example."""
        for kind, count in self._counts.items():
            name, file = self._examples[kind]
            faults.inform(f"{where}: {count} images are {_KINDS[kind]}, e.g. {shorten(name)} is {printable(str(file))}")

    def _follow(self, path: str, near: Path | None) -> Path | None:
        """The file that a path leads to as it is."""
        if near is not None and path and is_file(near.parent / path):
            return _without_dots(near.parent / path)
        for folder in self.folders:
            if path in self._names[folder] or (path and is_file(folder / path)):
                return _without_dots(folder / path)
        return None

    @cached_property
    def _files(self) -> list[Path]:
        """All images below the folders."""
        found = {folder / name: None for folder in self.folders for name in list_folder(folder).files}
        return [file for file in found if looks_like_image(file.name)]

    @cached_property
    def _by_name(self) -> _Index:
        return _Index([(_key(file.parts), file) for file in self._files])

    @cached_property
    def _by_stem(self) -> _Index:
        return _Index([(_key((*file.parts[:-1], file.stem)), file) for file in self._files if is_image_name(file.name)])

    def _guess(self, path: str, index: _Index, name: str, near: Path | None) -> Path | None:
        """The one file of the index that fits a path best. Raises DatasetError if several do."""
        parts = _parts(path)
        if parts and index is self._by_stem:
            parts = (*parts[:-1], _stem(parts[-1]))
        found = _prefer(index.longest_agreement(parts), parts, near)
        if len(found) > 1 and len({os.path.realpath(file) for file in found[:_MOST_RANKED]}) > 1:
            files = ", ".join(printable(str(file)) for file in found[:3])
            raise DatasetError(f"{shorten(name)} may be any of {len(found)} images: {files}; name it with its folder")
        return found[0] if found else None

    def _differences(self, path: str, file: Path, near: Path | None) -> frozenset[str]:
        """In which ways a file that was found is not quite what a path says. A name alone says nothing of a place."""
        asked, found = _parts(path), file.parts
        kinds = {_difference(*pair) for pair in _agreeing(asked, found)}
        if fold_name(asked[-1]) != fold_name(found[-1]):
            kinds.add("suffix")
        same_end = list(map(fold_name, asked[:-1])) == list(map(fold_name, found[-len(asked) : -1]))
        is_there = same_end and not path.startswith("/") and Path(*found[: -len(asked)]) in self.folders
        if not is_there and (near is None or "/" in path):
            kinds.add("folder")
        return frozenset(kinds - {""})

    def _claim(self, file: Path, name: str, kinds: frozenset[str]) -> Path:
        """The file, noted as this name's. Raises DatasetError where it is another's too, and one of the two may be wrong."""
        is_doubtful = not kinds.isdisjoint(_DOUBTFUL)
        other = self._doubtful.get(file) or (self._names_of.get(file) if is_doubtful else None)
        if other not in (None, name):
            raise DatasetError(f"{shorten(name)} and {shorten(other)} both seem to be {printable(str(file))}: is one missing?")
        require_kind_that_is_read(file)
        if file not in self._names_of:
            self._names_of[file] = name
            self._counts.update(kinds)
            self._examples |= {kind: (name, file) for kind in kinds if kind not in self._examples}
        if is_doubtful:
            self._doubtful[file] = name
        return file

    def _describe_missing(self, name: str) -> str:
        """The name, where it was looked for, and what is there instead."""
        places = " or ".join(printable(str(folder)) for folder in self.folders)
        if not self._files:
            return f"{shorten(name)} in {places}, where no image is"
        parts = _parts(readings(name)[-1].path)
        similar = did_you_mean(parts[-1], self._by_name.neighbours(fold_name(parts[-1]))) if parts else ""
        example = f"{len(self._files)} images are there, e.g. {shorten(self._files[0].name)}"
        return f"{shorten(name)} in {places}; {example}{similar}"


def readings(name: str) -> list[Reading]:
    """The ways to read a path, the most literal first.

    Beside what is written: a URL's path, or the file that its query names; with "/" for each backslash; and either of them
    without the eight digits that an upload puts before a name.
    """
    name = name[:MAX_NAME]
    urls = {path: frozenset({"url"}) for path in _from_url(name)}
    found = urls if urls and _SCHEME.match(name) else {name: frozenset[str]()}
    for path, kinds in urls.items():
        found.setdefault(path, kinds)
    for path, kinds in list(found.items()):
        if "\\" in path:
            found.setdefault(path.replace("\\", "/"), kinds | {"backslash"})
    for path, kinds in list(found.items()):
        folder, slash, base = path.rpartition("/")
        if _UPLOAD.match(base):
            found.setdefault(f"{folder}{slash}{_UPLOAD.sub('', base)}", kinds | {"upload"})
    return [Reading(path, kinds) for path, kinds in found.items()]


def _from_url(text: str) -> Iterator[str]:
    """The paths that a text may mean as a URL, or as a part of one."""
    if not _URL.match(text):
        return
    try:
        url = urlsplit(text)
        yield from (value for key, value in parse_qsl(url.query, errors="surrogateescape") if key in _QUERY_KEYS)
    except ValueError:  # a host in brackets, or too many keys
        return
    yield unquote(url.path, errors="surrogateescape")
    if not url.scheme:
        yield unquote(text, errors="surrogateescape")  # "#" and "?" may be of the name


class _Index:
    """Files by their paths read from the end: those that agree with a path in most of its last parts lie side by side."""

    def __init__(self, keyed: Sequence[tuple[str, Path]]) -> None:
        ordered = sorted(keyed, key=lambda pair: pair[0])
        self._keys = [key for key, _ in ordered]
        self._files = [file for _, file in ordered]

    def longest_agreement(self, parts: Sequence[str]) -> Sequence[Path]:
        """The files that end in as many of the last parts as any does; none where the last one fits no file."""
        for length in range(len(parts), 0, -1):
            prefix = _key(parts[-length:])
            # "0" follows "/", with which each part of a key ends.
            first, end = bisect_left(self._keys, prefix), bisect_left(self._keys, prefix[:-1] + "0")
            if first < end:
                return self._files[first:end]
        return []

    def neighbours(self, name: str) -> list[str]:
        """Names of files that come before and after a name in alphabetical order."""
        place = bisect_left(self._keys, name)
        return [file.name for file in self._files[max(place - _NEIGHBOURS, 0) : place + _NEIGHBOURS]]


def _without_dots(path: Path) -> Path:
    """The path without "..", where this is the same file: an image may be met under another path, too."""
    plain = Path(os.path.normpath(path)) if ".." in path.parts else path
    return plain if plain is path or (is_file(plain) and plain.samefile(path)) else path


def _prefer(files: Sequence[Path], parts: Sequence[str], near: Path | None) -> Sequence[Path]:
    """Of files that fit alike those that are written most nearly alike, then those of the split of a file, then the nearest."""
    if not 1 < len(files) <= _MOST_RANKED:
        return files
    ranks = []
    for file in files:
        differences = [_difference(*pair) for pair in _agreeing(parts, file.parts)]
        same_split = near is not None and _is_of_split(near, file)
        ranks.append((-differences.count("case"), -differences.count("unicode"), same_split, _num_common(near, file)))
    return [file for file, rank in zip(files, ranks, strict=True) if rank == max(ranks)]


def _is_of_split(near: Path, file: Path) -> bool:
    """Whether two files are of one split, as "train_labels.csv" and "train/1.jpg", by what is not common to their paths."""
    num_shared = _num_common(near, file)
    splits = [split_of("/".join(each.parts[num_shared:])) for each in (near, file)]
    return splits[0] is not None and splits[0] == splits[1]


def _num_common(near: Path | None, file: Path) -> int:
    return 0 if near is None else len(os.path.commonprefix([near.parent.parts, file.parent.parts]))


def _agreeing(asked: Sequence[str], found: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The pairs of parts, from the end, that agree but for case and Unicode form; of the names, the stems if not the names."""
    if not asked:
        return
    if fold_name(asked[-1]) == fold_name(found[-1]):
        yield asked[-1], found[-1]
    elif fold_name(_stem(asked[-1])) == fold_name(_stem(found[-1])):
        yield _stem(asked[-1]), _stem(found[-1])
    for pair in zip(reversed(asked[:-1]), reversed(found[:-1]), strict=False):
        if fold_name(pair[0]) != fold_name(pair[1]):
            return
        yield pair


def _difference(asked: str, found: str) -> str:
    """What two parts that agree differ in."""
    if asked == found:
        return ""
    return "unicode" if unicodedata.normalize("NFC", asked) == unicodedata.normalize("NFC", found) else "case"


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.split("/") if part not in ("", "."))


def _stem(name: str) -> str:
    """A name without the suffix of an image; a dot in a name without one is of the name."""
    return name.removesuffix(PurePosixPath(name).suffix) if looks_like_image(name) else name


def _key(parts: Sequence[str]) -> str:
    return "".join(f"{fold_name(part)}/" for part in reversed(parts))
