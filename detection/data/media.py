"""Images, folders, globs, videos and cameras as inputs of a detector, and file names for what is drawn of them."""

from __future__ import annotations

import glob
import itertools
import logging
import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from backbones.errors import printable, shorten
from detection.errors import DatasetError
from detection.files import fold_name

logger = logging.getLogger(__name__)

MOST_PAGES = 1000
"""Of a TIFF that are drawn."""

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv"})

_CAMERA = re.compile(r"camera(?::(\d+))?")
_NAME_BYTES = 200  # of the name of a drawing, without its suffix; file systems take 255


@dataclass(frozen=True)
class MediaInput:
    """One image, video or camera. `path` is the file; a camera has its number instead.

    What `find_inputs` calls an image may be more: `look_into` tells an "animation" and the "pages" of a TIFF from one picture.
    "frames" are the images of a folder as a film.
    """

    kind: Literal["image", "animation", "pages", "frames", "video", "camera"]
    path: Path
    camera: int = 0

    @property
    def is_film(self) -> bool:
        """Whether it is drawn as a video."""
        return self.kind not in ("image", "pages")

    def __str__(self) -> str:
        return f"camera:{self.camera}" if self.kind == "camera" else str(self.path)

    @property
    def stem(self) -> str:
        """A name for files about it."""
        if self.kind == "frames":
            return self.path.resolve().name or "frames"
        return f"camera{self.camera}" if self.kind == "camera" else self.path.stem


def find_all_inputs(
    texts: Sequence[str], find: Callable[[str], list[MediaInput]] | None = None
) -> tuple[list[MediaInput], list[str]]:
    """`find_inputs` of each text, or `find`, every input once, and a sentence for each text that stands for nothing."""
    find = find or find_inputs
    inputs: dict[MediaInput, None] = {}
    problems = []
    for text in texts:
        try:
            inputs |= dict.fromkeys(find(text))
        except DatasetError as error:
            problems.append(str(error))
        except OSError as error:  # a name too long, or a folder that may not be read
            problems.append(f"cannot read '{text}': {error.strerror}")
    return list(inputs), problems


def find_inputs(text: str) -> list[MediaInput]:
    """What a command-line argument stands for, in the order of the names: at least one. Raises DatasetError.

    `camera` or `camera:1`, a file, a folder (the images and videos in it, not those in its sub-folders), or a glob.
    """
    if not text.strip():
        raise DatasetError(f"an input must be a file, folder or camera, got {shorten(text)}")
    if match := _CAMERA.fullmatch(text):
        return [MediaInput("camera", Path(text), int(match[1] or 0))]
    path = Path(text)
    if path.is_dir():
        sub_folders = f"for its sub-folders, give '{path}/**/*.jpg'"
        return _require_any(path.iterdir(), f"folder {text} holds no images or videos; {sub_folders}")
    if path.exists():
        return [_input_of(path)]
    if glob.has_magic(text):
        return _require_any(_matches(path), f"no image or video matches '{text}'")
    raise DatasetError(f"there is no file, folder or camera '{text}'")


def _matches(pattern: Path) -> Iterator[Path]:
    try:
        # Only relative patterns can be globbed; the anchor of those is the empty path.
        yield from Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor)))
    except ValueError as error:
        raise DatasetError(f"'{pattern}' is no glob: {error}") from None


def _require_any(paths: Iterator[Path], problem: str) -> list[MediaInput]:
    """The images and videos among the paths, by their suffixes. Raises DatasetError(problem) if there is none."""
    from detection.data.images import IMAGE_SUFFIXES, UNREAD_SUFFIXES

    suffixes = IMAGE_SUFFIXES | VIDEO_SUFFIXES
    # macOS writes files like '._photo.jpg' that are no images.
    visible = [path for path in paths if not path.name.startswith(".")]
    # What only has the name of an image, such as a pipe, is reported when its turn comes.
    kept = [path for path in visible if path.suffix.lower() in suffixes and not path.is_dir()]
    unread = sorted(str(path) for path in visible if path.suffix.lower() in UNREAD_SUFFIXES)
    left_out = f"{len(unread)} files are left out, images of kinds that are not read" if unread else ""
    if not kept:
        raise DatasetError(f"{problem}; {left_out}" if unread else problem)
    if unread:
        logger.warning("%s; convert them, e.g. to .jpg; the first: %s", left_out, printable(unread[0]))
    return [_input_of(path) for path in sorted(kept)]


def _input_of(path: Path) -> MediaInput:
    return MediaInput("video" if path.suffix.lower() in VIDEO_SUFFIXES else "image", path)


def find_films(text: str) -> list[MediaInput]:
    """The films that a text stands for: cameras, videos, animations, and a folder's images in the order of their names as the
    frames of one. Raises DatasetError, also for an image that is no film."""
    if Path(text).is_dir():
        found = find_inputs(text)
        return [each for each in found if each.kind == "video"] or [MediaInput("frames", Path(text))]
    films = [look_into(each) for each in find_inputs(text)]
    single = next((each for each in films if not each.is_film), None)
    if single is not None:
        raise DatasetError(f"{single} is no film: give a video, a camera, an animation, or the folder of its frames")
    return films


def look_into(source: MediaInput) -> MediaInput:
    """The same input, told apart by its file's header: an image may be an animation or several pages."""
    from detection.data.images import frame_kind

    return replace(source, kind=frame_kind(source.path)) if source.kind == "image" else source


def drawing_paths(inputs: Sequence[MediaInput], folder: Path) -> list[Path]:
    """A different file of `folder` for the drawing of each input, never one of the inputs themselves.

    The input's stem; if it is taken, its folder's name and its stem; then its stem and a number. Beside a video's .mp4 the
    .jsonl of that name is free too. Names are valid and of a length that every file system takes.
    """
    taken = {_comparable(each.path) for each in inputs if each.kind != "camera"}
    drawings = []
    for each in inputs:
        for name in _possible_names(each):
            drawing = folder / f"{name}{'.mp4' if each.is_film else '.jpg'}"
            written = {_comparable(file) for file in _files_of(each, drawing)}
            if not written & taken:
                break
        taken |= written
        drawings.append(drawing)
    return drawings


def page_path(drawing: Path, number: int) -> Path:
    """Where a page of the pages whose drawing is to be NAME.jpg is drawn, the first being 1: NAME_page1.jpg."""
    return drawing.with_name(f"{drawing.stem}_page{number}{drawing.suffix}")


def _files_of(source: MediaInput, drawing: Path) -> list[Path]:
    """All that may be written for an input."""
    if source.kind == "pages":
        return [page_path(drawing, number) for number in range(1, MOST_PAGES + 1)]
    return [drawing, drawing.with_suffix(".jsonl")] if source.is_film else [drawing]


def _possible_names(source: MediaInput) -> Iterator[str]:
    stem = _file_name(source.stem, _NAME_BYTES)
    yield stem
    if parent := source.path.absolute().parent.name:
        yield _file_name(f"{parent}_{source.stem}", _NAME_BYTES)
    stem = _file_name(stem, _NAME_BYTES - 10)
    yield from (f"{stem}_{number}" for number in itertools.count(2))


def _file_name(name: str, max_bytes: int) -> str:
    """The name with "_" for control and half characters, cut to a number of bytes. Decoders cannot open names with them."""
    kept = "".join("_" if unicodedata.category(character) in ("Cc", "Cs") else character for character in name)
    return kept.encode()[:max_bytes].decode(errors="ignore")


def _comparable(path: Path) -> str:
    # Some file systems do not distinguish capitals from small letters, or the ways to write one accented letter.
    return fold_name(os.path.realpath(path))
