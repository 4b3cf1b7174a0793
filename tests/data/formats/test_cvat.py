"""CVAT: shapes of all kinds, subsets, videos."""

import pytest

from detection.data.formats.recognise import recognise
from detection.errors import DatasetError
from tests.data.formats.exports import PLAIN, cvat_xml, write_images
from tests.data.formats.reading import read

SHAPES = """  <image id="0" name="000001.jpg" width="60" height="40">
    <box label="cat" xtl="10" ytl="10" xbr="30" ybr="20" rotation="90.0" occluded="0"><attribute name="a">x</attribute></box>
    <polygon label="dog" points="1,2;3,4;6.5,3" occluded="0"/>
    <ellipse label="cat" cx="20" cy="20" rx="5" ry="3" occluded="0"/>
    <mask label="dog" rle="1, 2" left="4" top="5" width="6" height="7" occluded="0"/>
    <cuboid label="cat" xtl1="1" ytl1="2" xbl1="1" ybl1="8" xtr1="5" ytr1="2" xbr1="5" ybr1="8"
            xtl2="3" ytl2="1" xbl2="3" ybl2="7" xtr2="9" ytr2="1" xbr2="9" ybr2="7"/>
    <polyline label="dog" points="1,2;3,4"/>
    <points label="dog" points="1,2"/>
    <points label="dog" points="3,2"/>
    <skeleton label="dog"><points label="1" points="1,2"/></skeleton>
    <tag label="sunny"></tag>
  </image>
"""


def test_shapes_become_the_boxes_around_them(tmp_path):
    write_images(tmp_path / "images", PLAIN[:1])
    (tmp_path / "annotations.xml").write_text(cvat_xml(SHAPES))
    objects, faults = read(tmp_path, "cvat")
    assert objects == {
        "images/000001.jpg": [
            ("cat", (15, 5, 25, 25)),
            ("dog", (1, 2, 6.5, 4)),
            ("cat", (15, 17, 25, 23)),
            ("dog", (4, 5, 10, 12)),
            ("cat", (1, 1, 9, 8)),
        ]
    }
    (said,) = faults.information
    assert said.endswith("5 shapes without an extent are left out: points (2), polyline (1), skeleton (1), tag (1)")


def test_faulty_shapes_are_dropped_with_a_word(tmp_path):
    write_images(tmp_path / "images", PLAIN[:1])
    shapes = '<box label="cat" xtl="a" ytl="1" xbr="2" ybr="3"/><box xtl="1" ytl="1" xbr="2" ybr="3"/><polygon label="cat"/>'
    (tmp_path / "annotations.xml").write_text(cvat_xml(f'<image name="000001.jpg">{shapes}</image>'))
    objects, faults = read(tmp_path, "cvat")
    assert objects == {"images/000001.jpg": []}
    assert {kind: len(notes) for kind, notes in faults.by_kind().items()} == {
        "shape without its numbers, dropped": 2,
        "object without a class, dropped": 1,
    }


def test_two_tasks_side_by_side(tmp_path):
    """Each with images of the same names."""
    for task in ("one", "two"):
        write_images(tmp_path / task / "images", PLAIN[:1])
        body = f'<image name="000001.jpg"><box label="{task}" xtl="1" ytl="1" xbr="2" ybr="3"/></image>'
        (tmp_path / task / "annotations.xml").write_text(cvat_xml(body))
    objects, _ = read(tmp_path, "cvat")
    assert objects == {f"{task}/images/000001.jpg": [(task, (1, 1, 2, 3))] for task in ("one", "two")}


def test_tasks_of_subsets_of_their_own(tmp_path):
    for task, subset in (("one", "Train"), ("two", "Validation")):
        write_images(tmp_path / task / "images", PLAIN[:1])
        body = f'<image name="000001.jpg"><box label="{task}" xtl="1" ytl="1" xbr="2" ybr="3"/></image>'
        (tmp_path / task / "annotations.xml").write_text(cvat_xml(body, f"<task><subset>{subset}</subset></task>"))
    assert list(read(tmp_path, "cvat", split="val")[0]) == ["two/images/000001.jpg"]
    found = recognise(tmp_path)
    assert list(found.splits) == ["train", "val"]


VIDEO = """  <track id="0" label="cat" source="manual">
    <box frame="10" outside="0" occluded="0" keyframe="1" xtl="1" ytl="2" xbr="3" ybr="4" z_order="0"></box>
    <box frame="13" outside="0" occluded="0" keyframe="0" xtl="2" ytl="2" xbr="4" ybr="4" z_order="0"></box>
    <box frame="16" outside="1" occluded="0" keyframe="1" xtl="2" ytl="2" xbr="4" ybr="4" z_order="0"></box>
  </track>
  <track id="1" label="dog"><points frame="10" outside="0" points="1,2"></points></track>
"""
VIDEO_META = "<task><original_size><width>60</width><height>40</height></original_size></task>"


def test_frames_of_a_video(tmp_path):
    for frame in (10, 13, 16):
        write_images(tmp_path / "images", PLAIN[:1])
        (tmp_path / "images/000001.jpg").rename(tmp_path / f"images/frame_{frame:06d}.jpg")
    (tmp_path / "annotations.xml").write_text(cvat_xml(VIDEO, VIDEO_META))
    objects, faults = read(tmp_path, "cvat")
    assert objects == {
        "images/frame_000010.jpg": [("cat", (1, 2, 3, 4))],
        "images/frame_000013.jpg": [("cat", (2, 2, 4, 4))],
        "images/frame_000016.jpg": [],
    }
    assert "points (1)" in faults.information[0]
    (tmp_path / "images/frame_000013.jpg").unlink()
    with pytest.raises(DatasetError, match=r"does not exist.*frame_000013"):
        read(tmp_path, "cvat")


def test_frames_that_a_track_does_not_tell_are_left_out(tmp_path):
    """CVAT writes each frame of a track; other programs only those where its box was set."""
    for frame in range(5):
        write_images(tmp_path / "images", PLAIN[:1])
        (tmp_path / "images/000001.jpg").rename(tmp_path / f"images/frame_{frame:06d}.PNG")
    box = '<box frame="{}" outside="{}" xtl="1" ytl="2" xbr="3" ybr="4"></box>'
    track = "".join(box.format(frame, outside) for frame, outside in ((0, 0), (2, 0), (3, 1)))
    (tmp_path / "annotations.xml").write_text(cvat_xml(f'<track id="0" label="cat">{track}</track>', VIDEO_META))
    objects, faults = read(tmp_path, "cvat")
    assert {name[-5]: len(found) for name, found in objects.items()} == {"0": 1, "2": 1, "3": 0, "4": 0}
    assert "1 frames are left out, of which a track within them tells nothing" in faults.information[0]


def test_a_video_without_its_frames(tmp_path):
    (tmp_path / "annotations.xml").write_text(cvat_xml(VIDEO, VIDEO_META))
    with pytest.raises(DatasetError, match="labels a video, and there are no images of its frames: export"):
        read(tmp_path, "cvat")
    meta = "<project><tasks><task></task><task></task></tasks></project>"
    (tmp_path / "annotations.xml").write_text(cvat_xml(VIDEO, meta))
    with pytest.raises(DatasetError, match="several videos.*one by one"):
        read(tmp_path, "cvat")


def test_what_is_not_there(tmp_path):
    with pytest.raises(DatasetError, match=r"holds no annotations\.xml of CVAT: is 'root' right"):
        read(tmp_path, "cvat")
    (tmp_path / "annotations.xml").write_text(cvat_xml(SHAPES))
    with pytest.raises(DatasetError, match="no images of the subset 'Train'"):
        read(tmp_path, "cvat", split="Train")
    with pytest.raises(DatasetError, match=r"annotations\.xml lists an image that does not exist: '000001\.jpg'"):
        read(tmp_path, "cvat")
