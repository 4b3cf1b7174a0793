"""Labels of what a detector finds in unlabelled images, as labelling programs import them: to be corrected, not drawn anew.

| format | labels | images, where they are copied or linked |
|---|---|---|
| coco | annotations.json, with scores | images/NAME |
| yolo | labels/STEM.txt, classes.txt | images/NAME |
| voc | Annotations/STEM.xml, ImageSets/Main/default.txt | JPEGImages/NAME |
| labelstudio | tasks.json, with scores, and config.xml | images/NAME |
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from backbones.errors import printable
from detection.data.media import MediaInput
from detection.data.writers.coco import CocoWriter
from detection.data.writers.images import ImagePlacing, place_image
from detection.data.writers.labels import LabelWriter, labels_of_detections
from detection.data.writers.labelstudio import LabelStudioWriter, labelling_config
from detection.data.writers.names import common_folder, flat_names, relative_names
from detection.data.writers.voc import VocWriter
from detection.data.writers.yolo import YoloWriter
from detection.errors import DatasetError
from detection.files import exists, read_text, write_whole
from detection.inference.predictor import Predictor, ReportError
from detection.inference.results import ImageDetections
from detection.inference.stream import predict_files

LabelFormat = Literal["coco", "yolo", "voc", "labelstudio"]

VOC_SPLIT = "default"
"""The list of all images in ImageSets/Main, as CVAT calls it."""
_ONE_FILE = {"coco": "annotations.json", "labelstudio": "tasks.json"}


@dataclass(frozen=True)
class Prelabels:
    """What was written."""

    folder: Path
    num_images: int
    num_kept: int  # images that had labels, which are left as they were
    num_objects: Counter[str]  # by class
    image_root: Path  # the images' names, and folders in them, are relative to it


def prelabel(
    model: Predictor,
    files: Sequence[Path],
    folder: Path,
    format: LabelFormat,
    *,
    images: ImagePlacing = "none",
    model_version: str = "resdet",
    on_labelled: Callable[[ImageDetections], object] | None = None,
    on_error: ReportError | None = None,
) -> Prelabels:
    """Write labels of what a model finds in image files (at least one) into a folder, which is made.

    Images keep their folders in their names, up to the one that holds them all; VOC has none, and joins the names. Where labels
    are a file for each image, an image that has one is passed over, so that the same call goes on where another ended; where
    they are one file, it must be absent. It is written with what was done also if the call is interrupted. `on_labelled` is
    called after each image; where one cannot be used `on_error` is called and the others follow, without it DatasetError is
    raised. Raises OSError where something cannot be written.
    """
    files = list({os.path.abspath(file): file for file in files}.values())  # noqa: PTH100
    names = dict(zip(files, (flat_names if format == "voc" else relative_names)(files), strict=True))
    if format == "yolo" and images == "none":
        _require_own_stems(names)
    image_root = common_folder(files) if images == "none" else folder.absolute() / _image_folder(format)
    counts: Counter[str] = Counter()
    num_images = 0
    with closing(_open_writer(format, folder, model.class_names, images, image_root, model_version)) as writer:
        waiting = [file for file in files if not _is_labelled(writer, names[file])]
        for found in predict_files(model, [MediaInput("image", file) for file in waiting], on_error):
            file = Path(str(found.source))
            try:
                place_image(file, image_root / names[file], images)
                writer.add(labels_of_detections(found, file, names[file], found.size_hw))
            except DatasetError as error:
                if on_error is None:
                    raise
                on_error(error)
                continue
            num_images += 1
            counts.update(found.names)
            if on_labelled is not None:
                on_labelled(found)
    return Prelabels(folder, num_images, len(files) - len(waiting), counts, image_root)


def _image_folder(format: LabelFormat) -> str:
    return "JPEGImages" if format == "voc" else "images"


def _open_writer(
    format: LabelFormat,
    folder: Path,
    class_names: Sequence[str],
    images: ImagePlacing,
    image_root: Path,
    model_version: str,
) -> LabelWriter:
    """What takes the labels. Raises DatasetError where a file of the folder would be replaced."""
    if format == "yolo":
        _write_classes(folder, class_names)
        return YoloWriter(folder / "labels")
    if format == "voc":
        writer = VocWriter(folder, VOC_SPLIT, class_names, image_paths=images == "none")
        for stem in sorted(file.stem for file in (folder / "Annotations").glob("*.xml")):
            writer.keep(stem)
        return writer
    file = folder / _ONE_FILE[format]
    if exists(file):
        raise DatasetError(f"{printable(str(file))} exists, and labels are not replaced: name another folder, or remove it")
    if format == "coco":
        return CocoWriter(file, class_names)
    write_whole(folder / "config.xml", labelling_config(class_names))
    return LabelStudioWriter(file, class_names, image_root.name, model_version)


def _write_classes(folder: Path, class_names: Sequence[str]) -> None:
    """classes.txt, beside the labels too, where labelImg looks for it. Raises DatasetError where it lists other classes."""
    text = "".join(f"{name}\n" for name in class_names)
    for file in (folder / "classes.txt", folder / "labels" / "classes.txt"):
        if exists(file) and read_text(file) != text:
            raise DatasetError(f"{printable(str(file))} lists other classes than the model's: name another folder")
        write_whole(file, text)


def _is_labelled(writer: LabelWriter, name: str) -> bool:
    """Whether an image has a file of labels already."""
    stem = str(PurePosixPath(name).with_suffix(""))
    return isinstance(writer, VocWriter | YoloWriter) and exists(writer.file_of(stem))


def _require_own_stems(names: dict[Path, str]) -> None:
    """Raise DatasetError for an image whose labels would not be called as it is, and so would not be found."""
    for file, name in names.items():
        if PurePosixPath(name).stem != file.stem:
            raise DatasetError(
                f"the labels of {printable(str(file))} would be called {printable(PurePosixPath(name).stem)}, for labels are "
                f"called by their images: have the images copied or linked under such names (--images), or rename it"
            )
