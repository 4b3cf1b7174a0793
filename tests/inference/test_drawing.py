"""Drawing detections from a program: pictures and videos, plain data, what cannot be read."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from detection.data.frames import FrameReader, TimedFrame
from detection.data.media import MediaInput, find_all_inputs
from detection.errors import DatasetError
from detection.inference.drawing import DrawnImage, DrawnVideo, draw_media
from detection.inference.painting import found_objects
from detection.inference.results import ImageDetections
from detection.inference.tracking import predict_frames
from detection.structures import Detections
from tests.media_files import write_picture, write_video
from tests.small_detector import detector, noise


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


@pytest.mark.parametrize(("kind", "sizes"), [("video", [3, 3, 1]), ("camera", [1] * 7)])
def test_frames_that_run_together_give_what_each_alone_gives(
    kind: Literal["video", "camera"], sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = detector(test={"batch_size": 3, "max_detections": 5}, train={"precision": "fp32"}).eval()
    frames = [TimedFrame(number, noise(40, 60).permute(1, 2, 0).numpy(), number) for number in range(7)]
    expected = [model.predict([frame.pixels])[0] for frame in frames]
    predict, seen = model.predict, list[int]()

    def counted(images: Sequence[np.ndarray]) -> list[ImageDetections]:
        seen.append(len(images))
        return predict(images)

    monkeypatch.setattr(model, "predict", counted)
    found = list(predict_frames(model, iter(frames), MediaInput(kind, Path("film.mp4"))))
    assert seen == sizes and [frame.seconds for frame, _ in found] == list(range(7))
    for (_, ours), theirs in zip(found, expected, strict=True):
        assert len(theirs) and ours.labels.tolist() == theirs.labels.tolist()
        torch.testing.assert_close(ours.boxes, theirs.boxes, rtol=0, atol=1e-3)
        torch.testing.assert_close(ours.scores, theirs.scores, rtol=0, atol=1e-5)


def test_what_comes_before_a_damaged_frame_is_found() -> None:
    def frames() -> Iterator[TimedFrame]:
        for number in range(4):
            yield TimedFrame(number, noise(40, 60).permute(1, 2, 0).numpy(), number)
        raise DatasetError("frame 5 is damaged")

    model, found = detector(test={"batch_size": 3}).eval(), list[float]()
    with pytest.raises(DatasetError, match="frame 5"):
        for frame, _ in predict_frames(model, frames(), MediaInput("video", Path("film.mp4"))):
            found.append(frame.seconds)
    assert found == [0, 1, 2, 3]


def test_detections_as_plain_values() -> None:
    detections = Detections(torch.tensor([[1.25, 2, 30, 20.123]]), torch.tensor([0.87654]), torch.tensor([1]))
    (cat,) = found_objects(detections, ["dog", "cat"])
    assert cat.as_json() == {"class": "cat", "score": 0.8765, "box": [1.25, 2.0, 30.0, 20.12]}
    assert found_objects(Detections.empty(), ["dog", "cat"]) == []
