"""Objects keep their numbers through films; the real tracker, and a detector that sees coloured squares."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from detection.config import Config
from detection.data.frames import FrameReader
from detection.data.media import MediaInput, find_films
from detection.errors import ConfigError, DatasetError
from detection.inference.drawing import DrawnVideo, draw_media
from detection.inference.painting import Tracking
from detection.inference.results import ImageDetections
from detection.inference.tracking import ObjectTracker, track
from detection.structures import Detections
from detection.visualize import class_color, save_image

pytest.importorskip("norfair", reason="tracking needs the extra 'track'")

SIZE_HW = (90, 160)
NUM_FRAMES = 24


class SquareDetector:
    """Finds the squares of the film: a bright channel is a class."""

    class_names = ("red", "green", "blue")
    config = Config()
    device = torch.device("cpu")

    def predict(self, images) -> list[ImageDetections]:
        return [self._find(np.asarray(image)) for image in images]

    def predict_each(self, images, on_error=None) -> Iterator[ImageDetections]:
        return iter(self.predict(images))

    def _find(self, image: np.ndarray) -> ImageDetections:
        boxes, labels = [], []
        for label in range(3):
            ys, xs = np.nonzero((image[:, :, label] > 150) & (image.sum(axis=2) < 350))
            if len(xs) > 20:
                boxes.append([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
                labels.append(label)
        tensor = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        scores = torch.full((len(boxes),), 0.9)
        return ImageDetections(tensor, scores, torch.tensor(labels, dtype=torch.long), self.class_names, image.shape[:2])


def frame(index: int, hidden: bool = False) -> np.ndarray:
    """Red moves to the right, green to the left below it, blue appears in the eighth frame."""
    image = np.full((*SIZE_HW, 3), 30, np.uint8)
    squares = [(10 + 4 * index, 10, 0), (130 - 4 * index, 50, 1)] + ([(70, 5 + 2 * index, 2)] if index >= 8 else [])
    for x, y, channel in [] if hidden else squares:
        image[y : y + 20, x : x + 20, channel] = 220
    return image


@pytest.fixture(scope="module")
def frames(module_path: Path) -> Path:
    for index in range(NUM_FRAMES):
        save_image(module_path / f"frames/{index:03}.png", frame(index))
    return module_path / "frames"


def numbers_by_class(lines: list[dict]) -> dict[str, list[int | None]]:
    found: dict[str, list[int | None]] = {}
    for line in lines:
        for each in line["detections"]:
            found.setdefault(each["class"], []).append(each.get("track"))
    return found


def test_numbers_stay_through_a_film(frames: Path) -> None:
    (source,) = find_films(str(frames))
    tracked = list(track(SquareDetector(), source))
    assert [each.index for each in tracked] == list(range(NUM_FRAMES)) and tracked[-1].seconds == pytest.approx(23 / 25)
    by_class: dict[str, list[int | None]] = {"red": [], "green": [], "blue": []}
    for each in tracked:
        for name, number in zip(each.detections.names, each.tracks, strict=True):
            by_class[name].append(number)
    # Numbers are given from the second frame of an object on.
    for name, number in (("red", 1), ("green", 2), ("blue", 3)):
        assert by_class[name] == [None] + [number] * (len(by_class[name]) - 1), name
    again = list(track(SquareDetector(), source))
    assert [each.tracks for each in again] == [each.tracks for each in tracked]


@pytest.mark.parametrize(("num_hidden", "same"), [(3, True), (20, False)])
def test_an_object_that_is_hidden_for_long_gets_a_new_number(num_hidden: int, same: bool) -> None:
    tracker = ObjectTracker(frames_per_second=10.0, keep_seconds=0.8)
    box = Detections(torch.tensor([[10.0, 10, 40, 40]]), torch.tensor([0.9]), torch.tensor([0]))
    before = [tracker.update(box) for _ in range(12)][-1]
    for _ in range(num_hidden):
        assert tracker.update(Detections.empty()) == []
    after = [tracker.update(box) for _ in range(3)][-1]
    assert before == [1] and (after == before) is same


def test_objects_of_two_classes_at_one_place_are_two() -> None:
    tracker = ObjectTracker(25.0)
    two = Detections(torch.tensor([[10.0, 10, 40, 40]] * 2), torch.tensor([0.9, 0.8]), torch.tensor([0, 1]))
    assert [tracker.update(two) for _ in range(3)][-1] == [1, 2]
    assert tracker.update(Detections(two.boxes, two.scores, two.labels.flip(0))) == [2, 1]


def test_a_film_is_drawn_with_numbers_colours_and_trails(frames: Path, tmp_path: Path) -> None:
    source = MediaInput("frames", frames)
    with_trails = Tracking(trail_seconds=0.4, folder_rate=10.0)
    (film,) = draw_media(SquareDetector(), [source], tmp_path / "a", tracking=with_trails)
    assert isinstance(film, DrawnVideo) and film.num_tracks == 3 and "3 objects followed" in str(film)
    lines = [json.loads(line) for line in (tmp_path / "a/frames.jsonl").read_text().splitlines()]
    assert len(lines) == NUM_FRAMES and lines[10]["seconds"] == 1.0
    assert numbers_by_class(lines)["blue"] == [None] + [3] * 15
    drawn = list(FrameReader(MediaInput("video", film.drawing)))
    assert len(drawn) == NUM_FRAMES
    # Frame 12: red is 58..78 wide from y = 10; its way leads to the left of it.
    assert class_color(1)[2] > 200
    for pixel in (drawn[12][28, 58], drawn[12][20, 54]):  # thin lines, whose colours the codec blurs
        assert int(pixel[2]) > int(pixel[0]) + 40
    draw_media(SquareDetector(), [source], tmp_path / "b", tracking=with_trails)
    assert (tmp_path / "a/frames.jsonl").read_bytes() == (tmp_path / "b/frames.jsonl").read_bytes()


def test_a_frame_that_cannot_be_read_is_left_out_and_told(frames: Path, tmp_path: Path) -> None:
    for index in range(4):
        (tmp_path / f"in/{index}.png").parent.mkdir(exist_ok=True)
        (tmp_path / f"in/{index}.png").write_bytes((frames / f"{index:03}.png").read_bytes() if index != 2 else b"")
    errors: list[DatasetError] = []
    found = find_films(str(tmp_path / "in"))
    (film,) = draw_media(SquareDetector(), found, tmp_path / "out", tracking=Tracking(), on_error=errors.append)
    assert isinstance(film, DrawnVideo) and film.num_frames == 3
    assert "1 of 4 images" in str(errors[0]) and "2.png" in str(errors[0])


def test_what_is_no_film(frames: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is no film"):
        find_films(str(frames / "000.png"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/a.png").write_bytes(b"")
    for name in ("empty", "bad"):
        with pytest.raises(DatasetError, match="holds no images|is not an image"):
            list(track(SquareDetector(), MediaInput("frames", tmp_path / name)))


def test_without_the_package_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "norfair", None)
    with pytest.raises(ConfigError, match=r"pip install 'resdet\[track\]'"):
        ObjectTracker(25.0)
