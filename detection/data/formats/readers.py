"""The reader of each format of a FolderSource."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from detection.config import FolderFormat, FolderSource
from detection.data.faults import Faults
from detection.data.formats.cvat import read_cvat
from detection.data.formats.labelimg import read_labelimg
from detection.data.formats.labelme import read_labelme
from detection.data.formats.labelstudio import read_labelstudio
from detection.data.formats.makesense import read_makesense
from detection.data.formats.openimages import read_openimages
from detection.data.formats.tables import read_csv
from detection.data.formats.unknown import refuse_archive
from detection.data.formats.via import read_via
from detection.data.formats.vott import read_vott
from detection.data.formats.yolo import read_yolo
from detection.data.labelled import LabelledImage, ReadFolder
from detection.errors import DatasetError

READERS: Mapping[FolderFormat, ReadFolder] = {
    "cvat": read_cvat,
    "labelstudio": read_labelstudio,
    "vott": read_vott,
    "makesense": read_makesense,
    "via": read_via,
    "openimages": read_openimages,
    "csv": read_csv,
    "yolo": read_yolo,
    "labelimg": read_labelimg,
    "labelme": read_labelme,
}


def read_folder(source: FolderSource, root: Path, faults: Faults) -> list[LabelledImage]:
    """The images of a folder, or of a file of labels, with their objects. Raises DatasetError.

    `format: auto` has to be settled before (`detection.data.settle`).
    """
    if source.format == "auto":
        raise DatasetError(f"the format of {root} is still to be recognised: `settle_config` does so")
    refuse_archive(root)
    return READERS[source.format](source, root, faults)
