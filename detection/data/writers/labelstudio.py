"""Label Studio's tasks with predictions, and the labelling configuration that they fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from detection.data.writers.coco import JsonList
from detection.data.writers.labels import ImageLabels
from detection.files import replacing

_IMAGE, _LABELS = "image", "label"  # names of the tags of the labelling configuration


class LabelStudioWriter:
    """A file of tasks in the making. Images are found among Label Studio's local files, below `folder` of its document root."""

    def __init__(self, file: Path, class_names: Sequence[str], folder: str, model_version: str) -> None:
        self.file, self._class_names, self._folder, self._model_version = file, class_names, folder, model_version
        self._tasks = JsonList(file.parent)

    def add(self, image: ImageLabels) -> None:
        """Add an image as a task with one prediction."""
        results = [self._result(image, index) for index in range(len(image.objects))]
        prediction: dict[str, Any] = {"model_version": self._model_version, "result": results}
        if image.scores:
            prediction["score"] = round(sum(image.scores) / len(image.scores), 4)
        place = quote(f"{self._folder}/{image.name}")
        self._tasks.append({"data": {_IMAGE: f"/data/local-files/?d={place}"}, "predictions": [prediction]})

    def _result(self, image: ImageLabels, index: int) -> dict[str, Any]:
        each, (height, width) = image.objects[index], image.size_hw
        x1, y1, x2, y2 = each.box
        percent = {"x": x1 / width, "y": y1 / height, "width": (x2 - x1) / width, "height": (y2 - y1) / height}
        result = {
            "id": str(index + 1),
            "from_name": _LABELS,
            "to_name": _IMAGE,
            "type": "rectanglelabels",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {
                **{key: round(100 * value, 5) for key, value in percent.items()},
                "rotation": 0,
                "rectanglelabels": [self._class_names[each.label]],
            },
        }
        return result if image.scores is None else result | {"score": image.scores[index]}

    def close(self) -> None:
        """Write the file with all that was added. Raises OSError."""
        try:
            with replacing(self.file) as file:
                self._tasks.copy_to(file)
                file.write(b"\n")
        finally:
            self._tasks.close()


def labelling_config(class_names: Sequence[str]) -> str:
    """The XML to paste into a project's labelling interface."""
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name=_IMAGE, value=f"${_IMAGE}")
    labels = ElementTree.SubElement(view, "RectangleLabels", name=_LABELS, toName=_IMAGE)
    for name in class_names:
        ElementTree.SubElement(labels, "Label", value=name)
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"
