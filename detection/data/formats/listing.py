"""What lies in a folder and below it, listed once: what a format is recognised by, and where images are looked for.

Paths are relative to the folder, with "/" on every system, in the order of their names.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from backbones.errors import printable
from detection.data.images import is_image_name
from detection.errors import DatasetError

MAX_ENTRIES = 5_000_000
"""Files and folders below one; more are a disk, not a data set."""
MAX_DEPTH = 40
"""Folders within folders."""

# What systems and programs leave beside people's files; hidden files, which begin with a dot, count among it.
_LITTER = frozenset({"__macosx", "thumbs.db", "desktop.ini", "@eadir", "#recycle", "$recycle.bin", "lost+found"})


@dataclass(frozen=True)
class FolderListing:
    """The files and folders below a folder, without hidden ones and what systems leave behind."""

    root: Path
    files: tuple[str, ...]
    folders: tuple[str, ...]  # without the root itself

    @cached_property
    def by_suffix(self) -> Mapping[str, Sequence[str]]:
        """The files by their suffixes in lower case, e.g. ".xml"."""
        found: dict[str, list[str]] = {}
        for file in self.files:
            found.setdefault(PurePosixPath(file).suffix.lower(), []).append(file)
        return found

    @cached_property
    def images(self) -> Sequence[str]:
        """The files that are images, by their suffixes."""
        return [file for file in self.files if is_image_name(file)]

    def within(self, folder: str) -> Sequence[str]:
        """The files below one of the folders; all of them for ""."""
        return [file for file in self.files if file.startswith(f"{folder}/")] if folder else self.files


def list_folder(root: Path) -> FolderListing:
    """All that is below a folder; links are followed, but not into a folder that they lie in.

    Raises DatasetError: no such folder, one that cannot be read, or far too much in it.
    """
    files, folders = list[str](), list[str]()
    for path, is_folder in _walk(root, "", ()):
        (folders if is_folder else files).append(path)
        if len(files) + len(folders) > MAX_ENTRIES:
            raise DatasetError(f"{root} holds more than {MAX_ENTRIES} files and folders: name the folder of the data set")
    return FolderListing(root, tuple(files), tuple(folders))


def _walk(root: Path, folder: str, above: tuple[tuple[int, int], ...]) -> Iterator[tuple[str, bool]]:
    """The paths below a folder, and whether each is a folder. `above`: the folders that it lies in, as device and inode."""
    place = root / folder
    try:
        with os.scandir(place) as found:
            entries = sorted((entry for entry in found if not _is_litter(entry.name)), key=lambda entry: entry.name)
        status = place.stat()
    except OSError as error:
        raise DatasetError(f"cannot list the folder {printable(str(place))}: {error.strerror}") from None
    identity = status.st_dev, status.st_ino
    if identity in above or len(above) >= MAX_DEPTH:
        return
    for entry in entries:
        path = f"{folder}/{entry.name}" if folder else entry.name
        if _is_kind(entry.is_dir):
            yield path, True
            yield from _walk(root, path, (*above, identity))
        elif _is_kind(entry.is_file):  # no pipe, and no link to nothing
            yield path, False


def _is_kind(ask: Callable[[], bool]) -> bool:
    try:
        return ask()
    except OSError:  # a link that leads to itself
        return False


def _is_litter(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LITTER
