"""What `predict` returns for an image: detections with the names of their classes, the image's size, and where it came from."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from backbones.errors import printable
from detection.errors import ConfigError, DatasetError
from detection.evaluation.detection_files import coco_results
from detection.inference.images import ImageInput, Source, read_input
from detection.rows import yolo_row
from detection.structures import Detections, ImageId
from detection.terminal import table_lines
from detection.visualize import draw_boxes, draw_masks, save_image

if TYPE_CHECKING:
    import supervision

_MOST_ROWS = 20  # of a table
_HEADINGS = ("class", "score", "x1", "y1", "x2", "y2")


@dataclass(frozen=True, repr=False)
class ImageDetections(Detections):
    """The objects found in one image, best first; `print` shows them as a table.

    A selection, `detections[detections.scores > 0.9]`, and `to` keep what is known of the image.
    """

    class_names: tuple[str, ...]  # what the labels mean
    size_hw: tuple[int, int]  # of the image, in pixels
    source: Source = None  # the image's path or web address; None for pixels

    @property
    def names(self) -> list[str]:
        """The D class names."""
        return [self.class_names[label] for label in self.labels.tolist()]

    def plot(self, image: ImageInput | None = None) -> np.ndarray:
        """The picture with the detections drawn into it, (H, W, 3) uint8 RGB.

        `image` is what was given to `predict`; without it, the source is read again. Raises DatasetError where that cannot be
        done, or the picture is of another size.
        """
        if image is None and self.source is None:
            raise DatasetError("these detections are of pixels: give these, plot(image), to have them drawn")
        pixels = read_input(self.source if image is None else image).pixels  # type: ignore[arg-type]
        if pixels.shape[:2] != self.size_hw:
            (height, width), (own_height, own_width) = pixels.shape[:2], self.size_hw
            raise DatasetError(f"the picture has {width} x {height} pixels, the detections are of {own_width} x {own_height}")
        on_cpu = self.to("cpu")
        if on_cpu.masks is not None:
            pixels = draw_masks(pixels, on_cpu.masks, on_cpu.labels)
        return draw_boxes(pixels, on_cpu.boxes, on_cpu.labels, self.class_names, on_cpu.scores)

    def save(self, path: str | Path, image: ImageInput | None = None) -> None:
        """Write what `plot` draws, in the format of the suffix; the folder is made. Raises DatasetError, OSError."""
        save_image(path, self.plot(image))

    def to_coco(self, image_id: ImageId, category_ids: Mapping[str, int | str] | None = None) -> list[dict[str, Any]]:
        """The entries of a COCO result file, with `segmentation` where there are masks.

        `category_ids`: class name -> category id; the labels if None.

        Raises DatasetError for a class without a category.
        """
        ids = {name: label for label, name in enumerate(self.class_names)} if category_ids is None else category_ids
        return coco_results({image_id: self}, self.class_names, ids)

    def to_yolo(self, *, scores: bool = False) -> list[str]:
        """The lines of a YOLO label file: "label cx cy width height", fractions of the image's size, and the score if asked."""
        rows = self._rows()
        return [yolo_row(label, box, self.size_hw, score if scores else None) for label, score, box in rows]

    def to_supervision(self) -> supervision.Detections:
        """The same as `supervision.Detections`, with `data["class_name"]`; with `mask`, bitmaps (D, H, W), if there are masks.

        Raises ConfigError where that is not installed."""
        try:
            import supervision
        except ImportError:
            raise ConfigError("to_supervision needs the package supervision: pip install 'resdet[supervision]'") from None
        boxes, scores, labels = (_array(tensor) for tensor in (self.boxes, self.scores, self.labels))
        names = np.array(self.names, dtype=np.str_)
        mask = None if self.masks is None else self.masks.decode().numpy()
        return supervision.Detections(
            boxes, mask=mask, confidence=scores, class_id=labels.astype(int), data={"class_name": names}
        )

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {printable(name)}" for name, count in Counter(self.names).most_common(5))
        return f"<{len(self)} detections in {self._image()}{': ' if counts else ''}{counts}>"

    def __str__(self) -> str:
        lines = table_lines([_HEADINGS, *(_cells(*row) for row in self._shown())]) if len(self) else []
        return "\n".join([f"{self._image()}: {len(self)} detections", *lines, *self._hidden()])

    def _repr_html_(self) -> str:
        """The table of a notebook."""
        heading = "".join(f"<th>{cell}</th>" for cell in _HEADINGS)
        rows = ["".join(f"<td>{html.escape(cell)}</td>" for cell in _cells(*row)) for row in self._shown()]
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        caption = html.escape("; ".join([f"{self._image()}: {len(self)} detections", *self._hidden()]))
        return f"<table><caption>{caption}</caption><thead><tr>{heading}</tr></thead><tbody>{body}</tbody></table>"

    def _rows(self) -> Iterator[tuple[int, float, list[float]]]:
        return zip(self.labels.tolist(), self.scores.tolist(), self.boxes.tolist(), strict=True)

    def _shown(self) -> list[tuple[str, float, list[float]]]:
        """Name, score and box of the first rows."""
        return [(self.class_names[label], score, box) for label, score, box in self[:_MOST_ROWS]._rows()]

    def _hidden(self) -> list[str]:
        return [f"... and {len(self) - _MOST_ROWS} more"] if len(self) > _MOST_ROWS else []

    def _image(self) -> str:
        name = "an image" if self.source is None else printable(str(self.source))
        return f"{name} ({self.size_hw[1]} x {self.size_hw[0]} pixels)"


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().numpy()


def _cells(name: str, score: float, box: list[float]) -> tuple[str, ...]:
    return (printable(name), f"{score:.3f}", *(f"{edge:.1f}" for edge in box))
