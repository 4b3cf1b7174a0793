"""COCO's JSON, written image by image: what has been added lies on the disk until the file is put together."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from detection.data.writers.labels import ImageLabels
from detection.files import replacing
from detection.masks import Masks
from detection.rows import coco_box


class JsonList:
    """A list of JSON values that grows in a temporary file of a folder, which is made, however long it gets."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = TemporaryFile(dir=folder)  # noqa: SIM115
        self.length = 0

    def append(self, value: Any) -> None:
        """Add a value. Raises OSError where the disk is full."""
        text = ("," if self.length else "") + "\n" + json.dumps(value, ensure_ascii=False, allow_nan=False)
        self._file.write(text.encode())
        self.length += 1

    def copy_to(self, file: IO[bytes]) -> None:
        """Write the whole list, "[...]"."""
        file.write(b"[")
        self._file.seek(0)
        shutil.copyfileobj(self._file, file)
        file.write(b"\n]")

    def close(self) -> None:
        """Let go of the temporary file."""
        self._file.close()


def _segmentation(mask: bytes | None, size_hw: tuple[int, int]) -> Any:
    """Run lengths as COCO has them; the empty list, which other programs write too, where an object has no mask."""
    masks = Masks(size_hw, () if mask is None else (mask,))
    return masks.as_json()[0] if masks.areas.any() else []


class CocoWriter:
    """A COCO file in the making; categories have ids from 1 on, in the order of the classes.

    `image_paths` says whether images are called by their files' absolute paths instead of their names.
    """

    def __init__(self, file: Path, class_names: Sequence[str], *, image_paths: bool = False) -> None:
        self.file, self._image_paths = file, image_paths
        self._categories = [{"id": label, "name": name} for label, name in enumerate(class_names, start=1)]
        self._images, self._annotations = JsonList(file.parent), JsonList(file.parent)

    def add(self, image: ImageLabels) -> None:
        """Add an image and its objects."""
        image_id = self._images.length + 1 if image.image_id is None else image.image_id
        height, width = image.size_hw
        name = image.path if self._image_paths else image.name
        self._images.append({"id": image_id, "file_name": name, "width": width, "height": height})
        for index, each in enumerate(image.objects):
            x1, y1, x2, y2 = each.box
            area = (x2 - x1) * (y2 - y1) if each.area is None else each.area
            # Difficult objects are neither learnt nor counted, and a crowd region is what COCO has of that kind.
            entry: dict[str, Any] = {
                "id": self._annotations.length + 1,
                "image_id": image_id,
                "category_id": each.label + 1,
                "bbox": coco_box(each.box),
                "area": round(area, 3),
                "iscrowd": int(each.crowd or each.difficult),
                "segmentation": _segmentation(each.mask, image.size_hw),
            }
            self._annotations.append(entry if image.scores is None else entry | {"score": image.scores[index]})

    def close(self) -> None:
        """Write the file with all that was added. Raises OSError."""
        try:
            with replacing(self.file) as file:
                for key, values in (("images", self._images), ("annotations", self._annotations)):
                    file.write(f'{"{" if key == "images" else ","}"{key}": '.encode())
                    values.copy_to(file)
                file.write(f',"categories": {json.dumps(self._categories, ensure_ascii=False)}}}\n'.encode())
        finally:
            self._images.close()
            self._annotations.close()
