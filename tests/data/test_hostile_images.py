"""Image files whose metadata cannot be trusted: broken EXIF, promised sizes, and what is no regular file."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from detection import load_detector
from detection.config import MAX_PIXELS
from detection.data import images
from detection.data.images import decode_image, image_size, load_image, read_image
from detection.errors import DatasetError
from tests.cli.trained import write_trained

WIDE = Image.fromarray(np.arange(10 * 20 * 3, dtype=np.uint8).reshape(10, 20, 3))
SHORT, LONG, RATIONAL, SIGNED_RATIONAL, FLOAT, DOUBLE, ASCII, UNDEFINED = 3, 4, 5, 10, 11, 12, 2, 7


def tiff_entry(tag: int, kind: int, count: int, value: bytes) -> bytes:
    """The body of an EXIF block with one tag; a value of more than four bytes follows the table."""
    inside = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack("<I", 26)
    return b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHI", tag, kind, count) + inside + b"\0\0\0\0" + value


def encode(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def with_exif(kind: str, block: bytes) -> bytes:
    return encode(WIDE, kind, exif=b"Exif\0\0" + block)


NO_ORIENTATION = {
    "0": (SHORT, 1, b"\0\0"),
    "9": (SHORT, 1, b"\x09\0"),
    "65535": (SHORT, 1, b"\xff\xff"),
    "a long number": (LONG, 1, b"\xff\xff\xff\xff"),
    "text": (ASCII, 5, b"left\0"),
    "text of a digit": (ASCII, 2, b"6\0"),
    "bytes": (UNDEFINED, 1, b"\x06"),
    "0/0": (RATIONAL, 1, struct.pack("<II", 0, 0)),
    "6/0": (RATIONAL, 1, struct.pack("<II", 6, 0)),
    "-6/1": (SIGNED_RATIONAL, 1, struct.pack("<ii", -6, 1)),
    "NaN": (FLOAT, 1, struct.pack("<f", float("nan"))),
    "inf": (DOUBLE, 1, struct.pack("<d", float("inf"))),
    "6.5": (FLOAT, 1, struct.pack("<f", 6.5)),
    "4 billion values": (SHORT, 2**32 - 1, b"\x06\0"),
    "an unknown type": (99, 1, b"\x06\0"),
    "no value": (SHORT, 0, b""),
}


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("value", NO_ORIENTATION.values(), ids=NO_ORIENTATION)
def test_an_orientation_that_is_none_leaves_the_image_as_it_is(tmp_path, kind, value):
    (tmp_path / "x").write_bytes(with_exif(kind, tiff_entry(0x0112, *value)))
    assert read_image(tmp_path / "x").shape == (10, 20, 3) and image_size(tmp_path / "x") == (10, 20)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("value", NO_ORIENTATION.values(), ids=NO_ORIENTATION)
def test_a_tiff_with_such_an_orientation(tmp_path, value):
    data = encode(WIDE, "TIFF", tiffinfo={0x0112: 1})
    at = data.index(struct.pack("<HHI", 0x0112, SHORT, 1))
    kind, count, content = value
    patched = data[:at] + struct.pack("<HHI", 0x0112, kind, count) + content[:4].ljust(4, b"\0") + data[at + 12 :]
    (tmp_path / "x").write_bytes(patched)
    try:
        found = read_image(tmp_path / "x").shape
    except DatasetError:
        return  # its values lie elsewhere, where there are none
    assert image_size(tmp_path / "x") == found[:2]


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60), st.sampled_from([b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b"II*\0\x08\0\0\0\x02\0\x12\x01"]))
def test_exif_of_any_bytes_never_spoils_the_image(tmp_path_factory, content, beginning):
    path = tmp_path_factory.mktemp("exif") / "x.jpg"
    path.write_bytes(with_exif("JPEG", beginning + content))
    assert read_image(path).shape[:2] == image_size(path) in ((10, 20), (20, 10))


def png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def jpeg_header(width: int, height: int) -> bytes:
    data = encode(WIDE, "JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def bmp_header(width: int, height: int) -> bytes:
    data = encode(WIDE, "BMP")
    return data[:18] + struct.pack("<ii", width, height) + data[26:]


def gif_header(width: int, height: int) -> bytes:
    data = encode(WIDE, "GIF")
    return data[:6] + struct.pack("<HH", width, height) + data[10:]


PROMISES = {
    "jpeg": jpeg_header(13100, 13000),
    "jpeg, the greatest": jpeg_header(65500, 65500),
    "png": png_header(13100, 13000),
    "png, beyond Pillow": png_header(20000, 20000),
    "png, the greatest": png_header(2**31 - 1, 2**31 - 1),
    "bmp": bmp_header(40000, 40000),
    "gif": gif_header(65535, 65535),
    "ppm": b"P6 100000 100000 255\n" + bytes(100),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("data", PROMISES.values(), ids=PROMISES)
def test_a_promise_of_too_many_pixels_is_called_too_large_before_anything_is_decoded(tmp_path, data):
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(DatasetError, match=r"x is too large: \d+x\d+, more than 120000000 pixels \(data\.max_pixels\)"):
        read_image(tmp_path / "x")
    assert np.prod(image_size(tmp_path / "x")) > MAX_PIXELS


def test_the_bound_is_the_number_of_pixels(tmp_path):
    WIDE.save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png", max_pixels=200).shape == (10, 20, 3)
    with pytest.raises(DatasetError, match="20x10, more than 199 pixels"):
        read_image(tmp_path / "x.png", max_pixels=199)
    with pytest.raises(DatasetError, match="20x10, more than 199 pixels"):
        decode_image((tmp_path / "x.png").read_bytes(), "x", max_pixels=199)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP"])
@pytest.mark.parametrize("pillows", [50, 150])
def test_pillows_own_bound_neither_refuses_nor_warns(monkeypatch, kind, pillows):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillows)
    assert decode_image(encode(WIDE, kind), "x").shape == (10, 20, 3)


def test_too_large_for_pillow_or_the_memory_is_not_called_damaged(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    for kind in ("WEBP", "TIFF"):  # whose readers check it again
        with pytest.raises(DatasetError, match="x is too large for Pillow"):
            decode_image(encode(WIDE, kind), "x")
    monkeypatch.setattr(images, "_pixels", lambda *_: np.empty(2**60, np.uint8))
    with pytest.raises(DatasetError, match="x is too large for this machine's memory: 20x10"):
        decode_image(encode(WIDE, "PNG"), "x")


def test_a_file_of_gigabytes_is_not_read(tmp_path):
    for name, beginning in (("zeros.jpg", b""), ("photo.jpg", jpeg_header(20, 10))):
        with (tmp_path / name).open("wb") as file:
            file.write(beginning)
            file.truncate(2**42)
        for read in (read_image, image_size):
            with pytest.raises(DatasetError, match=r"too large: 4194304 MiB, more than the 979 MiB"):
                read(tmp_path / name)


@pytest.mark.skipif(os.name != "posix", reason="pipes in folders are POSIX's")
@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "loop", "nowhere"])
def test_what_is_no_regular_file(tmp_path, kind, link):
    path = tmp_path / "odd.jpg"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    if link:
        (tmp_path / "link.jpg").symlink_to(path)
        path = tmp_path / "link.jpg"
    for read in (read_image, image_size):
        with pytest.raises(DatasetError, match=rf"cannot read image .*{path.name}: "):
            read(path)


def test_more_frames_are_noticed(tmp_path):
    frames = [Image.new("RGB", (8, 8), (value, 0, 0)) for value in (10, 200)]
    for kind in ("GIF", "PNG", "WEBP", "TIFF", "AVIF"):
        many = encode(frames[0], kind, save_all=True, append_images=frames[1:])
        for data, expected in ((many, True), (encode(frames[0], kind), False)):
            (tmp_path / "x").write_bytes(data)
            found = load_image(tmp_path / "x")
            assert found.more_frames is expected and abs(int(found.pixels[0, 0, 0]) - 10) < 12


def test_predict_bounds_files_and_not_pixels_in_memory(tmp_path):
    WIDE.save(tmp_path / "x.png")
    detector = load_detector(write_trained(tmp_path / "run") / "best.pt")
    small = detector.config.data.model_copy(update={"max_pixels": 100})
    object.__setattr__(detector, "config", detector.config.model_copy(update={"data": small}))
    with pytest.raises(DatasetError, match="more than 100 pixels"):
        detector.predict([tmp_path / "x.png"])
    assert len(detector.predict([np.asarray(WIDE)])) == 1
