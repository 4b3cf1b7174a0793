"""Drawing detections from a program: pictures and videos, plain data, what cannot be read."""

import json
from pathlib import Path

import pytest
import torch

from detection.data.frames import FrameReader
from detection.data.media import find_all_inputs
from detection.errors import DatasetError
from detection.inference.drawing import DrawnImage, DrawnVideo, draw_media
from detection.inference.painting import found_objects
from detection.structures import Detections
from tests.media_files import write_picture, write_video
from tests.small_detector import detector


def test_pictures_and_videos_of_a_folder_are_drawn(tmp_path: Path) -> None:
    picture, film = write_picture(tmp_path / "in/a.png"), write_video(tmp_path / "in/film.mp4", num_frames=3)
    inputs, _ = find_all_inputs([str(tmp_path / "in")])
    drawn: list[DrawnImage | DrawnVideo] = []
    results = draw_media(detector().eval(), inputs, tmp_path / "out", max_frames=2, on_drawn=drawn.append)
    assert results == drawn
    image, video = results
    assert isinstance(image, DrawnImage) and image.size_hw == (40, 60) and image.drawing.is_file()
    assert isinstance(video, DrawnVideo) and video.num_frames == 2 and video.problem is None
    entries = json.loads((tmp_path / "out/detections.json").read_text())
    assert entries == [image.as_json()] and entries[0]["file"] == str(picture)
    assert len((tmp_path / "out/film.jsonl").read_text().splitlines()) == 2 and film.is_file()


def test_what_cannot_be_read_is_raised_or_reported(tmp_path: Path) -> None:
    good, bad = write_picture(tmp_path / "a.jpg"), write_picture(tmp_path / "b.jpg")
    bad.write_bytes(b"")
    inputs, _ = find_all_inputs([str(bad), str(good)])
    with pytest.raises(DatasetError, match=r"b\.jpg"):
        draw_media(detector().eval(), inputs, tmp_path / "out")
    assert json.loads((tmp_path / "out/detections.json").read_text()) == []
    errors: list[DatasetError] = []
    results = draw_media(detector().eval(), inputs, tmp_path / "out", on_error=errors.append)
    assert len(errors) == len(results) == 1


def test_a_video_that_breaks_off_is_drawn_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FrameReader, "missing_frames", lambda reader: f"{reader.source} is cut short")
    inputs, _ = find_all_inputs([str(write_video(tmp_path / "film.mp4", num_frames=2))])
    errors: list[DatasetError] = []
    (video,) = draw_media(detector().eval(), inputs, tmp_path / "out", on_error=errors.append)
    assert isinstance(video, DrawnVideo) and video.num_frames == 2
    assert [str(error) for error in errors] == [f"{tmp_path / 'film.mp4'} is cut short"]


def test_detections_as_plain_values() -> None:
    detections = Detections(torch.tensor([[1.25, 2, 30, 20.123]]), torch.tensor([0.87654]), torch.tensor([1]))
    (cat,) = found_objects(detections, ["dog", "cat"])
    assert cat.as_json() == {"class": "cat", "score": 0.8765, "box": [1.25, 2.0, 30.0, 20.12]}
    assert found_objects(Detections.empty(), ["dog", "cat"]) == []
