"""Which names of classes the data hold, without their images: no picture is decoded, and a COCO file is read once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from detection.config import CocoSource, IlsvrcDetSource, Source, VocSource
from detection.data.catalog import resolve_devkit, resolve_root
from detection.data.classes import ClassMap
from detection.data.coco_format import CocoFile, read_coco_file
from detection.data.faults import Faults
from detection.data.formats.readers import read_folder
from detection.data.ilsvrc_det import ilsvrc_det_names
from detection.data.voc import open_folder, read_image_set
from detection.data.voc_xml import parse_xml
from detection.errors import DatasetError


@dataclass(frozen=True)
class NamesInData:
    """The names of classes in some sources."""

    objects: Counter[str]  # name -> number of objects; those that a list of classes declares may have 0

    @property
    def used(self) -> list[str]:
        """Names that objects have, in alphabetical order."""
        return sorted(name for name, count in self.objects.items() if count)

    @property
    def unused(self) -> list[str]:
        """Names that are declared, but that no object has, in alphabetical order."""
        return sorted(name for name, count in self.objects.items() if not count)


def read_names(sources: Sequence[Source]) -> NamesInData:
    """The names in the sources of training images. Raises DatasetError where there is none, saying why if that is known."""
    faults = Faults(collect=True)
    found = names_in(sources, faults)
    if not found.objects.total():
        raise DatasetError(faults.errors[0] if faults.errors else "the training data hold no object: name the classes yourself")
    return found


def names_in(sources: Sequence[Source], faults: Faults) -> NamesInData:
    """The names in some sources. What cannot be read is in `faults`, and passed over: loading it tells all that is wrong."""
    found, files = Counter[str](), dict[Path, CocoFile]()
    for source in sources:
        with faults.guard():
            found.update(_names(source, resolve_root(source.root), faults, files))
    return NamesInData(found)


def _names(source: Source, root: Path, faults: Faults, files: dict[Path, CocoFile]) -> Counter[str]:
    """`files` are those that were read already."""
    if isinstance(source, VocSource):
        return Counter(_voc_names(source, root, faults))
    if isinstance(source, CocoSource):
        path = root / source.annotations
        files[path] = files.get(path) or read_coco_file(path, faults)
        return _coco_names(files[path])
    if isinstance(source, IlsvrcDetSource):
        return Counter(ilsvrc_det_names(source, root, resolve_devkit(source, root), faults))
    return Counter(each.class_name for image in read_folder(source, root, faults) for each in image.objects)


def _coco_names(content: CocoFile) -> Counter[str]:
    names = Counter(dict.fromkeys(content.categories.values(), 0))
    counts = Counter(annotation.category_id for annotation in content.annotations)
    for category, name in content.categories.items():
        names[name] += counts[category]
    return names


def _voc_names(source: VocSource, root: Path, faults: Faults) -> Iterator[str]:
    folder = open_folder(root, source.year, ClassMap(()))
    for entry in read_image_set(folder.root, source.split, folder.annotated | folder.images.keys()) if source.annotated else ():
        with faults.guard():
            for element in parse_xml(folder.annotation(entry.stem)).findall("object"):
                if name := (element.findtext("name") or "").strip():
                    yield name
