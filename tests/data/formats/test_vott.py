"""VoTT: assets and exports, tags, what nobody has opened."""

import pytest

from detection.errors import DatasetError
from tests.data.formats.exports import PLAIN, dump, vott_asset, write_images, write_vott, write_vott_export
from tests.data.formats.reading import read


def test_a_region_with_several_tags_is_an_object_for_each(tmp_path):
    write_images(tmp_path, PLAIN[:1])
    asset = vott_asset(PLAIN[0])
    asset["regions"][0]["tags"] = ["animal", "cat"]
    asset["regions"][1]["tags"] = []
    dump(tmp_path / "a-asset.json", asset)
    objects, faults = read(tmp_path, "vott")
    assert objects == {"000001.jpg": [("animal", (10, 5, 30, 25)), ("cat", (10, 5, 30, 25))]}
    assert "1 regions have several tags: each counts as an object" in faults.information[0]
    assert list(faults.by_kind()) == ["object without a class, dropped"]


def test_polygons_and_regions_without_numbers(tmp_path):
    write_images(tmp_path, PLAIN[:1])
    asset = vott_asset(PLAIN[0])
    asset["regions"][0] = {"type": "POLYGON", "tags": ["cat"], "points": [{"x": 1, "y": 2}, {"x": 5, "y": 1}, {"x": 3, "y": 9}]}
    asset["regions"][1]["boundingBox"] = {"left": "left", "top": 1, "width": 2, "height": 3}
    dump(tmp_path / "a-asset.json", asset)
    objects, faults = read(tmp_path, "vott")
    assert objects == {"000001.jpg": [("cat", (1, 1, 5, 9))]}
    assert list(faults.by_kind()) == ["region without its numbers, dropped"]


def test_images_that_nobody_has_opened_are_left_out(tmp_path):
    write_images(tmp_path, PLAIN)
    assets = {str(number): vott_asset(picture) for number, picture in enumerate(PLAIN)}
    assets["2"]["asset"]["state"] = 0  # the picture without objects
    dump(tmp_path / "pets-export.json", {"videoSettings": {}, "assets": assets})
    objects, faults = read(tmp_path, "vott")
    assert list(objects) == ["000001.jpg", "000002.jpg", "000004.jpg"]
    assert "1 images are left out, which nobody has opened in VoTT" in faults.information[0]


def test_the_export_of_a_project_counts_once(tmp_path):
    write_vott(tmp_path)
    write_vott_export(tmp_path / "target")
    objects, _ = read(tmp_path, "vott")
    assert list(objects) == [f"source/00000{number}.jpg" for number in (1, 2, 3, 4)]


def test_an_image_by_the_name_of_its_asset(tmp_path):
    """Exports name copies of the images, whose path is that of the original."""
    write_images(tmp_path, PLAIN[:1])
    asset = vott_asset(PLAIN[0])
    del asset["asset"]["path"]
    dump(tmp_path / "a-asset.json", asset)
    assert list(read(tmp_path, "vott")[0]) == ["000001.jpg"]
    del asset["asset"]["name"]
    dump(tmp_path / "a-asset.json", asset)
    with pytest.raises(DatasetError, match=r"a-asset\.json names no image, neither as 'path' nor as 'name'"):
        read(tmp_path, "vott")


def test_its_table_is_read_where_it_is_named(tmp_path):
    write_images(tmp_path, PLAIN[:1])
    (tmp_path / "pets-export.csv").write_text('"image","xmin","ymin","xmax","ymax","label"\n"000001.jpg",1,2,3.5,4,"cat"\n')
    assert read(tmp_path, "vott", annotations="pets-export.csv")[0] == {"000001.jpg": [("cat", (1, 2, 3.5, 4))]}
