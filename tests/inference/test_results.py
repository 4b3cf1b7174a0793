"""Detections in a user's hands: shown, drawn, written in the formats of others, kept and sent."""

from __future__ import annotations

import pickle
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from detection import evaluate
from detection.data.catalog import Dataset
from detection.data.images import read_image
from detection.errors import ConfigError, DatasetError
from detection.inference.evaluate import evaluate_detections
from detection.inference.painting import found_objects
from detection.inference.results import ImageDetections
from detection.masks import Masks
from detection.structures import Record
from detection.visualize import class_color
from tests.media_files import write_picture
from tests.small_detector import detector

NAMES = ("cat", "<b>狗</b>\x1b[31m", "كلب")


def found(num: int = 3, source: Path | None = None) -> ImageDetections:
    boxes = torch.tensor([[6.0, 4, 36, 24], [0, 0, 60, 40], [12.5, 10, 20, 20]])[torch.arange(num) % 3]
    return ImageDetections(boxes, torch.linspace(0.9, 0.3, num), torch.arange(num) % 3, NAMES, (40, 60), source)


def test_selections_and_devices_keep_what_is_known_of_the_image() -> None:
    for kept in (found()[found().scores > 0.5], found()[:2], found().to("cpu")[:2]):
        assert isinstance(kept, ImageDetections) and kept.names == ["cat", NAMES[1]]
        assert kept.size_hw == (40, 60) and kept.class_names == NAMES


def with_masks() -> ImageDetections:
    """Two detections with masks: the left half of each box."""
    each = found(2)
    bitmaps = torch.zeros(2, 40, 60, dtype=torch.bool)
    bitmaps[0, 4:24, 6:21], bitmaps[1, :, :30] = True, True
    return replace(each, masks=Masks.from_bitmaps(bitmaps))


def test_masks_are_drawn_written_and_kept() -> None:
    each, picture = with_masks(), np.zeros((40, 60, 3), np.uint8)
    assert each.masks is not None
    assert (each.plot(picture)[20:38, 3:5] > 0).any() and not (found(2).plot(picture)[20:38, 3:5] > 0).any()
    entries = each.to_coco(7)
    assert [entry["segmentation"] for entry in entries] == each.masks.as_json()
    assert "segmentation" not in found(2).to_coco(7)[0]
    assert each[each.scores > 0.5].masks == each.masks[:1] and each.to("cpu").masks == each.masks
    assert [one.as_json().get("segmentation") for one in found_objects(each, NAMES)] == each.masks.as_json()
    assert "segmentation" not in found_objects(found(2), NAMES)[0].as_json()
    assert pickle.loads(pickle.dumps(each)).masks == each.masks


def test_print_shows_a_table_of_any_script_and_obeys_nothing() -> None:
    text = str(found(source=Path("a\x1b.jpg")))
    first, heading, cat, dog, _ = text.splitlines()
    assert first == r"a\x1b.jpg (60 x 40 pixels): 3 detections"
    assert heading.split() == ["class", "score", "x1", "y1", "x2", "y2"]
    assert cat.split() == ["cat", "0.900", "6.0", "4.0", "36.0", "24.0"]
    assert "狗" in dog and "\x1b" not in text and len(cat) == len(dog) + 1  # 狗 takes two columns
    assert str(found(0)) == "an image (60 x 40 pixels): 0 detections" and repr(found(0)).endswith("60 x 40 pixels)>")
    long = str(found(1000)).splitlines()
    assert len(long) == 23 and long[-1] == "... and 980 more"
    assert repr([found()]).count("\n") == 0 and "1 cat" in repr(found())


def test_a_notebook_shows_names_as_text() -> None:
    page = found()._repr_html_()
    assert "&lt;b&gt;狗" in page and "<b>" not in page and "\x1b" not in page and page.count("<tr>") == 4


def test_plot_draws_the_source_or_the_picture_that_is_given(tmp_path: Path) -> None:
    file = write_picture(tmp_path / "a.png")
    drawn = found(source=file).plot()
    assert drawn.shape == (40, 60, 3) and tuple(drawn[14, 6]) == class_color(0)
    np.testing.assert_array_equal(found().plot(read_image(file)), drawn)
    found(source=file).save(tmp_path / "new/b.png")
    np.testing.assert_array_equal(read_image(tmp_path / "new/b.png"), drawn)
    with pytest.raises(DatasetError, match=r"plot\(image\)"):
        found().plot()
    with pytest.raises(DatasetError, match="30 x 20 pixels, the detections are of 60 x 40"):
        found().plot(np.zeros((20, 30, 3), np.uint8))
    file.unlink()
    with pytest.raises(DatasetError, match="No such file"):
        found(source=file).plot()


def test_coco_and_yolo() -> None:
    first = found().to_coco(7)[0]
    assert first == {"image_id": 7, "category_id": 0, "bbox": [6.0, 4.0, 30.0, 20.0], "score": pytest.approx(0.9)}
    assert found().to_coco(7, {name: 10 + label for label, name in enumerate(NAMES)})[2]["category_id"] == 12
    with pytest.raises(DatasetError, match="no category"):
        found().to_coco(7, {"cat": 1})
    # Centre (21, 14) of 60 x 40, size 30 x 20.
    assert found().to_yolo()[0] == "0 0.350000 0.350000 0.500000 0.500000"
    assert found().to_yolo(scores=True)[0] == "0 0.350000 0.350000 0.500000 0.500000 0.9000"
    assert found(0).to_coco(7) == [] and found(0).to_yolo() == []


@pytest.mark.parametrize("num", [0, 3])
def test_supervision_takes_them(num: int) -> None:
    supervision = pytest.importorskip("supervision")
    theirs = found(num).to_supervision()
    assert isinstance(theirs, supervision.Detections) and len(theirs) == num
    np.testing.assert_array_equal(theirs.xyxy, found(num).boxes.numpy())
    assert theirs.class_id.tolist() == list(range(num)) and theirs["class_name"].tolist() == list(NAMES[:num])
    assert len(theirs[theirs.confidence > 0.5]) == min(num, 2)


def test_without_supervision_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ConfigError, match=r"pip install 'resdet\[supervision\]'"):
        found().to_supervision()


def test_detections_and_detectors_are_pickled(tmp_path: Path) -> None:
    model, picture = detector().eval(), write_picture(tmp_path / "a.png")
    expected = model.predict(picture)[0]
    other = pickle.loads(pickle.dumps(model)).predict(picture)[0]
    for each in (other, pickle.loads(pickle.dumps(expected))):
        assert torch.equal(each.boxes, expected.boxes) and each.source == picture and each.names == expected.names


def test_a_detector_evaluates_itself_and_the_result_can_be_read(tmp_path: Path) -> None:
    model, picture = detector().eval(), write_picture(tmp_path / "a.png")
    boxes = torch.tensor([[6.0, 4, 36, 24]])
    no, label = torch.tensor([False]), torch.tensor([0])
    record = Record("a", picture, (40, 60), boxes, label, no, no, torch.tensor([600.0]))
    data = Dataset(model.class_names, [record])
    assert model.evaluate(data).metrics == evaluate(model, data, workers=0).metrics
    perfect = evaluate_detections(data, {"a": ImageDetections(boxes, torch.ones(1), label, ("cat", "dog"), (40, 60))})
    lines = str(perfect).splitlines()
    assert lines[0].split() == ["COCO", "AP@[.5,.95]", "1.0000"] and lines[-1].split() == ["cat", "1.0000", "1.0000", "1.0000"]
    assert next(line for line in lines if "small" in line).split()[-1] in ("1.0000", "-")
    assert "boxes" not in repr(perfect)
