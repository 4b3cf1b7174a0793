"""Label Studio: which annotation counts, shapes of all kinds, names of images."""

import math

import pytest

from detection.errors import DatasetError
from tests.data.formats.exports import PLAIN, dump, studio_result, studio_task, write_images
from tests.data.formats.reading import read
from tests.data.pictures import Thing


def result(kind, value, **keys):
    return {"original_width": 60, "original_height": 40, "type": kind, "value": value, **keys}


def write_task(folder, results, **data):
    write_images(folder / "images", PLAIN[:1])
    task = {"id": 7, "data": {"image": "/data/upload/3/1a2b3c4d-000001.jpg", **data}, "annotations": [{"result": results}]}
    dump(folder / "export.json", [task])


def test_shapes_of_all_kinds(tmp_path):
    results = [
        result("rectanglelabels", {"x": 50, "y": 25, "width": 10, "height": 20, "rotation": 90, "rectanglelabels": ["cat"]}),
        result("polygonlabels", {"points": [[10, 20], [30, 25], [20, 70]], "polygonlabels": ["dog"]}),
        result("ellipselabels", {"x": 50, "y": 50, "radiusX": 10, "radiusY": 30, "ellipselabels": ["cat"]}),
        result("labels", {"x": 0, "y": 0, "width": 50, "height": 50, "labels": ["dog", "pet"]}),
        result("brushlabels", {"format": "rle", "rle": [0, 1], "brushlabels": ["dog"]}),
        result("keypointlabels", {"x": 1, "y": 2, "width": 0.5, "keypointlabels": ["eye"]}),
        result("choices", {"x": 50, "y": 25, "width": 10, "height": 20, "choices": ["sure"]}),
        {"type": "relation", "from_id": "a", "to_id": "b"},
    ]
    write_task(tmp_path, results)
    objects, faults = read(tmp_path, "labelstudio")
    # The rectangle of 6 x 8 px is turned about its corner (30, 10): it lies to the left of it, 8 wide and 6 high.
    assert objects == {
        "images/000001.jpg": [
            ("cat", (22 / 60, 10 / 40, 30 / 60, 16 / 40)),
            ("dog", (0.1, 0.2, 0.3, 0.7)),
            ("cat", (0.4, 0.2, 0.6, 0.8)),
            ("dog", (0, 0, 0.5, 0.5)),
            ("pet", (0, 0, 0.5, 0.5)),
        ]
    }
    assert any("left out: brushlabels (1), keypointlabels (1)" in line for line in faults.information)
    assert any("1 shapes have several classes: each counts as an object" in line for line in faults.information)


def test_a_turned_ellipse_keeps_its_form_in_pixels(tmp_path):
    value = {"x": 50, "y": 50, "radiusX": 10, "radiusY": 5, "rotation": 45, "ellipselabels": ["cat"]}
    write_task(tmp_path, [result("ellipselabels", value)])
    objects, _ = read(tmp_path, "labelstudio")
    half = math.sqrt((6**2 + 2**2) / 2)  # 6 and 2 px are the radii
    assert objects["images/000001.jpg"] == [("cat", ((30 - half) / 60, (20 - half) / 40, (30 + half) / 60, (20 + half) / 40))]


def test_a_turned_shape_of_an_image_of_unknown_size_is_dropped(tmp_path):
    value = {"x": 50, "y": 25, "width": 10, "height": 20, "rotation": 5, "rectanglelabels": ["cat"]}
    write_task(tmp_path, [{"type": "rectanglelabels", "value": value}])
    objects, faults = read(tmp_path, "labelstudio")
    assert objects == {"images/000001.jpg": []} and list(faults.by_kind()) == ["shape without its numbers, dropped"]


@pytest.mark.parametrize(
    ("marks", "chosen"),
    [
        ([{"updated_at": "2024-01-02"}, {"updated_at": "2024-01-01"}], 0),
        ([{"updated_at": "2024-01-01"}, {"updated_at": "2024-01-02"}], 1),
        ([{"updated_at": "2024-01-01", "ground_truth": True}, {"updated_at": "2024-01-02"}], 0),
        ([{"updated_at": "2024-01-01"}, {"updated_at": "2024-01-02", "was_cancelled": True}], 0),
        ([{}, {}, {}], 2),
    ],
)
def test_one_of_several_annotations_counts(marks, chosen, tmp_path):
    write_images(tmp_path, PLAIN[:1])
    task = studio_task(PLAIN[0])
    names = [f"class {number}" for number in range(len(marks))]
    size_hw = PLAIN[0].size_hw
    task["annotations"] = [
        {"result": [studio_result(Thing(name, (1, 1, 9, 9)), size_hw, 0)], **mark}
        for name, mark in zip(names, marks, strict=True)
    ]
    task["predictions"] = [{"result": [studio_result(Thing("guess", (1, 1, 9, 9)), size_hw, 0)]}]
    dump(tmp_path / "export.json", [task])
    objects, faults = read(tmp_path, "labelstudio")
    assert [name for name, _ in objects["000001.jpg"]] == [names[chosen]]
    several = sum("was_cancelled" not in mark for mark in marks) > 1
    assert any("1 tasks have several annotations" in line for line in faults.information) == several


def test_tasks_that_nobody_has_annotated_are_left_out(tmp_path):
    write_images(tmp_path, PLAIN)
    tasks = [studio_task(picture) for picture in PLAIN]
    tasks[0]["annotations"] = []
    tasks[1]["annotations"][0]["was_cancelled"] = True
    tasks[2]["annotations"][0]["result"] = []  # looked at, and nothing in it
    dump(tmp_path / "export.json", tasks)
    objects, faults = read(tmp_path, "labelstudio")
    assert list(objects) == ["000003.jpg", "000004.jpg"] and objects["000003.jpg"] == []
    assert "2 tasks are left out, which nobody has annotated" in faults.information[0]


@pytest.mark.parametrize(
    "name",
    [
        "/data/upload/1/ab12cd34-000001.jpg",
        "/data/local-files/?d=pets/images/000001.jpg",
        "/data/local-files/?d=pets%2Fimages%2F000001.jpg",
        "s3://bucket/pets/000001.jpg",
        "https://example.com/a/000001.jpg?X-Amz-Date=2024",
        "http://localhost:8080/data/upload/1/ab12cd34-000001.jpg",
        "000001.jpg",
        "C:\\pets\\000001.jpg",
    ],
)
def test_names_of_images(name, tmp_path):
    write_task(tmp_path, [], image=name)
    assert read(tmp_path, "labelstudio")[0] == {"images/000001.jpg": []}


def test_the_image_may_be_under_any_key(tmp_path):
    write_task(tmp_path, [], text="hello")
    dump(tmp_path / "export.json", [{"data": {"title": "x", "foto": "/a/000001.jpg"}, "annotations": [{"result": []}]}])
    assert list(read(tmp_path, "labelstudio")[0]) == ["images/000001.jpg"]
    dump(tmp_path / "export.json", [{"id": 4, "data": {"title": "x"}, "annotations": [{"result": []}]}])
    with pytest.raises(DatasetError, match=r"export\.json: task 4 names no image in its data"):
        read(tmp_path, "labelstudio")


def test_uploads_under_other_names_than_their_files(tmp_path):
    for name in ("my photo (1).jpg", "Größe 2+3.jpg"):
        write_images(tmp_path / "images", PLAIN[:1])
        (tmp_path / "images/000001.jpg").rename(tmp_path / "images" / name)
    tasks = [studio_task(PLAIN[0]), studio_task(PLAIN[0])]
    for task, name in zip(tasks, ("my_photo_1.jpg", "Größe_23.jpg"), strict=True):
        task["data"]["image"] = f"/data/upload/12/0a1b2c3d-{name}"
    dump(tmp_path / "export.json", tasks)
    objects, faults = read(tmp_path, "labelstudio")
    assert list(objects) == ["images/my photo (1).jpg", "images/Größe 2+3.jpg"]
    assert "2 images are named as Label Studio calls its uploads" in faults.information[0]
