"""Every kind of file gives the pixels that Pillow gives, or one clear error."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from detection.data.images import apply_orientation, decode_image, image_size, read_image
from detection.errors import DatasetError


@pytest.fixture
def pixels() -> np.ndarray:
    """A smooth picture, 37 x 53, that JPEG keeps well; no two corners alike."""
    y, x = np.mgrid[:37, :53]
    return np.stack([x * 4, y * 6, 255 - x * 2 - y * 2], axis=2).astype(np.uint8)


def encode(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
def test_jpeg_modes(pixels, mode, options):
    data = encode(Image.fromarray(pixels).convert(mode), "JPEG", quality=95, **options)
    expected = np.array(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    found = decode_image(data, "x.jpg")
    assert found.dtype == np.uint8 and found.shape == (37, 53, 3)
    assert np.abs(found - expected).max() <= 2


NOT_WRITTEN = {("BMP", "LA"), ("GIF", "LA"), ("GIF", "RGBA")}  # by Pillow, as such
MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
WRITTEN = [(kind, mode) for kind in ("PNG", "TIFF", "WEBP", "BMP", "GIF") for mode in MODES if (kind, mode) not in NOT_WRITTEN]


@pytest.mark.parametrize(("kind", "mode"), WRITTEN)
def test_lossless_modes(pixels, kind, mode):
    image = Image.fromarray(pixels).convert(mode)
    if "A" in mode:
        image.putalpha(128)
    data = encode(image, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
    expected = np.array(Image.open(io.BytesIO(data)).convert("RGBA"))[..., :3]
    np.testing.assert_array_equal(decode_image(data, "x"), expected)


def test_palette_with_transparency(pixels):
    data = encode(Image.fromarray(pixels).convert("P"), "PNG", transparency=3)
    expected = np.array(Image.open(io.BytesIO(data)).convert("RGBA"))[..., :3]
    np.testing.assert_array_equal(decode_image(data, "x"), expected)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_scaled_not_cut(kind):
    deep = np.array([[0, 128, 129, 257, 32768, 65407, 65535]], np.uint16)
    found = decode_image(encode(Image.fromarray(deep), kind), "x")
    assert found[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255, 255]


def test_16_bit_colour(tmp_path):
    cv2 = pytest.importorskip("cv2")
    cv2.imwrite(str(tmp_path / "x.png"), np.array([[[65535, 257 * 7, 0]]], np.uint16))
    assert read_image(tmp_path / "x.png").tolist() == [[[0, 7, 255]]]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(pixels, tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "x"
    path.write_bytes(encode(Image.fromarray(pixels), kind, exif=exif))
    expected = np.array(ImageOps.exif_transpose(Image.open(path))).astype(int)
    found = read_image(path)
    assert found.shape == expected.shape and np.abs(found - expected).max() <= 3
    assert image_size(path) == expected.shape[:2]


def test_exif_of_cmyk(pixels, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "x.jpg").write_bytes(encode(Image.fromarray(pixels).convert("CMYK"), "JPEG", exif=exif))
    assert read_image(tmp_path / "x.jpg").shape == (53, 37, 3)
    assert image_size(tmp_path / "x.jpg") == (53, 37)


def test_unknown_orientation_is_upright(pixels):
    np.testing.assert_array_equal(apply_orientation(pixels, 0), pixels)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_cut_files_are_refused(kind, share):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), kind)
    with pytest.raises(DatasetError, match=r"cut\.img"):
        decode_image(data[: int(len(data) * share)], "cut.img")


def test_cut_jpeg_whose_thumbnail_is_whole(pixels):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    thumbnail = encode(Image.fromarray(pixels), "JPEG")
    data = encode(Image.fromarray(noise), "JPEG")
    whole = data[:2] + b"\xff\xe5" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail + data[2:]
    assert decode_image(whole, "x").shape == (64, 64, 3)
    with pytest.raises(DatasetError, match="cut short"):
        decode_image(whole[:-500], "x")


def test_bytes_after_the_end_are_fine(pixels):
    data = encode(Image.fromarray(pixels), "JPEG")
    np.testing.assert_array_equal(decode_image(data + b"trailer" * 100, "x"), decode_image(data, "x"))


@pytest.mark.parametrize("content", [b"", b"not an image", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"])
def test_no_image(tmp_path, content):
    path = tmp_path / "odd.jpg"
    path.write_bytes(content)
    for read in (read_image, image_size):
        with pytest.raises(DatasetError, match=r"odd\.jpg"):
            read(path)


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "none.jpg", tmp_path):
        for read in (read_image, image_size):
            with pytest.raises(DatasetError, match="cannot read image"):
                read(path)


def test_real_images_equal_pillow(real_data):
    files = sorted((real_data / "imagenet_mini").rglob("*.JPEG"))[:25] + sorted((real_data / "coco_mini").rglob("*.jpg"))[:25]
    assert files
    for file in files:
        expected = np.array(ImageOps.exif_transpose(Image.open(file)).convert("RGB")).astype(int)
        found = read_image(file)
        assert found.shape == expected.shape and image_size(file) == expected.shape[:2]
        assert np.abs(found - expected).mean() < 0.5, file
