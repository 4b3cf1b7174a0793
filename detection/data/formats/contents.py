"""What a label file is, told by its first and last bytes: a file may have gigabytes, and most are none of ours."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from detection.errors import DatasetError
from detection.files import open_regular

JsonKind = Literal["coco", "labelstudio", "vott", "via", "labelme", "createml"]

HEAD_BYTES, TAIL_BYTES = 1 << 18, 1 << 16
"""What is looked at of a file. The keys that tell a format stand in its first entry, or behind its last."""

_BOMS = ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))


def read_ends(path: Path, head: int = HEAD_BYTES, tail: int = TAIL_BYTES) -> str:
    """The beginning and the end of a text file, what is no text in it replaced. Raises DatasetError if it cannot be read."""
    try:
        with open_regular(path) as file:
            content = file.read(head)
            size = os.fstat(file.fileno()).st_size
            if size > head:
                file.seek(max(head, size - tail))
                content += b"\n" + file.read(tail)
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}") from None
    encoding = next((encoding for bom, encoding in _BOMS if content.startswith(bom)), "utf-8")
    return content.decode(encoding, "replace").lstrip("\ufeff")


def json_kind(text: str) -> JsonKind | None:
    """Which labels a JSON file holds, by its ends; None for none that are known."""
    start = text.lstrip()[:1]
    if start == "[":
        return _kind_of_list(text)
    return _kind_of_object(text) if start == "{" else None


def _kind_of_list(text: str) -> JsonKind | None:
    if _has_keys(text, "data") and (_has_keys(text, "annotations") or _has_keys(text, "completions")):
        return "labelstudio"
    if re.search(r'"\w*labels"\s*:\s*\[', text) and _has_keys(text, "original_width"):
        return "labelstudio"
    return "createml" if _has_keys(text, "annotations", "coordinates") else None


def _kind_of_object(text: str) -> JsonKind | None:
    if _has_keys(text, "_via_img_metadata") or _has_keys(text, "regions", "file_attributes"):
        return "via"
    if _has_keys(text, "asset", "regions") or (_has_keys(text, "assets") and _has_keys(text, "videoSettings")):
        return "vott"
    if _has_keys(text, "shapes") and any(_has_keys(text, key) for key in ("imagePath", "imageHeight", "imageData")):
        return "labelme"
    if _has_keys(text, "annotations", "result", "data"):
        return "labelstudio"
    lists = [key for key in ("images", "annotations", "categories") if re.search(rf'"{key}"\s*:\s*\[', text)]
    return "coco" if len(lists) >= 2 else None


def _has_keys(text: str, *keys: str) -> bool:
    return all(re.search(rf'"{key}"\s*:', text) for key in keys)


def is_cvat(text: str) -> bool:
    """Whether the beginning of an XML file is that of CVAT's annotations."""
    return re.search(r"<annotations[\s>]", text[:4096]) is not None


def cvat_subsets(text: str) -> Sequence[str]:
    """The names of the subsets that the beginning of CVAT's annotations lists, in its order."""
    listed = [line.strip() for each in re.findall(r"<subsets?>([^<]*)</subsets?>", text) for line in each.split("\n")]
    return list(dict.fromkeys(name for name in listed if name))
