"""makesense.ai's exports of its own: one table of boxes, and VGG's JSON. Its YOLO and VOC exports are those formats."""

from __future__ import annotations

from pathlib import Path

from detection.config import FolderSource
from detection.data.faults import Faults
from detection.data.formats.listing import list_folder
from detection.data.formats.tables import read_csv
from detection.data.formats.via import read_via
from detection.data.labelled import LabelledImage
from detection.files import is_file


def read_makesense(source: FolderSource, root: Path, faults: Faults) -> list[LabelledImage]:
    """The images of an export of makesense.ai. Raises DatasetError."""
    place = root if source.annotations is None else root / source.annotations
    is_json = place.suffix.lower() == ".json" if is_file(place) else ".csv" not in list_folder(place).by_suffix
    return (read_via if is_json else read_csv)(source, root, faults)
