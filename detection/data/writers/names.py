"""Names for images that are written together: any file system and any format holds them, and no two share a stem.

Files of labels are called by the image's stem, so a.jpg and a.png cannot stand beside each other.
"""

from __future__ import annotations

import itertools
import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from detection.files import fold_name

_NAME_BYTES = 200  # of a name without its suffix; file systems take 255


def flat_names(files: Sequence[Path]) -> list[str]:
    """A name for each file, in order: its own; if that is taken, with as many of its folders before it as it takes."""
    taken: set[str] = set()
    return [_first_free(_flat_candidates(file), taken) for file in files]


def relative_names(files: Sequence[Path]) -> list[str]:
    """A name for each file, in order: its path from the folder that holds them all, with "/"; if it is taken, with a number."""
    if not files:
        return []
    base, taken = common_folder(files), set[str]()
    return [_first_free(_relative_candidates(_whole(file).relative_to(base)), taken) for file in files]


def common_folder(files: Sequence[Path]) -> Path:
    """The innermost folder that all files lie in, themselves or in folders of it, as an absolute path. At least one file.

    Where they lie on several drives of Windows it is the root of each one's own, which is none: raises ValueError.
    """
    return Path(os.path.commonpath([_whole(file).parent for file in files]))


def _whole(file: Path) -> Path:
    """The absolute path without "..", which would lead out of what is written."""
    return Path(os.path.abspath(file))  # noqa: PTH100


def _first_free(candidates: Iterator[PurePosixPath], taken: set[str]) -> str:
    for candidate in candidates:
        # Some file systems do not distinguish capitals from small letters, or the ways to write one accented letter.
        key = fold_name(str(candidate.with_suffix("")))
        if key not in taken:
            break
    taken.add(key)
    return str(candidate)


def _flat_candidates(file: Path) -> Iterator[PurePosixPath]:
    yield _image_path(PurePosixPath(), file.stem, file.suffix)
    folders = _whole(file).parent.parts[1:]
    for depth in range(1, len(folders) + 1):
        yield _image_path(PurePosixPath(), "_".join((*folders[-depth:], file.stem)), file.suffix)
    yield from _numbered(PurePosixPath(), file)


def _relative_candidates(path: Path) -> Iterator[PurePosixPath]:
    folder = PurePosixPath(*(_safe(part, _NAME_BYTES) for part in path.parts[:-1]))
    yield _image_path(folder, path.stem, path.suffix)
    yield from _numbered(folder, path)


def _numbered(folder: PurePosixPath, file: Path) -> Iterator[PurePosixPath]:
    stem = _safe(file.stem, _NAME_BYTES - 10)
    yield from (_image_path(folder, f"{stem}_{number}", file.suffix) for number in itertools.count(2))


def _image_path(folder: PurePosixPath, stem: str, suffix: str) -> PurePosixPath:
    return folder / ((_safe(stem, _NAME_BYTES) or "_") + _safe(suffix, 20, hidden=True))


def _safe(name: str, max_bytes: int, *, hidden: bool = False) -> str:
    r"""The name as any list of names and any system reads it: "_" for control and half characters, for "\\" and the "." of
    a hidden file, no blanks around it."""
    kept = "".join("_" if unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp") or each == "\\" else each for each in name)
    kept = kept.encode()[:max_bytes].decode(errors="ignore").strip()
    return kept if hidden or not kept.startswith(".") else f"_{kept[1:]}"
