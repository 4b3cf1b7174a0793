"""What `predict` takes: the same picture as a path, an address, Pillow's, an array or a tensor is the same picture."""

from __future__ import annotations

import io
import logging
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detection import Ensemble
from detection.data.images import load_encoded, pillow_pixels
from detection.data.media import find_all_inputs
from detection.data.urls import load_url
from detection.errors import ConfigError, DatasetError
from detection.inference import detector as detector_module
from detection.inference.images import ImageInput, InputImage, each_image
from detection.inference.stream import predict_files
from tests.file_server import Server
from tests.media_files import write_picture, write_video
from tests.small_detector import detector

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def pixels_of(images) -> list[np.ndarray]:
    return [each.pixels for each in each_image(images)]


def test_every_form_of_a_picture_is_the_same_picture(tmp_path: Path, server: Server) -> None:
    file, image = tmp_path / "a.png", Image.fromarray(PIXELS)
    file.write_bytes(encoded(image))
    server.files["a.png"] = file.read_bytes()
    tensor = torch.from_numpy(PIXELS).permute(2, 0, 1)
    url = f"{server.url}/a.png"
    forms: list[ImageInput] = [file, str(file), url, image, Image.open(file), PIXELS, tensor]
    for form in forms:
        (single,) = pixels_of(form)
        np.testing.assert_array_equal(single, PIXELS)
    for several in (PIXELS[None], tensor[None], tmp_path, f"{tmp_path}/*.png", iter([file])):
        (single,) = pixels_of(several)
        np.testing.assert_array_equal(single, PIXELS)
    assert [each.source for each in each_image(forms)] == [file, str(file), url, None, None, None, None]
    assert pixels_of([]) == []


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "YCbCr", "HSV", "LAB"])
def test_pillows_modes_follow_the_rules_for_files(mode: str) -> None:
    image = Image.fromarray((np.arange(2400).reshape(40, 60) * 27).astype(np.uint16)) if mode == "I;16" else None
    image = Image.fromarray(PIXELS).convert("RGB").convert(mode) if image is None else image
    kind = {"CMYK": "TIFF", "YCbCr": "TIFF", "LAB": "TIFF", "HSV": ""}.get(mode, "PNG")
    if kind:
        np.testing.assert_array_equal(pillow_pixels(image), load_encoded(encoded(image, kind), "x").pixels)
    assert pillow_pixels(image).shape == (40, 60, 3) and image.mode == mode


def test_pillows_images_are_turned_as_exif_says() -> None:
    exif = Image.Exif()
    exif[274] = 6
    data = encoded(Image.fromarray(PIXELS), "JPEG", exif=exif, quality=95)
    found = pillow_pixels(Image.open(io.BytesIO(data)))
    assert found.shape == (60, 40, 3)
    assert np.abs(found.astype(int) - load_encoded(data, "x").pixels).max() <= 4  # two decoders of JPEG
    assert pillow_pixels(Image.open(io.BytesIO(data)).copy()).shape == (60, 40, 3)


def test_a_damaged_or_large_picture_of_pillow_is_the_users_to_mend() -> None:
    data = encoded(Image.fromarray(PIXELS))
    with pytest.raises(DatasetError, match="damaged or cut short"):
        pillow_pixels(Image.open(io.BytesIO(data[: len(data) // 2])))
    with pytest.raises(DatasetError, match="60x40, more than 100 pixels"):
        pillow_pixels(Image.open(io.BytesIO(data)), max_pixels=100)


@pytest.mark.parametrize("image", [None, 7, b"bytes", {"a": 1}, np.zeros((2, 3, 40, 60), np.uint8), np.zeros(5), "s"])
def test_what_is_no_image_is_named(image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="uint8 RGB pixels|cannot read image s: No such file"):
        pixels_of([image])


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"HTTP/1.1 404 Gone\r\n\r\n", "HTTP Error 404"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>", "a web page"),
        (b"HTTP/1.1 200 OK\r\n\r\n<!DOCTYPE html><p>log in", "a web page"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nx", "more than"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", "closed at 5 of 100 bytes"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nx", "compressed"),
        (b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n", "redirects to|not allowed"),
        (b"HTTP/1.1 200 OK\r\n\r\nno picture", "is not an image"),
        (b"no http at all\x1b[31m\r\n\r\n", r"no http at all\\x1b"),
        (b"", "closed|disconnected|reset"),
    ],
)
def test_a_hostile_server_is_one_line(raw: bytes, words: str, server: Server) -> None:
    server.raw = [raw]
    with pytest.raises(DatasetError, match=words) as caught:
        load_url(f"{server.url}/a.png")
    assert str(caught.value).count("\n") == 0 and f"{server.url}/a.png" in str(caught.value)


def test_a_slow_server_and_an_address_that_is_none(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESDET_DOWNLOAD_TIMEOUT", "0.2")
    server.raw, server.drip = [b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 200], 0.02
    with pytest.raises(DatasetError, match="bytes per second|no answer within"):
        load_url(f"{server.url}/a.png")
    server.drip = 0.0
    for url in ("http://", "http://127.0.0.1:1/a", "http://[::1/a", "https://127.0.0.1:99999/a"):
        with pytest.raises(DatasetError, match="cannot download"):
            load_url(url)
    monkeypatch.setattr("detection.data.urls._WITHIN", -1.0)
    server.files["a.png"] = encoded(Image.fromarray(PIXELS))
    with pytest.raises(DatasetError, match="bytes have come in time"):
        load_url(f"{server.url}/a.png")


def test_videos_and_empty_folders_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "films").mkdir()
    film = write_video(tmp_path / "films/a.mp4", num_frames=1)
    for given in (film, tmp_path / "films"):
        with pytest.raises(DatasetError, match="draw_media"):
            pixels_of(given)
    write_picture(tmp_path / "films/b.png")
    with caplog.at_level(logging.WARNING):
        assert len(pixels_of(tmp_path / "films")) == 1
    assert "1 videos" in caplog.text
    (tmp_path / "none").mkdir()
    for text in (str(tmp_path / "none"), f"{tmp_path}/*.webp"):
        with pytest.raises(DatasetError, match="holds no images|matches"):
            pixels_of(text)


def test_a_folder_that_may_not_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(text: str) -> None:
        raise PermissionError(13, "Permission denied", text)

    monkeypatch.setattr("detection.inference.images.find_inputs", forbidden)
    with pytest.raises(DatasetError, match="cannot read '.*': Permission denied"):
        pixels_of(tmp_path)


def test_images_come_one_by_one_past_bad_files(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png", "d.png", "e.png", "f.png"):
        write_picture(tmp_path / name)
    (tmp_path / "b.png").write_bytes(b"")
    model = detector(test={"batch_size": 1}).eval()
    with pytest.raises(DatasetError, match=r"b\.png"):
        list(model.predict_each(tmp_path))
    errors: list[DatasetError] = []
    results = model.predict_each([tmp_path, "absent.png", str(tmp_path / "*.gif")], errors.append)
    assert next(results).source == tmp_path / "a.png" and len(errors) == 1
    assert not torch.is_inference_mode_enabled()
    assert [each.source.name for each in results if isinstance(each.source, Path)] == ["c.png", "d.png", "e.png", "f.png"]
    assert [word in str(error) for error, word in zip(errors, ("b.png", "absent.png", "*.gif"), strict=True)] == [True] * 3


def test_commands_stream_files(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png"), write_video(tmp_path / "b.mp4", num_frames=1), write_picture(tmp_path / "c.png")
    inputs, _ = find_all_inputs([str(tmp_path)])
    model = detector().eval()
    for each in (model, Ensemble([model, model])):
        found = list(predict_files(each, inputs))
        assert [result.source for result in found] == [tmp_path / "a.png", tmp_path / "c.png"]
        assert all(result.size_hw == (40, 60) and result.class_names == ("cat", "dog") for result in found)


def test_what_does_not_fit_into_the_memory_together_is_tried_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model, predict_window = detector(test={"batch_size": 4}).eval(), detector_module._predict_some

    def small_memory(detect, configs, images: list[InputImage]):
        if len(images) > 1 or images[0].pixels.shape[0] > 40:
            raise MemoryError
        return predict_window(detect, configs, images)

    monkeypatch.setattr(detector_module, "_predict_some", small_memory)
    errors: list[DatasetError] = []
    large = np.zeros((50, 60, 3), np.uint8)
    assert len(list(model.predict_each([PIXELS, large, PIXELS], errors.append))) == 2
    assert [str(error) for error in errors] == ["an image is too large for the memory"]
    with pytest.raises(ConfigError, match="test.batch_size"):
        model.predict([PIXELS, large])


def test_threads_predict_from_files_at_once(tmp_path: Path) -> None:
    file, model = write_picture(tmp_path / "a.png"), detector().eval()
    expected, found = model.predict(file)[0], []
    threads = [threading.Thread(target=lambda: found.append(model.predict(file)[0])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(each.boxes, expected.boxes) for each in found) and len(found) == 4
