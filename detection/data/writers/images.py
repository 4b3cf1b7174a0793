"""Images beside their labels: the files themselves, byte for byte."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Literal

from backbones.errors import printable
from detection.errors import DatasetError
from detection.files import exists

ImagePlacing = Literal["copy", "link", "none"]
"""link: a second name of the same file, which takes no room, or a copy where the file system has no such links."""


def place_image(file: Path, target: Path, placing: ImagePlacing) -> None:
    """Put an image where its labels expect it; the folder is made. One that is there already, of the same size, stays.

    Raises OSError, nothing half-written; DatasetError where something else has the name.
    """
    if placing == "none":
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if exists(target):
        if target.stat().st_size != file.stat().st_size:
            raise DatasetError(f"{printable(str(target))} is another file than {printable(str(file))}, and is not replaced")
        return
    if placing == "link" and _is_linked(file, target):
        return
    try:
        shutil.copyfile(file, target)
    except BaseException as error:
        with suppress(OSError):
            target.unlink()
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(target)) from None
        raise


def _is_linked(file: Path, target: Path) -> bool:
    """Whether the file system took a hard link; of a symbolic link it is one to what that leads to."""
    try:
        os.link(os.path.realpath(file), target)  # noqa: PTH200
    except OSError:
        return False
    return True
