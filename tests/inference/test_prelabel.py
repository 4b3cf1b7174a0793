"""Labels of unlabelled images: each format is read back with the boxes that were found, and nothing is lost or replaced."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from detection.config import CocoSource, Config, VocSource
from detection.data.catalog import load_dataset
from detection.data.folder import config_of_folder
from detection.data.images import read_image
from detection.data.settle import settle_config
from detection.errors import DatasetError
from detection.inference.images import ImageInputs, each_image
from detection.inference.predictor import ReportError
from detection.inference.prelabel import LabelFormat, prelabel
from detection.inference.results import ImageDetections
from detection.structures import Record
from tests.media_files import write_picture
from tests.small_detector import detector

NAMES = ("in/a.png", "in/b.png", "in/deep/a.png", "in/deep/ä b.png")
_RNG = np.random.default_rng(0)
PIXELS = [_RNG.integers(0, 256, (40 + number % 2, 60, 3), dtype=np.uint8) for number in range(len(NAMES))]


class Finder:
    """Finds three objects in each picture, in places that depend on its pixels; one of them is too thin for VOC."""

    class_names = ("cat", "dog")
    config = Config.model_validate({"train": {"precision": "fp32"}, "data": {"classes": ["cat", "dog"]}})
    device = torch.device("cpu")
    scores = torch.tensor([0.87654, 0.75, 0.5])

    def predict_each(self, images: ImageInputs, on_error: ReportError | None = None) -> Iterator[ImageDetections]:
        for image in each_image(images, on_error=on_error):
            height, width = image.pixels.shape[:2]
            left = float(image.pixels[0, 0, 0]) / 32
            boxes = torch.tensor([[left, 2, 30, 20.123], [0, 0, width, height], [5, 5, 5.5, 30]])
            labels = torch.tensor([1, 0, 1])
            yield ImageDetections(boxes, self.scores, labels, self.class_names, (height, width), image.source)

    def predict(self, images: ImageInputs) -> list[ImageDetections]:
        return list(self.predict_each(images))


@pytest.fixture
def model() -> Finder:
    return Finder()


@pytest.fixture
def found(model: Finder) -> list[ImageDetections]:
    """What there is to find in the pictures."""
    return model.predict(PIXELS)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two folders of pictures of two sizes; two names are the same."""
    for name, pixels in zip(NAMES, PIXELS, strict=True):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / name)
    return [tmp_path / name for name in NAMES]


def assert_found(records: Sequence[Record], found: Sequence[ImageDetections], atol: float, min_side: float = 0.0) -> None:
    """Each record has the detections of the picture that its file holds."""
    assert len(records) == len(found)
    for record in records:
        pixels = read_image(record.file)
        expected = next(each for each, other in zip(found, PIXELS, strict=True) if np.array_equal(pixels, other))
        expected = expected[((expected.boxes[:, 2:] - expected.boxes[:, :2]) > min_side).all(1)]
        assert len(expected) and record.labels.tolist() == expected.labels.tolist()
        torch.testing.assert_close(record.boxes, expected.boxes, rtol=0, atol=atol)


def test_coco_is_read_back(model, found, files, tmp_path):
    done = prelabel(model, files, tmp_path / "out", "coco", images="link")
    assert done.num_images == 4 and done.num_objects.total() == sum(map(len, found))
    source = CocoSource(format="coco", root=tmp_path / "out", annotations=Path("annotations.json"), images=Path("images"))
    assert_found(load_dataset([source], model.class_names).records, found, 0.002)
    content = json.loads((tmp_path / "out/annotations.json").read_text())
    assert [each["file_name"] for each in content["images"]] == ["a.png", "b.png", "deep/a.png", "deep/ä b.png"]
    scores = [each["score"] for each in content["annotations"] if each["image_id"] == 1]
    assert scores == [round(score, 4) for score in found[0].scores.tolist()]


def test_coco_of_images_where_they_are_is_read_back(model, found, files, tmp_path):
    done = prelabel(model, files, tmp_path / "out", "coco")
    assert done.image_root == tmp_path / "in"
    source = CocoSource(format="coco", root=tmp_path, annotations=Path("out/annotations.json"), images=Path("in"))
    assert_found(load_dataset([source], model.class_names).records, found, 0.002)


def test_voc_is_read_back(model, found, files, tmp_path):
    prelabel(model, files, tmp_path / "out", "voc", images="copy")
    source = VocSource(format="voc", root=tmp_path / "out", split="default")
    assert_found(load_dataset([source], model.class_names).records, found, 0.001, min_side=1)
    assert (tmp_path / "out/ImageSets/Main/default.txt").read_text() == "a\nb\ndeep_a\nä b\n"


@pytest.mark.parametrize("format", ["coco", "yolo", "voc"])
def test_what_was_written_is_recognised(format, model, found, files, tmp_path):
    prelabel(model, files, tmp_path / "out", format, images="link")
    data = settle_config(config_of_folder(tmp_path / "out")).data
    records = load_dataset(data.train, model.class_names).records
    assert_found(records, found, 0.002, min_side=1 if format == "voc" else 0)


def test_yolo_has_the_layout_of_labelling_programs(model, found, files, tmp_path):
    prelabel(model, files, tmp_path / "out", "yolo", images="link")
    written = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file())
    stems = ["a", "b", "deep/a", "deep/ä b"]
    images, labels = [f"images/{stem}.png" for stem in stems], [f"labels/{stem}.txt" for stem in stems]
    assert written == sorted([*images, *labels, "classes.txt", "labels/classes.txt"])
    assert (tmp_path / "out/classes.txt").read_text() == "cat\ndog\n"
    lines = (tmp_path / "out/labels/a.txt").read_text().splitlines()
    assert len(lines) == len(found[0])
    label, *values = lines[0].split()
    cx, cy, width, height = map(float, values)
    box = torch.tensor([(cx - width / 2) * 60, (cy - height / 2) * 40, (cx + width / 2) * 60, (cy + height / 2) * 40])
    torch.testing.assert_close(box, found[0].boxes[0], rtol=0, atol=0.002)
    assert int(label) == found[0].labels[0]


def test_label_studio(model, found, files, tmp_path):
    done = prelabel(model, files, tmp_path / "out", "labelstudio", model_version="best.pt")
    tasks = json.loads((tmp_path / "out/tasks.json").read_text())
    assert [task["data"]["image"] for task in tasks] == [
        "/data/local-files/?d=in/a.png",
        "/data/local-files/?d=in/b.png",
        "/data/local-files/?d=in/deep/a.png",
        "/data/local-files/?d=in/deep/%C3%A4%20b.png",
    ]
    assert done.image_root.parent / "in/deep/ä b.png" == files[-1]
    (prediction,) = tasks[0]["predictions"]
    assert prediction["model_version"] == "best.pt"
    assert prediction["score"] == pytest.approx(float(found[0].scores.mean()), abs=1e-3)
    first = prediction["result"][0]
    x1, y1, x2, y2 = found[0].boxes[0].tolist()
    assert (first["original_width"], first["original_height"], first["type"]) == (60, 40, "rectanglelabels")
    value = first["value"]
    assert value["rectanglelabels"] == found[0].names[:1] and first["score"] == round(float(found[0].scores[0]), 4)
    percent = [x1 / 0.6, y1 / 0.4, (x2 - x1) / 0.6, (y2 - y1) / 0.4]
    assert [value[key] for key in ("x", "y", "width", "height")] == pytest.approx(percent, abs=0.003)
    config = ElementTree.parse(tmp_path / "out/config.xml").getroot()
    assert [label.get("value") for label in config.iter("Label")] == ["cat", "dog"]
    assert (config[0].get("name"), config[1].get("name")) == (first["to_name"], first["from_name"])


@pytest.mark.parametrize("format", ["coco", "yolo", "voc", "labelstudio"])
def test_a_bad_image_does_not_end_the_others(format: LabelFormat, model, files, tmp_path):
    files[1].write_bytes(b"no picture")
    errors: list[DatasetError] = []
    done = prelabel(model, files, tmp_path / "out", format, on_error=errors.append)
    assert done.num_images == 3 and [str(files[1]) in str(error) for error in errors] == [True]
    with pytest.raises(DatasetError, match=r"b\.png"):
        prelabel(model, files, tmp_path / "other", format)


@pytest.mark.parametrize("format", ["coco", "yolo", "voc", "labelstudio"])
def test_an_interrupted_call_leaves_what_is_done(format: LabelFormat, model, files, tmp_path):
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prelabel(model, files, tmp_path / "out", format, on_labelled=interrupt)
    out = tmp_path / "out"
    if format == "coco":
        assert len(json.loads((out / "annotations.json").read_text())["images"]) == 1
    elif format == "labelstudio":
        assert len(json.loads((out / "tasks.json").read_text())) == 1
    else:
        done = prelabel(model, files, out, format)
        assert (done.num_images, done.num_kept) == (3, 1)
    if format == "voc":
        assert (out / "ImageSets/Main/default.txt").read_text() == "a\nb\ndeep_a\nä b\n"


def test_labels_that_are_there_are_not_replaced(model, files, tmp_path):
    out = tmp_path / "out"
    for format in ("coco", "labelstudio"):
        prelabel(model, files, out, format)
        before = {path: path.read_bytes() for path in out.iterdir()}
        with pytest.raises(DatasetError, match="labels are not replaced"):
            prelabel(model, files, out, format)
        assert {path: path.read_bytes() for path in out.iterdir()} == before
    (out / "labels").mkdir()
    (out / "labels/a.txt").write_text("corrected by hand")
    assert prelabel(model, files, out, "yolo").num_kept == 1
    assert (out / "labels/a.txt").read_text() == "corrected by hand"
    (out / "classes.txt").write_text("other\n")
    with pytest.raises(DatasetError, match="lists other classes"):
        prelabel(model, files, out, "yolo")


def test_another_image_of_the_name_is_not_replaced(model, files, tmp_path):
    other = tmp_path / "out/images/b.png"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"another picture")
    errors: list[DatasetError] = []
    done = prelabel(model, files, tmp_path / "out", "yolo", images="copy", on_error=errors.append)
    assert done.num_images == 3 and "is another file" in str(errors[0]) and other.read_bytes() == b"another picture"
    assert not (tmp_path / "out/labels/b.txt").exists()


def test_two_images_of_one_stem(model, tmp_path):
    files = [write_picture(tmp_path / "in/a.png"), write_picture(tmp_path / "in/a.jpg")]
    with pytest.raises(DatasetError, match="would be called a_2"):
        prelabel(model, files, tmp_path / "out", "yolo")
    assert not (tmp_path / "out").exists()
    prelabel(model, files, tmp_path / "out", "yolo", images="link")
    assert {path.name for path in (tmp_path / "out/images").iterdir()} == {"a.png", "a_2.jpg"}


def test_one_file_by_several_paths_is_labelled_once(model, files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "in")
    done = prelabel(model, [files[0], Path("a.png"), Path("deep/../a.png")], tmp_path / "out", "yolo")
    assert done.num_images == 1 and (tmp_path / "out/labels/a.txt").is_file()


def test_images_without_objects_are_labelled_too(files, tmp_path):
    blind = detector(test={"score_threshold": 1.0}).eval()
    for format in ("coco", "yolo", "voc", "labelstudio"):
        assert prelabel(blind, files[:1], tmp_path / "out", format).num_objects.total() == 0
    assert (tmp_path / "out/labels/a.txt").read_text() == ""
    assert json.loads((tmp_path / "out/tasks.json").read_text())[0]["predictions"][0]["result"] == []
    assert ElementTree.parse(tmp_path / "out/Annotations/a.xml").find("object") is None


def test_a_detector_labels(files, tmp_path):
    torch.manual_seed(0)
    real = detector(train={"precision": "fp32"}).eval()
    prelabel(real, files[:2], tmp_path / "out", "coco", images="link")
    source = CocoSource(format="coco", root=tmp_path / "out", annotations=Path("annotations.json"), images=Path("images"))
    assert_found(load_dataset([source], real.class_names).records, real.predict(PIXELS[:2]), 0.002)
