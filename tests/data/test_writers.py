"""Data sets written as files: what is written is read back, names hold everywhere, nothing is half-written."""

import errno
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO

from backbones.errors import name_fault
from detection.config import CocoSource, FolderSource, Source, VocSource
from detection.data.catalog import Dataset, load_dataset
from detection.data.records import AnnotatedObject, make_record
from detection.data.writers.dataset import DatasetFormat, write_dataset
from detection.data.writers.names import flat_names, relative_names
from detection.errors import DatasetError
from detection.files import new_folder
from detection.rows import voc_box
from detection.structures import Record

SIZES_WH = {"a/x.png": (64, 48), "b/x.png": (7, 501), "b/X.PNG": (1, 1), "b/photo 1.png": (640, 480), "b/é\n.png": (33, 20)}


@pytest.fixture(scope="module")
def pictures(module_path: Path) -> dict[Path, tuple[int, int]]:
    """Files whose names cannot stand beside each other as they are -> (width, height)."""
    for name, size in SIZES_WH.items():
        (module_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", size).save(module_path / name)
    return {module_path / name: size for name, size in SIZES_WH.items()}


@st.composite
def boxes(draw, size_wh):
    corners = []
    for side in size_wh:
        start = draw(st.integers(0, side - 1) | st.floats(0, side - 0.5, width=32))
        end = draw(st.integers(int(start) + 1, side) | st.floats(min(start + 0.5, side), side))
        corners.append((start, max(end, start + 0.5)))
    (x1, x2), (y1, y2) = corners
    return x1, y1, x2, y2


@st.composite
def data_sets(draw, files):
    """A split of some of the pictures, with classes in any script."""
    texts = st.text(min_size=1, max_size=12).map(str.strip).filter(lambda text: text and name_fault(text) is None)
    names = draw(st.lists(texts, min_size=1, max_size=4, unique_by=str.casefold))
    records = []
    for number, (file, size_wh) in enumerate(files.items()):
        objects = draw(st.lists(st.tuples(boxes(size_wh), st.integers(0, len(names) - 1), st.booleans()), max_size=4))
        annotated = [AnnotatedObject(box, label, difficult) for box, label, difficult in objects]
        records.append(make_record(number, file, (size_wh[1], size_wh[0]), annotated))
    return Dataset(tuple(names), records)


def read_back(folder: Path, format: DatasetFormat, class_names: Sequence[str], split: str = "train") -> list[Record]:
    source: Source
    if format == "yolo":
        source = FolderSource(format="yolo", root=folder, split=split)
    elif format == "voc":
        source = VocSource(format="voc", root=folder, split=split)
    else:
        annotations, images = Path(f"annotations/instances_{split}.json"), Path(f"images/{split}")
        source = CocoSource(format="coco", root=folder, annotations=annotations, images=images)
    return load_dataset([source], class_names).records


def assert_equal(found: Sequence[Record], written: Sequence[Record], atol: float) -> None:
    assert len(found) == len(written)
    for one, other in zip(*(sorted(each, key=lambda record: record.size_hw) for each in (found, written)), strict=True):
        assert one.size_hw == other.size_hw and one.labels.tolist() == other.labels.tolist()
        assert torch.equal(one.difficult | one.crowd, other.difficult | other.crowd)
        torch.testing.assert_close(one.boxes, other.boxes, rtol=0, atol=atol)
        assert one.file.read_bytes() == other.file.read_bytes()


def without_thin_boxes(record: Record) -> Record:
    """VOC cannot tell a box of one pixel from none."""
    kept = ((record.boxes[:, 2:] - record.boxes[:, :2]) > 1).all(1)
    names = ("boxes", "labels", "difficult", "crowd", "areas")
    return replace(record, **{name: getattr(record, name)[kept] for name in names})


def without_difficult(record: Record) -> Record:
    """YOLO has no such flag."""
    return replace(record, difficult=torch.zeros_like(record.difficult))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_is_written_is_read_back(data, pictures, tmp_path):
    dataset = data.draw(data_sets(pictures))
    tolerances: dict[DatasetFormat, float] = {"coco": 0.0011, "voc": 1e-12, "yolo": 0.0011}
    for format, atol in tolerances.items():
        folder = tmp_path / format
        shutil.rmtree(folder, ignore_errors=True)
        write_dataset({"train": dataset}, folder, format, images="link")
        change = {"voc": without_thin_boxes, "yolo": without_difficult}.get(format)
        expected = list(map(change, dataset.records)) if change else dataset.records
        assert_equal(read_back(folder, format, dataset.class_names), expected, atol)


@settings(max_examples=100)
@given(st.lists(st.just(0.0) | st.floats(2**-20, 1e5, width=32), min_size=4, max_size=4))
def test_voc_texts_give_the_very_floats_back(box):
    texts = voc_box(box)
    back = [float(texts[0]) - 1, float(texts[1]) - 1, float(texts[2]), float(texts[3])]
    assert torch.equal(torch.tensor(back, dtype=torch.float32), torch.tensor(box, dtype=torch.float32))


def test_voc_texts_by_hand():
    assert voc_box([0, 9, 10, 20]) == ["1", "10", "10", "20"]
    assert voc_box([12.3, 0.5, 100, 1e-5]) == ["13.3", "1.5", "100", "0.00001"]


def one_image(file: Path, size_wh: tuple[int, int], objects: Sequence[AnnotatedObject] = (), image_id: object = 7) -> Dataset:
    return Dataset(("cat", "dog"), [make_record(image_id, file, (size_wh[1], size_wh[0]), objects)])


def first(pictures: Mapping[Path, tuple[int, int]]) -> tuple[Path, tuple[int, int]]:
    return next(iter(pictures.items()))


def test_coco_by_hand(pictures, tmp_path):
    file, size_wh = first(pictures)
    objects = [AnnotatedObject((1, 2, 11, 22), 1, area=50.0), AnnotatedObject((0, 0, 64, 48), 0, crowd=True)]
    write_dataset({"train": one_image(file, size_wh, objects), "val": one_image(file, size_wh)}, tmp_path / "out", "coco")
    content = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())
    assert content["images"] == [{"id": 7, "file_name": "x.png", "width": 64, "height": 48}]
    assert content["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    common = {"image_id": 7, "segmentation": []}
    assert content["annotations"] == [
        {"id": 1, "category_id": 2, "bbox": [1, 2, 10, 20], "area": 50, "iscrowd": 0, **common},
        {"id": 2, "category_id": 1, "bbox": [0, 0, 64, 48], "area": 3072, "iscrowd": 1, **common},
    ]
    theirs = COCO(tmp_path / "out/annotations/instances_train.json")
    assert theirs.getAnnIds(imgIds=[7], iscrowd=False) == [1]
    assert COCO(tmp_path / "out/annotations/instances_val.json").getAnnIds() == []
    assert (tmp_path / "out/images/val/x.png").read_bytes() == file.read_bytes()


def test_yolo_by_hand(pictures, tmp_path):
    file, size_wh = first(pictures)
    objects = [AnnotatedObject((16, 12, 48, 36), 1), AnnotatedObject((0, 0, 64, 48), 0, crowd=True)]
    write_dataset({"train": one_image(file, size_wh, objects), "val": one_image(file, size_wh)}, tmp_path / "out", "yolo")
    assert (tmp_path / "out/labels/train/x.txt").read_text() == "1 0.500000 0.500000 0.500000 0.500000\n"
    assert (tmp_path / "out/labels/val/x.txt").read_text() == ""
    content = yaml.safe_load((tmp_path / "out/data.yaml").read_text())
    assert content == {"train": "images/train", "val": "images/val", "names": {0: "cat", 1: "dog"}}
    assert (tmp_path / "out/images/train/x.png").is_file()


def test_names_that_yaml_would_misread(pictures, tmp_path):
    file, size_wh = first(pictures)
    names = ("yes", "1", "a: b", "чашка", "null")
    write_dataset({"train": Dataset(names, one_image(file, size_wh).records)}, tmp_path / "out", "yolo")
    assert tuple(yaml.safe_load((tmp_path / "out/data.yaml").read_text())["names"].values()) == names


def test_labels_alone_refer_to_the_images(pictures, tmp_path):
    file, size_wh = first(pictures)
    for format in ("coco", "voc", "yolo"):
        write_dataset({"train": one_image(file, size_wh)}, tmp_path / format, format, images="none")
        assert not list((tmp_path / format).rglob("*.png"))
    content = json.loads((tmp_path / "coco/annotations/instances_train.json").read_text())
    assert content["images"][0]["file_name"] == str(file)
    assert ElementTree.parse(tmp_path / "voc/Annotations/x.xml").findtext("path") == str(file)


def test_linked_images_take_no_room(pictures, tmp_path):
    file, size_wh = first(pictures)
    shortcut = tmp_path / "x.png"
    shortcut.symlink_to(file)
    write_dataset({"train": one_image(shortcut, size_wh)}, tmp_path / "out", "yolo", images="link")
    written = tmp_path / "out/images/train/x.png"
    assert written.stat().st_ino == file.stat().st_ino and not written.is_symlink()


def test_where_the_disk_has_no_links_images_are_copied(pictures, tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "on another device")

    monkeypatch.setattr(os, "link", refuse)
    file, size_wh = first(pictures)
    write_dataset({"train": one_image(file, size_wh)}, tmp_path / "out", "voc", images="link")
    written = tmp_path / "out/JPEGImages/x.png"
    assert written.stat().st_ino != file.stat().st_ino and written.read_bytes() == file.read_bytes()


def test_one_image_of_two_splits(pictures, tmp_path):
    file, size_wh = first(pictures)
    same = {"train": one_image(file, size_wh), "val": one_image(file, size_wh)}
    write_dataset(same, tmp_path / "out", "voc")
    assert [path.name for path in (tmp_path / "out/JPEGImages").iterdir()] == ["x.png"]
    other = {**same, "val": one_image(file, size_wh, [AnnotatedObject((0, 0, 5, 5), 0)])}
    with pytest.raises(DatasetError, match="several splits with different objects"):
        write_dataset(other, tmp_path / "other", "voc")
    write_dataset(other, tmp_path / "other", "yolo")


def test_one_image_under_two_ids_keeps_both_lists_of_objects(pictures, tmp_path):
    file, size_wh = first(pictures)
    twice = Dataset(
        ("cat", "dog"),
        [
            *one_image(file, size_wh, [AnnotatedObject((0, 0, 5, 5), 0)], image_id=1).records,
            *one_image(file, size_wh, [AnnotatedObject((0, 0, 9, 9), 1)], image_id=2).records,
        ],
    )
    write_dataset({"train": twice}, tmp_path / "out", "voc")
    assert_equal(read_back(tmp_path / "out", "voc", twice.class_names), twice.records, 0)


def interrupt(_: int) -> None:
    raise KeyboardInterrupt


def test_nothing_is_left_of_what_fails(pictures, tmp_path, monkeypatch):
    (file, size_wh), (other, _) = list(pictures.items())[:2]
    records = [*one_image(file, size_wh).records, *one_image(other, (9, 9), image_id=8).records]
    with pytest.raises(DatasetError, match="is 7x501 as displayed, but its annotation says 9x9"):
        write_dataset({"train": Dataset(("cat",), records)}, tmp_path / "out", "voc")

    def fill(_: object, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", "somewhere")

    monkeypatch.setattr(shutil, "copyfile", fill)
    with pytest.raises(OSError, match="No space") as raised:
        write_dataset({"train": one_image(file, size_wh)}, tmp_path / "out", "coco")
    assert raised.value.filename == str(tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        write_dataset({"train": one_image(file, size_wh)}, tmp_path / "out", "yolo", images="none", report=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_in_use_is_not_written(tmp_path):
    (tmp_path / "used").mkdir()
    (tmp_path / "used/mine.txt").write_text("")
    (tmp_path / "file").write_text("")
    for name in ("used", "file"):
        with pytest.raises(DatasetError, match="not an empty folder"), new_folder(tmp_path / name):
            pytest.fail("nothing may be written")
    (tmp_path / "empty").mkdir()
    with new_folder(tmp_path / "empty") as made:
        (made / "a.txt").write_text("a")
    assert (tmp_path / "empty/a.txt").read_text() == "a" and len(list(tmp_path.iterdir())) == 3


def test_images_without_a_suffix_only_fit_into_coco(pictures, tmp_path):
    file, size_wh = first(pictures)
    nameless = tmp_path / "picture"
    nameless.write_bytes(file.read_bytes())
    write_dataset({"train": one_image(nameless, size_wh)}, tmp_path / "coco", "coco")
    for format in ("yolo", "voc"):
        with pytest.raises(DatasetError, match="no suffix that tells its kind"):
            write_dataset({"train": one_image(nameless, size_wh)}, tmp_path / format, format)


def test_names_beside_each_other():
    files = [Path(name) for name in ("/a/x.jpg", "/b/x.png", "/b/X.jpg", "/c/.hidden.jpg", "/c/two\nlines\\.jpg", "/c/ y .jpg")]
    assert flat_names(files) == ["x.jpg", "b_x.png", "X_2.jpg", "_hidden.jpg", "two_lines_.jpg", "y.jpg"]
    frames = [Path(f"/film{number}/img/0.jpg") for number in (1, 2, 3)]
    assert flat_names(frames) == ["0.jpg", "img_0.jpg", "film3_img_0.jpg"]
    assert flat_names([Path("/a/x.jpg")] * 3) == ["x.jpg", "a_x.jpg", "x_2.jpg"] and flat_names([Path("/a/ .jpg")]) == ["_.jpg"]
    assert relative_names(files[:3]) == ["a/x.jpg", "b/x.png", "b/X_2.jpg"]
    assert relative_names(files[1:2]) == ["x.png"] and relative_names([]) == []
    assert relative_names([Path("/p/ä.jpg"), Path("/p/a\u0308.jpg")]) == ["ä.jpg", "a\u0308_2.jpg"]


@given(st.lists(st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=300), min_size=1, max_size=6))
def test_any_names_become_names_that_can_be_written(stems):
    files = [Path("/data") / f"{stem}.jpg" for stem in stems]
    for names in (flat_names(files), relative_names(files)):
        assert len({name.casefold() for name in names}) == len(files)
        for name in names:
            assert name.isprintable() or " " in name or not name.isascii()
            assert len(name.encode()) <= 240 and not name.startswith(".") and "\n" not in name and name.endswith(".jpg")
