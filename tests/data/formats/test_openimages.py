"""Open Images: groups, names of classes, and the images that somebody has."""

import pytest

from detection.config import FolderSource
from detection.data.faults import Faults
from detection.data.formats.openimages import read_openimages
from detection.errors import DatasetError
from tests.data.formats.exports import PLAIN, write_images
from tests.data.formats.reading import read

HEADER = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
ROWS = """000001,xclick,/m/01yrx,1,0.25,0.5,0.1,0.9,0,0,1,0,0
000001,xclick,/m/0,1,0,1,0,1,0,0,-1,0,0
ffff,xclick,/m/0,1,0,1,0,1,0,0,0,0,0
"""


@pytest.mark.parametrize("header", ["", "LabelName,DisplayName\n"])
def test_groups_and_names(header, tmp_path):
    write_images(tmp_path / "data", PLAIN[:2])
    (tmp_path / "train-annotations-bbox.csv").write_text(HEADER + ROWS)
    (tmp_path / "oidv6-class-descriptions.csv").write_text(f"{header}/m/01yrx,Cat\n/m/0bt9lr,Dog\n")
    objects, faults = read(tmp_path, "openimages")
    assert objects == {"data/000001.jpg": [("Cat", (0.25, 0.1, 0.5, 0.9)), ("/m/0", (0, 0, 1, 1))]}
    assert faults.information == [
        f"{tmp_path / 'train-annotations-bbox.csv'}: 1 images that it lists are not there, and are left out",
        f"{tmp_path}: 1 images are in no label file, and are left out, e.g. {tmp_path / 'data/000002.jpg'}",
    ]


def test_crowds_and_codes(tmp_path):
    write_images(tmp_path / "data", PLAIN[:1])
    (tmp_path / "train-annotations-bbox.csv").write_text(HEADER + ROWS)
    faults = Faults()
    (image,) = read_openimages(FolderSource(format="openimages", root=tmp_path), tmp_path, faults)
    assert [(each.class_name, each.crowd) for each in image.objects] == [("/m/01yrx", True), ("/m/0", False)]
    assert "the classes of Open Images keep their codes" in faults.information[0]


def test_faulty_rows_and_images_of_one_id(tmp_path):
    write_images(tmp_path / "train", PLAIN[:1])
    rows = "000001,xclick,/m/0\n000001,xclick,/m/0,1,a,1,0,1,0,0,0,0,0\n"
    (tmp_path / "train-annotations-bbox.csv").write_text(HEADER + rows)
    objects, faults = read(tmp_path, "openimages")
    assert objects == {"train/000001.jpg": []}
    assert list(faults.by_kind()) == ["row with too few columns, dropped", "row without four numbers, dropped"]
    write_images(tmp_path / "validation", PLAIN[:1])
    with pytest.raises(DatasetError, match="have one image id: set 'images'"):
        read(tmp_path, "openimages")
    assert list(read(tmp_path, "openimages", images="train")[0]) == ["train/000001.jpg"]
