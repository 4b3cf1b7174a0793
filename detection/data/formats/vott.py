"""VoTT: the JSON file of an export, or a -asset.json for each image of a project, or its CSV. Boxes are in pixels from 0.

A region with several tags is an object for each of them, as in VoTT's own exports to other formats. Images that nobody has
opened are left out: they are not known to be without objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backbones.errors import shorten
from detection.config import FolderSource
from detection.data.faults import Faults
from detection.data.formats.contents import json_kind, read_ends
from detection.data.formats.named_images import (
    NamedImage,
    find_images,
    image_folder,
    inform_of_unnamed,
    label_files,
    read_class_name,
    read_size,
)
from detection.data.formats.shapes import points_box, sized_box
from detection.data.formats.tables import read_table
from detection.data.labelled import LabelledImage, LabelledObject
from detection.data.records import Box
from detection.errors import DatasetError
from detection.files import read_json

Json = dict[str, Any]

_NOT_VISITED = 0  # the `state` of an asset: not opened; 1: opened; 2: with regions


@dataclass
class _Counts:
    """What is told about a source: assets that nobody has opened, and regions with several tags."""

    unopened: int = 0
    several_tags: int = 0


def read_vott(source: FolderSource, root: Path, faults: Faults) -> list[LabelledImage]:
    """The images of VoTT's export, or of the assets of a project. Raises DatasetError."""
    counts = _Counts()
    named = _read_tables(source, root, faults) if _is_table(source, root) else _read_json_files(source, root, counts, faults)
    found = find_images(named, root, [image_folder(source, root)], faults)
    if not counts.unopened:  # a project has no file of an asset that nobody has opened, an export has all
        inform_of_unnamed(found, source, root, faults)
    return found


def _is_table(source: FolderSource, root: Path) -> bool:
    place = root if source.annotations is None else root / source.annotations
    return place.suffix.lower() == ".csv"


def _read_tables(source: FolderSource, root: Path, faults: Faults) -> list[NamedImage]:
    files = label_files(source, root, ".csv", lambda file: True, "CSV export of VoTT")
    return [image for file in files for image in read_table(file, faults)]


def _read_json_files(source: FolderSource, root: Path, counts: _Counts, faults: Faults) -> list[NamedImage]:
    images = list[NamedImage]()
    contents = {
        file: read_json(file)
        for file in label_files(source, root, ".json", lambda file: json_kind(read_ends(file)) == "vott", "JSON export of VoTT")
    }
    exports = {file: content for file, content in contents.items() if isinstance(content, dict) and "assets" in content}
    # The export of a project repeats what its assets say.
    for file, content in (exports or contents).items():
        for key, entry in _entries(content, file):
            with faults.guard():
                image = _read_asset(entry, file if key is None else f"{file}: asset {shorten(key)}", file, counts, faults)
                images += [] if image is None else [image]
    if counts.unopened:
        faults.inform(f"{root}: {counts.unopened} images are left out, which nobody has opened in VoTT")
    if counts.several_tags:
        faults.inform(f"{root}: {counts.several_tags} regions have several tags: each counts as an object")
    return images


def _entries(content: Any, file: Path) -> Iterator[tuple[str | None, Any]]:
    """The assets of a file by their ids; the one of a -asset.json without."""
    if not isinstance(content, dict):
        raise DatasetError(f"{file} is no file of VoTT: it must hold an object, found {shorten(content)}")
    if "assets" not in content:
        yield None, content
        return
    assets = content["assets"]
    if not isinstance(assets, dict):
        raise DatasetError(f"{file}: 'assets' must be an object, found {shorten(assets)}")
    yield from assets.items()


def _read_asset(entry: Any, where: Path | str, file: Path, counts: _Counts, faults: Faults) -> NamedImage | None:
    """The image of an asset, or None for one that nobody has opened."""
    asset = entry.get("asset") if isinstance(entry, dict) else None
    if not isinstance(asset, dict):
        raise DatasetError(f"{where} has no object 'asset': {shorten(entry)}")
    name = next((asset[key] for key in ("path", "name") if isinstance(asset.get(key), str) and asset[key].strip()), None)
    if name is None:
        raise DatasetError(f"{where} names no image, neither as 'path' nor as 'name': {shorten(asset)}")
    regions = entry.get("regions", [])
    if not isinstance(regions, list):
        raise DatasetError(f"{where}: 'regions' must be a list, found {shorten(regions)}")
    if not regions and asset.get("state") == _NOT_VISITED and asset.get("state") is not False:
        counts.unopened += 1
        return None
    size = asset.get("size")
    size_hw = read_size(size.get("height"), size.get("width")) if isinstance(size, dict) else None
    objects = [
        found
        for number, region in enumerate(regions, start=1)
        for found in _read_region(region, f"{where}, region {number}", counts, faults)
    ]
    return NamedImage(name, file, objects, size_hw)


def _read_region(region: Any, where: str, counts: _Counts, faults: Faults) -> Iterator[LabelledObject]:
    """The objects of a region: one for each of its tags."""
    if not isinstance(region, dict):
        raise DatasetError(f"{where} must be an object, found {shorten(region)}")
    box = _box(region)
    if box is None:
        faults.note(f"{where}: boundingBox {shorten(region.get('boundingBox'))}", "region without its numbers", "dropped")
        return
    tags = region.get("tags")
    tags = tags if isinstance(tags, list) and tags else [tags if isinstance(tags, str) else None]
    counts.several_tags += len(tags) > 1
    for tag in tags:
        name = read_class_name(tag, where, faults)
        if name is not None:
            yield LabelledObject(name, box, where)


def _box(region: Mapping[str, Any]) -> Box | None:
    bounds, points = region.get("boundingBox"), region.get("points")
    if isinstance(bounds, dict):
        return sized_box([bounds.get(key) for key in ("left", "top", "width", "height")])
    if isinstance(points, list) and all(isinstance(point, dict) for point in points):
        return points_box([point.get("x") for point in points], [point.get("y") for point in points])
    return None
