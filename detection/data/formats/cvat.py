"""CVAT's own format, "CVAT for images 1.1" and "CVAT for video 1.1": annotations.xml and images/.

Boxes are in pixels from 0. Polygons, ellipses, masks, cuboids and turned boxes become the boxes around them; what has no
extent of its own (points, polylines, skeletons, tags) is left out, with a count. Every image of a file counts, also one without
a shape: CVAT does not tell whether somebody has looked at it.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

from backbones.errors import shorten
from detection.config import FolderSource
from detection.data.faults import Faults
from detection.data.formats.contents import is_cvat, read_ends
from detection.data.formats.listing import list_folder
from detection.data.formats.named_images import (
    NamedImage,
    find_images,
    image_folder,
    inform_left_out,
    label_files,
    read_class_name,
    read_size,
)
from detection.data.formats.shapes import corner_box, ellipse_box, points_box, sized_box, turned_box
from detection.data.formats.splits import canonical_split
from detection.data.labelled import LabelledImage, LabelledObject
from detection.data.records import Box
from detection.data.voc_xml import parse_xml
from detection.errors import DatasetError

MAX_XML_BYTES = 1 << 28
"""Of one annotations.xml, which holds all images: some million boxes."""

_SHAPES = ("box", "polygon", "ellipse", "mask", "cuboid")
_WITHOUT_EXTENT = ("polyline", "points", "skeleton", "tag")
_CORNERS = ("tl", "bl", "tr", "br")  # of both sides of a cuboid
_NUMBER = re.compile(r"[0-9]{1,9}")
_FRAME = re.compile(r"frame_([0-9]{1,9})\.\w+")


def read_cvat(source: FolderSource, root: Path, faults: Faults) -> list[LabelledImage]:
    """The images of CVAT's annotation files, or those of one subset where `split` names it. Raises DatasetError."""
    files = label_files(source, root, ".xml", lambda file: is_cvat(read_ends(file)), "annotations.xml of CVAT", by_file=False)
    images = []
    for file in files:
        tree = parse_xml(file, "annotations", MAX_XML_BYTES)
        left_out = Counter[str]()
        if tree.find("image") is None and tree.find("track") is not None:
            images += _read_video(tree, file, source, root, left_out, faults)
        else:
            images += _read_images(tree, file, source, root, left_out, faults)
        inform_left_out(left_out, file, faults)
    if not images and not faults.errors and source.split is not None:
        raise DatasetError(f"{root} has no images of the subset '{source.split}'")
    return images


def _read_images(
    tree: ElementTree.Element, file: Path, source: FolderSource, root: Path, left_out: Counter[str], faults: Faults
) -> list[LabelledImage]:
    by_subset, own = defaultdict[str, list[NamedImage]](list), _own_subset(tree)
    for number, element in enumerate(tree.findall("image"), start=1):
        subset, name = element.get("subset") or own, element.get("name")
        if source.split is not None and canonical_split(subset) != canonical_split(source.split):
            continue
        with faults.guard():
            if not name:
                raise DatasetError(f"{file}: image {number} has no name")
            where = f"{file}, {shorten(name)}"
            objects = [
                found
                for place, shape in enumerate(element, start=1)
                if (found := _read_shape(shape, shape.get("label"), f"{where}, shape {place}", left_out, faults)) is not None
            ]
            by_subset[subset].append(NamedImage(name, file, objects, read_size(element.get("height"), element.get("width"))))
    folders = {subset: _folders(source, root, file, subset) for subset in by_subset}
    return [image for subset, named in by_subset.items() for image in find_images(named, root, folders[subset], faults)]


def _own_subset(tree: ElementTree.Element) -> str:
    """The subset of a task or a job, whose images do not tell it; "" for none and for a project."""
    return (tree.findtext("meta/task/subset") or tree.findtext("meta/job/subset") or "").strip()


def _read_video(
    tree: ElementTree.Element, file: Path, source: FolderSource, root: Path, left_out: Counter[str], faults: Faults
) -> list[LabelledImage]:
    """The frames of a video of which there are images, and those that have a box.

    Frames within a track that says nothing of them are left out: CVAT tells each, but other programs only some.
    """
    if len(tree.findall("meta/project/tasks/task")) > 1:
        raise DatasetError(f"{file} labels several videos, whose frames have the same numbers: export CVAT's tasks one by one")
    folders = _folders(source, root, file, "")
    frames = _frames(folders)
    if not frames:
        raise DatasetError(
            f"{file} labels a video, and there are no images of its frames: export the task with 'Save images', or put the "
            f"frames beside it, as images/frame_000000.jpg and so on"
        )
    objects, untold = defaultdict[int, list[LabelledObject]](list), set[int]()
    for track in tree.findall("track"):
        shapes = _visible_shapes(track)
        for frame, shape in shapes.items():
            where = f"{file}, track {shorten(track.get('id'))}, frame {frame}"
            found = None if shape is None else _read_shape(shape, track.get("label"), where, left_out, faults)
            objects[frame] += [] if found is None else [found]
        untold |= _untold(shapes, sorted(frames))
    if untold:
        faults.inform(f"{file}: {len(untold)} frames are left out, of which a track within them tells nothing")
    size = tree.find("meta//original_size")
    size_hw = None if size is None else read_size(size.findtext("height"), size.findtext("width"))
    named = [
        NamedImage(frames.get(frame, f"frame_{frame:06d}.jpg"), file, objects.get(frame, ()), size_hw)
        for frame in sorted((frames.keys() | {frame for frame, found in objects.items() if found}) - untold)
    ]
    return find_images(named, root, folders, faults)


def _visible_shapes(track: ElementTree.Element) -> dict[int, ElementTree.Element | None]:
    """The shapes of a track by their frames, in order; None where its object is outside of the picture."""
    found: dict[int, ElementTree.Element | None] = {}
    for shape in track:
        frame = shape.get("frame") or ""
        if _NUMBER.fullmatch(frame):
            found[int(frame)] = None if shape.get("outside") == "1" else shape
    return dict(sorted(found.items(), key=lambda item: item[0]))


def _untold(shapes: Mapping[int, ElementTree.Element | None], frames: Sequence[int]) -> set[int]:
    """Of the frames, in order, those that lie within a track while its object is seen, and that it has no shape for."""
    untold = set[int]()
    for (frame, shape), following in pairwise([*shapes.items(), (0, None)]):
        if shape is not None:
            untold.update(frames[bisect_right(frames, frame) : bisect_left(frames, following[0])])
    return untold


def _folders(source: FolderSource, root: Path, file: Path, subset: str) -> list[Path]:
    """Where the images of a subset may lie, the likeliest first: beside the file, as CVAT exports them, or below the root."""
    base = image_folder(source, root)
    if source.images is not None:
        return [base]
    inner = () if subset in ("", ".", "..") or "/" in subset or "\\" in subset else (Path("images") / subset, Path(subset))
    places = [parent / each for parent in (file.parent, base) for each in (*inner, Path("images"), Path())]
    return list(dict.fromkeys(place for place in places if place.is_dir()))


def _frames(folders: Iterable[Path]) -> Mapping[int, str]:
    """Images of frames by their numbers, in the first of the folders that has any."""
    for folder in folders:
        matches = ((_FRAME.fullmatch(Path(name).name), name) for name in list_folder(folder).images)
        found = {int(match[1]): name for match, name in matches if match is not None}
        if found:
            return found
    return {}


def _read_shape(
    shape: ElementTree.Element, label: str | None, where: str, left_out: Counter[str], faults: Faults
) -> LabelledObject | None:
    """The object of a shape, or None where it has no box, which is counted in `left_out` or noted in `faults`."""
    if shape.tag not in _SHAPES:
        left_out.update([shape.tag] if shape.tag in _WITHOUT_EXTENT else [])
        return None
    name = read_class_name(label, where, faults)
    box = _box(shape)
    if box is None:
        faults.note(f"{where} ({shape.tag})", "shape without its numbers", "dropped")
    return None if name is None or box is None else LabelledObject(name, box, where)


def _box(shape: ElementTree.Element) -> Box | None:
    if shape.tag == "box":
        box = corner_box(_values(shape, "xtl", "ytl", "xbr", "ybr"))
        centre = None if box is None else ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        return None if box is None or centre is None else turned_box(box, shape.get("rotation", "0"), centre)
    if shape.tag == "ellipse":
        return ellipse_box(_values(shape, "cx", "cy", "rx", "ry"), shape.get("rotation", "0"))
    if shape.tag == "mask":
        return sized_box(_values(shape, "left", "top", "width", "height"))
    if shape.tag == "cuboid":
        corners = [f"{corner}{side}" for corner in _CORNERS for side in (1, 2)]
        return points_box(_values(shape, *(f"x{each}" for each in corners)), _values(shape, *(f"y{each}" for each in corners)))
    points = [point.split(",") for point in (shape.get("points") or "").split(";")]
    return points_box([x for x, *_ in points], [y for *_, y in points]) if all(len(point) == 2 for point in points) else None


def _values(shape: ElementTree.Element, *names: str) -> Sequence[str | None]:
    return [shape.get(name) for name in names]
