"""Animations, pages and videos, frame by frame; what is written as a video."""

from __future__ import annotations

import importlib.util
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from detection.data import images, video_writer
from detection.data.frames import AnimationReader, FrameReader
from detection.data.images import each_frame, frame_kind, read_image
from detection.data.media import MediaInput, drawing_paths, find_inputs, look_into, page_path
from detection.data.video_writer import FrameWriter
from detection.errors import DatasetError
from detection.inference.drawing import DrawnImage, DrawnVideo, draw_media
from tests.media_files import SHADES, write_frames, write_picture, write_video
from tests.small_detector import detector

ANIMATIONS = [
    "gif",
    "png",
    "webp",
    pytest.param("avif", marks=pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")),
]


def shades(frames) -> list[int]:
    return [int(pixels[24, 32, 0]) for pixels in frames]


@pytest.mark.parametrize("suffix", ANIMATIONS)
def test_frames_of_an_animation_come_with_their_times(suffix: str, tmp_path: Path) -> None:
    path = write_frames(tmp_path / f"a.{suffix}")
    source = look_into(find_inputs(str(path))[0])
    assert source.kind == "animation"
    reader = AnimationReader(source)
    frames = list(reader.timed_frames())
    assert shades(frame.pixels for frame in frames) == pytest.approx(SHADES, abs=6)
    assert [frame.seconds for frame in frames] == pytest.approx([0, 0.1, 0.15])
    assert reader.frames_per_second == 20 and reader.size_hw == (48, 64) and reader.promised_frames == 3
    assert reader.missing_frames() is None


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_an_animation_is_drawn_as_a_film_of_the_same_times(suffix: str, tmp_path: Path) -> None:
    source = MediaInput("image", write_frames(tmp_path / f"a.{suffix}"))
    quiet = detector(test={"score_threshold": 1.0}).eval()
    (film,) = draw_media(quiet, [source], tmp_path / "out")
    assert isinstance(film, DrawnVideo) and film.num_frames == 3
    # 20 frames per second: two of the first, one of the second, six of the third.
    drawn = shades(FrameReader(MediaInput("video", film.drawing)))
    assert drawn == pytest.approx([10, 10, 120] + [230] * 6, abs=12)
    lines = [json.loads(line) for line in (tmp_path / "out/a.jsonl").read_text().splitlines()]
    assert [line["seconds"] for line in lines] == [0.0, 0.1, 0.15]
    (film,) = draw_media(quiet, [source], tmp_path / "out", max_frames=2)
    assert isinstance(film, DrawnVideo) and film.num_frames == 2


def test_frames_that_are_shown_for_no_time_or_for_weeks(tmp_path: Path) -> None:
    assert [frame.seconds for frame in each_frame(write_frames(tmp_path / "a.gif", (0, 0, 0)))] == [0.1] * 3
    weeks = [frame.seconds for frame in each_frame(write_frames(tmp_path / "a.webp", (10, 2**24 - 1, 10)))]
    assert weeks == [0.01, 60.0, 0.01]


def test_the_pages_of_a_tiff_are_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, other = write_frames(tmp_path / "in.tif"), write_picture(tmp_path / "x" / "in_page2.jpg")
    inputs = [MediaInput("image", path), MediaInput("image", other)]
    results = draw_media(detector().eval(), inputs, tmp_path / "out")
    assert [result.drawing.name for result in results] == ["in_page1.jpg", "in_page2.jpg", "in_page3.jpg", "x_in_page2.jpg"]
    pages = [result for result in results if isinstance(result, DrawnImage)][:3]
    assert [page.page for page in pages] == [1, 2, 3] and ", page 2: " in str(pages[1])
    entries = json.loads((tmp_path / "out/detections.json").read_text())
    assert [entry.get("page") for entry in entries] == [1, 2, 3, None]
    monkeypatch.setattr("detection.inference.drawing.MOST_PAGES", 2)
    with pytest.raises(DatasetError, match="more than 2 pages"):
        draw_media(detector().eval(), inputs[:1], tmp_path / "out")


def test_drawings_of_pages_replace_no_input(tmp_path: Path) -> None:
    pages, taken = MediaInput("pages", tmp_path / "x/a.tif"), MediaInput("image", tmp_path / "a_page7.jpg")
    first, second = drawing_paths([pages, taken], tmp_path)
    assert (
        first.name == "x_a.jpg"
        and page_path(first, 7).name == "x_a_page7.jpg"
        and second.name == f"{tmp_path.name}_a_page7.jpg"
    )


@pytest.mark.parametrize("suffix", ["gif", "png", "tif"])
def test_an_animation_that_is_cut_short_is_drawn_as_far_and_told(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (3, 48, 64, 3), dtype=np.uint8)
    frames = [Image.fromarray(pixels) for pixels in noise]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    path.write_bytes(path.read_bytes()[: int(len(path.read_bytes()) * 0.6)])
    errors: list[DatasetError] = []
    draw_media(detector().eval(), [MediaInput("image", path)], tmp_path / "out", on_error=errors.append)
    assert len(errors) == 1 and f"a.{suffix}" in str(errors[0])


def test_one_picture_stays_one(tmp_path: Path) -> None:
    assert frame_kind(write_picture(tmp_path / "a.png")) == "image"
    (tmp_path / "b.gif").write_bytes(b"GIF89a")
    assert frame_kind(tmp_path / "b.gif") == "image" == frame_kind(tmp_path / "absent.gif") == frame_kind(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "c.mpo", "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    assert frame_kind(tmp_path / "c.mpo") == "image"


@pytest.mark.skipif(importlib.util.find_spec("pillow_heif") is None, reason="needs the extra 'heif'")
def test_heic_is_read_where_its_package_is(tmp_path: Path) -> None:
    from pillow_heif import from_pillow

    pixels = np.full((40, 60, 3), (200, 30, 30), np.uint8)
    from_pillow(Image.fromarray(pixels)).save(tmp_path / "a.heic")
    assert np.abs(read_image(tmp_path / "a.heic").astype(int) - pixels).max() < 12
    assert images.image_size(tmp_path / "a.heic") == (40, 60) and frame_kind(tmp_path / "a.heic") == "image"
    assert [each.path.name for each in find_inputs(str(tmp_path))] == ["a.heic"]
    (tmp_path / "a.heic").write_bytes((tmp_path / "a.heic").read_bytes()[:300])
    with pytest.raises(DatasetError, match="damaged or cut short"):
        read_image(tmp_path / "a.heic")


def test_without_its_package_heic_is_named_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_HAS_HEIF", False)
    with pytest.raises(DatasetError, match=r"HEIC.*pip install 'resdet\[heif\]'"):
        images.decode_image(b"\0\0\0\x18ftypheic" + b"\0" * 100, "a.heic")


def test_videos_are_what_browsers_play(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="needs the extra 'video'")
    writer = FrameWriter(tmp_path / "a.mp4", (47, 63), 29.97)
    for index in range(3):
        writer.write(np.full((47, 63, 3), SHADES[index], np.uint8), index / 29.97)
    writer.close()
    with av.open(str(tmp_path / "a.mp4")) as film:
        stream = film.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.pix_fmt == "yuv420p"
        assert (stream.width, stream.height, stream.frames) == (64, 48, 3)
        assert float(stream.average_rate) == pytest.approx(29.97, rel=1e-5)
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "it plays before all of it has come"


def test_without_its_package_videos_are_written_and_it_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for module in ("detection.data.video_writer", "detection.inference.drawing"):
        monkeypatch.setattr(f"{module}.has_h264", lambda: False)
    films = [MediaInput("video", write_video(tmp_path / name, num_frames=2)) for name in ("a.mp4", "b.mp4")]
    with caplog.at_level(logging.WARNING):
        draw_media(detector().eval(), films, tmp_path / "out")
    assert caplog.text.count("resdet[video]") == 1 and len(list(FrameReader(MediaInput("video", tmp_path / "out/a.mp4")))) == 2
    with pytest.raises(DatasetError, match="cannot write"):
        video_writer.FrameWriter(tmp_path / "absent/a.mp4", (48, 64), 10.0)
