"""Archives of images (.tar, also compressed): read from the beginning to the end, bounded, nothing unpacked.

What a header promises is measured before anything of it is read: some kilobytes can promise terabytes, and even hold them.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import posixpath
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, BinaryIO, Literal, NamedTuple, cast

from backbones.errors import printable, shorten
from backbones.files import open_regular
from detection.errors import DatasetError

MEMORY_LIMIT = 1 << 30  # bytes of images that may be kept in memory, encoded or decoded
UNPACKED_LIMIT = 4 * MEMORY_LIMIT  # bytes of a compressed archive, unpacked: all of them are decompressed to find the images
MAX_MEMBERS = 1 << 21
_MAX_HEADER = 1 << 20  # bytes of one header: a long name and the like
_MAX_PADDING = 1 << 26  # bytes after the end of an archive
_MAX_LINKS = 40  # one after another, as Linux allows

Parts = tuple[str, ...]
"""The path of a member without "." and the leading "/"."""

_DAMAGED = (tarfile.TarError, lzma.LZMAError, zlib.error, struct.error, EOFError, OSError, ValueError, ArithmeticError)


class _Member(NamedTuple):
    parts: Parts
    kind: Literal["folder", "file", "link", "other"]
    data: bytes | None = None  # of a file that is wanted
    target: Parts | None = None  # of a link; None where it leads out of the archive


@dataclass
class Archive:
    """What an archive holds."""

    images: dict[Parts, bytes] = field(default_factory=dict)  # the files that are wanted, encoded
    folders: set[Parts] = field(default_factory=set)
    others: list[Parts] = field(default_factory=list)  # the other files
    lost: list[Parts] = field(default_factory=list)  # links that lead to no file that is wanted, pipes and the like


def read_archive(root: Path, is_wanted: Callable[[Parts], bool]) -> Archive:
    """The files that are wanted, by their paths. Links to files are followed; of two files of one name the last counts.

    Raises DatasetError: no readable archive, cut short, damaged, or larger than one of the bounds of this module.
    """
    archive, links = Archive(), dict[Parts, Parts | None]()
    for member in _members(root, is_wanted):
        if member.kind == "folder":
            archive.folders.add(member.parts)
        elif member.data is not None:
            archive.images[member.parts] = member.data
            links.pop(member.parts, None)
        elif member.kind == "link":
            links[member.parts] = member.target
        else:
            (archive.others if member.kind == "file" else archive.lost).append(member.parts)
    _follow(root, archive, links, is_wanted)
    return archive


def _follow(root: Path, archive: Archive, links: dict[Parts, Parts | None], is_wanted: Callable[[Parts], bool]) -> None:
    """Add what the wanted links lead to. What lies outside of the wanted files is looked for in a second reading."""
    ends = {parts: _end_of(parts, links) if is_wanted(parts) else None for parts in links}
    outside = {end for end in ends.values() if end is not None and end not in archive.images}
    found = dict(archive.images)
    if outside:
        found |= {each.parts: each.data for each in _members(root, outside.__contains__) if each.data is not None}
    for parts, end in ends.items():
        if end is not None and end in found:
            archive.images[parts] = found[end]
        else:
            archive.lost.append(parts)


def _end_of(parts: Parts, links: dict[Parts, Parts | None]) -> Parts | None:
    """Where a chain of links ends; None where it leads out of the archive or in a circle."""
    end: Parts | None = parts
    for _ in range(_MAX_LINKS):
        if end is None or end not in links:
            return end
        end = links[end]
    return None


def _members(root: Path, is_wanted: Callable[[Parts], bool]) -> Iterator[_Member]:
    try:
        with open_regular(root) as file:
            stream = _BoundedStream(root, file)
            with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r:") as archive:
                yield from _read_members(root, archive, stream, is_wanted)
                _check_end(root, archive.offset, stream)
    except DatasetError:
        raise
    except (MemoryError, RecursionError):
        raise DatasetError(f"{root} is not a readable .tar archive of class folders: its headers have no end") from None
    except _DAMAGED as error:
        # The member of OSError that says it best; tarfile lists what it tried on lines of their own.
        reason = str(getattr(error, "strerror", None) or error).partition("\n")[0].rstrip(":") or "it is cut short"
        raise DatasetError(f"{root} is not a readable .tar archive of class folders: {printable(reason)}") from None


def _read_members(
    root: Path, archive: tarfile.TarFile, stream: _BoundedStream, is_wanted: Callable[[Parts], bool]
) -> Iterator[_Member]:
    num_members, num_bytes, end = 0, 0, -1
    while (member := archive.next()) is not None:
        archive.members = []  # type: ignore[attr-defined]  # tarfile keeps all of them, a kilobyte each
        num_members += 1
        if num_members > MAX_MEMBERS:
            raise DatasetError(f"{root} has more than {MAX_MEMBERS} members: unpack it, and name the folder")
        if member.size < 0 or archive.offset <= end:
            raise DatasetError(f"{root} is damaged: the size of {shorten(member.name)} is negative")
        end = archive.offset
        stream.check(end)
        parts = _parts(member.name)
        if parts is None:
            continue
        if not member.isreg() or member.issparse() or not is_wanted(parts):
            yield _Member(parts, _kind(member), target=_target(member))
            continue
        num_bytes += member.size
        if num_bytes > MEMORY_LIMIT:
            raise DatasetError(f"{root} holds more than {MEMORY_LIMIT >> 20} MiB of images: unpack it, and name the folder")
        stream.seek(member.offset_data)
        yield _Member(parts, "file", data=stream.read_whole(member.size))


def _kind(member: tarfile.TarInfo) -> Literal["folder", "file", "link", "other"]:
    if member.isdir():
        return "folder"
    if member.islnk() or member.issym():
        return "link"
    return "file" if member.isreg() and not member.issparse() else "other"


def _target(member: tarfile.TarInfo) -> Parts | None:
    """What a link leads to: a hard link's target is counted from the archive's root, a symbolic one's from its own folder."""
    if member.issym():
        return _parts(posixpath.join(posixpath.dirname(member.name), member.linkname))
    return _parts(member.linkname) if member.islnk() else None


def _parts(name: str) -> Parts | None:
    """None for a name that leads out of the archive."""
    path = posixpath.normpath(name.lstrip("/"))
    return None if path.split("/")[0] == ".." else tuple(part for part in path.split("/") if part != ".")


def _check_end(root: Path, offset: int, stream: _BoundedStream) -> None:
    """tarfile takes a damaged header for the end; a whole archive ends with a block of zeros."""
    stream.seek(offset)
    if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise DatasetError(f"{root} is cut short or damaged after {offset} bytes")
    # The checksum of a compressed archive comes last.
    while stream.read(_MAX_HEADER):
        if stream.tell() - offset > _MAX_PADDING:
            raise DatasetError(f"{root} goes on for more than {_MAX_PADDING >> 20} MiB after its last member: it is damaged")


class _BoundedStream:
    """The content of an archive, decompressed where it is compressed. Only as much is read as a bound allows."""

    def __init__(self, root: Path, file: BinaryIO) -> None:
        self._root = root
        beginning = file.read(6)
        file.seek(0)
        self._stream = _decompressed(file, beginning)
        self._compressed = self._stream is not file

    def check(self, position: int) -> None:
        """Raise DatasetError where everything up to this position is more than may be decompressed."""
        if self._compressed and position > UNPACKED_LIMIT:
            raise DatasetError(
                f"{self._root} holds more than {UNPACKED_LIMIT >> 20} MiB when decompressed: unpack it, and name the folder"
            )

    def tell(self) -> int:
        return self._stream.tell()

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        self.check(position)
        return self._stream.seek(position, whence)

    def read(self, size: int = -1) -> bytes:
        """A piece of a header. Raises DatasetError where the archive promises a larger one than any is."""
        if not 0 <= size <= _MAX_HEADER:
            raise DatasetError(f"{self._root} is damaged: one of its headers is said to have {size} bytes")
        return self._stream.read(size)

    def read_whole(self, size: int) -> bytes:
        """The content of a member. Raises EOFError where it is cut short."""
        data = self._stream.read(size)
        if len(data) < size:
            raise EOFError("it is cut short")
        return data


def _decompressed(file: BinaryIO, beginning: bytes) -> BinaryIO:
    """The file's content, by its first bytes; the file itself where it is not compressed."""
    if beginning.startswith(b"\x1f\x8b"):
        return cast("BinaryIO", gzip.GzipFile(fileobj=file))
    if beginning.startswith(b"BZh"):
        return cast("BinaryIO", bz2.BZ2File(file))
    if beginning.startswith((b"\xfd7zXZ", b"\x5d\x00\x00")):
        return cast("BinaryIO", lzma.LZMAFile(file))
    return file
