"""labelImg, and other programs that write Pascal VOC's XML for each image without VOC's lists; its CreateML JSON too.

The XML lie beside the images or in a folder of their own, with a folder for each split or without. Boxes count as VOC's do. In
CreateML's JSON a box is the centre, width and height in pixels from 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from backbones.errors import printable, shorten
from detection.config import FolderSource
from detection.data.faults import Faults
from detection.data.formats.contents import json_kind, read_ends
from detection.data.formats.image_labels import ImagesOfLabels, label_files_of, some_are, sources_of_splits
from detection.data.formats.listing import FolderListing
from detection.data.formats.named_images import (
    NamedImage,
    find_images,
    image_folder,
    inform_of_unnamed,
    path_below,
    read_class_name,
)
from detection.data.formats.shapes import sized_box
from detection.data.labelled import LabelledImage, LabelledObject
from detection.data.voc_xml import read_box, read_difficult, read_name, read_size, read_xml
from detection.errors import DatasetError
from detection.files import read_json


def read_labelimg(source: FolderSource, root: Path, faults: Faults) -> list[LabelledImage]:
    """The images of a folder that have an XML file, or are in CreateML's JSON. Raises DatasetError."""
    images, others, found = ImagesOfLabels(source, root), list[Path](), list[LabelledImage]()
    files = label_files_of(source, root, ".xml")
    for file in files:
        with faults.guard():
            image = _read_image(file, root, images, faults)
            if image is None:
                others.append(file)
            else:
                found.append(image)
    if others:
        faults.inform(f"{root}: {len(others)} XML files are no annotations of an image, e.g. {printable(str(others[0]))}")
    jsons = [file for file in label_files_of(source, root, ".json") if is_createml(file)]
    if len(files) == len(others) and not jsons:
        raise images.none_found("XML files of annotations (labelImg, Pascal VOC), nor CreateML's JSON")
    if len(files) > len(others):
        images.inform(faults)
    return found + _read_createml(jsons, source, root, faults)


def find(listing: FolderListing) -> list[FolderSource]:
    """The sources of a folder with labelImg's XML files or CreateML's JSON, one for each split; none where there are none.

    XML files that VOC's lists of splits belong to are VOC's.
    """
    with_lists = {PurePosixPath(file).parents[2] for file in listing.by_suffix.get(".txt", ()) if _is_list(file)}
    xmls = [file for file in listing.by_suffix.get(".xml", ()) if not with_lists.intersection(PurePosixPath(file).parents)]
    xmls = xmls if some_are(listing, xmls, is_annotation) else []
    jsons = listing.by_suffix.get(".json", ())
    jsons = jsons if some_are(listing, jsons, is_createml) else []
    return sources_of_splits(listing, [*xmls, *jsons], "labelimg") if xmls or jsons else []


def title(listing: FolderListing) -> str:
    """What the labels of such a folder are called."""
    return "XML files of labelImg" if listing.by_suffix.get(".xml") else "CreateML's JSON"


def _is_list(file: str) -> bool:
    return PurePosixPath(file).parent.parts[-2:] == ("ImageSets", "Main")


def is_annotation(file: Path) -> bool:
    """Whether an XML file, by its beginning, is the annotation of one image."""
    return re.search(r"<annotation[\s>]", read_ends(file)[:4096]) is not None


def is_createml(file: Path) -> bool:
    """Whether a JSON file, by its ends, is CreateML's."""
    return json_kind(read_ends(file)) == "createml"


def _read_image(file: Path, root: Path, images: ImagesOfLabels, faults: Faults) -> LabelledImage | None:
    """The image of an XML file, or None where that is another kind of document."""
    tree = read_xml(file)
    if tree.tag != "annotation":
        return None
    names = [text for tag in ("filename", "path") if (text := (tree.findtext(tag) or "").strip())]
    image = images.find(names, file)
    size_hw = read_size(tree, file, faults)
    faults.image, objects = image, []
    for number, element in enumerate(tree.findall("object"), start=1):
        where = f"{file}, object {number}"
        with faults.guard():
            name = read_name(element, where, faults)
            where = f"{where} ({shorten(name)})"
            box = None if name is None else read_box(element, where, faults)
            if name is not None and box is not None:
                objects.append(LabelledObject(name, box, where, read_difficult(element, where, faults)))
    return LabelledImage(path_below(image, root), image, str(file), size_hw, objects)


def _read_createml(files: list[Path], source: FolderSource, root: Path, faults: Faults) -> list[LabelledImage]:
    named = [image for file in files for image in _createml_images(file, faults)]
    found = find_images(named, root, [image_folder(source, root)], faults) if named else []
    if found:
        inform_of_unnamed(found, source, root, faults)
    return found


def _createml_images(file: Path, faults: Faults) -> Iterator[NamedImage]:
    """The images that one of CreateML's files lists."""
    entries = read_json(file)
    for number, entry in enumerate(entries if isinstance(entries, list) else [entries]):
        with faults.guard():
            name = entry.get("image") if isinstance(entry, dict) else None
            annotations = entry.get("annotations") if isinstance(entry, dict) else None
            if not isinstance(name, str) or not isinstance(annotations, list):
                raise DatasetError(
                    f"{file}: [{number}] must have an 'image' and a list of 'annotations', found {shorten(entry)}"
                )
            places = [f"{file}, {shorten(name)}, annotation {place}" for place in range(1, len(annotations) + 1)]
            objects = [_createml_object(each, where, faults) for each, where in zip(annotations, places, strict=True)]
            yield NamedImage(name, file, [each for each in objects if each is not None])


def _createml_object(annotation: Any, where: str, faults: Faults) -> LabelledObject | None:
    """The object, or None where it was dropped, which is noted in `faults`."""
    entry = annotation if isinstance(annotation, dict) else {}
    name = read_class_name(entry.get("label"), where, faults)
    place = entry.get("coordinates")
    values = [place.get(key) for key in ("x", "y", "width", "height")] if isinstance(place, dict) else []
    box = sized_box(values) if values else None
    if box is None:
        faults.note(f"{where}: coordinates {shorten(place)}", "object without the four numbers of a box", "dropped")
    if name is None or box is None:
        return None
    half_width, half_height = (box[2] - box[0]) / 2, (box[3] - box[1]) / 2
    return LabelledObject(name, (box[0] - half_width, box[1] - half_height, box[2] - half_width, box[3] - half_height), where)
