"""Pascal VOC's XML files, one for each image, and the list of a split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from backbones.errors import printable
from detection.data.records import Box
from detection.data.writers.labels import ImageLabels
from detection.errors import DatasetError
from detection.files import exists, read_text, write_whole
from detection.rows import voc_box


def voc_xml(image: ImageLabels, class_names: Sequence[str], *, image_path: bool = False) -> str:
    """The annotation of an image; crowd regions are difficult objects, boxes that do not fit (`fits_voc`) are left out.

    With `image_path` it tells where the image lies.
    """
    root = ElementTree.Element("annotation")
    height, width = image.size_hw
    place = {"folder": image.file.absolute().parent.name, "filename": image.file.name, "path": image.path} if image_path else {}
    _add(root, place or {"folder": "JPEGImages", "filename": image.name})
    _add(ElementTree.SubElement(root, "size"), {"width": width, "height": height, "depth": 3})
    for each in filter(lambda each: fits_voc(each.box), image.objects):
        tag = ElementTree.SubElement(root, "object")
        ignored = int(each.difficult or each.crowd)
        _add(tag, {"name": class_names[each.label], "pose": "Unspecified", "truncated": 0, "difficult": ignored})
        corners = dict(zip(("xmin", "ymin", "xmax", "ymax"), voc_box(each.box), strict=True))
        _add(ElementTree.SubElement(tag, "bndbox"), corners)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


class VocWriter:
    """FOLDER/Annotations/STEM.xml for each image, and FOLDER/ImageSets/Main/SPLIT.txt; `write` writes a text file.

    `image_paths`: the images stay where they are, and the annotations say where.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        class_names: Sequence[str],
        *,
        image_paths: bool = False,
        write: Callable[[Path, str], object] = write_whole,
    ) -> None:
        self._class_names, self._image_paths, self._write = class_names, image_paths, write
        self._annotations, self._list = folder / "Annotations", folder / "ImageSets" / "Main" / f"{split}.txt"
        for place in (self._annotations, self._list.parent):
            place.mkdir(parents=True, exist_ok=True)
        self._stems: list[str] = []

    def file_of(self, image_stem: str) -> Path:
        """The annotation of an image."""
        return self._annotations / f"{image_stem}.xml"

    def keep(self, image_stem: str) -> None:
        """List an image whose annotation is there already."""
        self._stems.append(image_stem)

    def add(self, image: ImageLabels) -> None:
        """Write the annotation of an image. Raises DatasetError where another split has written one that says otherwise."""
        file, text = self.file_of(image.stem), voc_xml(image, self._class_names, image_path=self._image_paths)
        if exists(file) and read_text(file) != text:
            raise DatasetError(
                f"{printable(str(image.file))} is in several splits with different objects, and VOC has one annotation of an "
                f"image: write coco or yolo"
            )
        self._write(file, text)
        self._stems.append(image.stem)

    def close(self) -> None:
        """Write the list of the images that were added or kept, in their order."""
        self._write(self._list, "".join(f"{stem}\n" for stem in self._stems))


def fits_voc(box: Box) -> bool:
    """Whether a box (xyxy) is wider and higher than one pixel: of another xmax is not above xmin, which counts as no box."""
    return min(box[2] - box[0], box[3] - box[1]) > 1


def _add(parent: ElementTree.Element, values: Mapping[str, object]) -> None:
    for name, value in values.items():
        ElementTree.SubElement(parent, name).text = str(value)
