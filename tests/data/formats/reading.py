"""Reading a folder in a test: its objects by image, and what is said about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from detection.config import FolderSource
from detection.data.faults import Faults
from detection.data.formats.readers import read_folder
from detection.data.labelled import LabelledImage

Objects = dict[str, list[tuple[str, Any]]]


def read(root: Path, format_: Any, **keys: Any) -> tuple[Objects, Faults]:
    """The objects of each image, by its id, as (class, box to compare with), and the faults."""
    faults = Faults()
    images = read_folder(FolderSource(format=format_, root=root, **keys), root, faults)
    return objects_of(images), faults


def objects_of(images: list[LabelledImage]) -> Objects:
    """The objects of each image, by its id."""
    return {
        str(image.image_id): [(each.class_name, pytest.approx(each.box, abs=1e-6)) for each in image.objects]
        for image in images
    }
