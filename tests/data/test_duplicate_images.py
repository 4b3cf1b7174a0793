"""Images that show the same are found, and others are not: synthetic ones, real ones, and imagehash's hash as it is defined."""

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.fftpack import dct

from detection.data.check import CheckedSplit
from detection.data.duplicate_images import describe_duplicate_images, find_duplicate_images
from detection.data.faults import Faults
from detection.data.fingerprints import Fingerprint, find_near_duplicates, fingerprint, hash_bits, read_fingerprints
from detection.data.images import read_image
from detection.data.records import make_record


def scene(seed: int, size_hw: tuple[int, int] = (120, 160)) -> np.ndarray:
    """Coloured blobs on a ground that changes slowly."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    image = cv2.resize(coarse, size_hw[::-1], interpolation=cv2.INTER_CUBIC)
    for _ in range(6):
        centre = (int(rng.integers(size_hw[1])), int(rng.integers(size_hw[0])))
        cv2.circle(image, centre, int(rng.integers(5, 30)), rng.integers(0, 256, 3).tolist(), -1)
    return image


def recompressed(image: np.ndarray, quality: int) -> np.ndarray:
    return np.asarray(cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR))


COPIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "half": lambda image: cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_LINEAR),
    "stretched": lambda image: cv2.resize(image, (200, 200)),
    "recompressed": lambda image: recompressed(image, 30),
    "mirrored": lambda image: recompressed(np.ascontiguousarray(image[:, ::-1]), 60),
}


@pytest.mark.parametrize("kind", COPIES)
def test_copies_of_scenes_are_found(kind):
    originals = [scene(seed) for seed in range(20)]
    prints = [fingerprint(image) for image in originals] + [fingerprint(COPIES[kind](image)) for image in originals]
    found = find_near_duplicates(prints)
    assert [group.members for group in found] == [(place, place + 20) for place in range(20)]
    assert not any(group.equal for group in found)


def test_equal_images_and_unreadable_ones():
    one, other = fingerprint(scene(1)), fingerprint(scene(2))
    found = find_near_duplicates([one, None, other, one, None, one])
    assert [(group.members, group.equal) for group in found] == [((0, 3, 5), True)]
    assert find_near_duplicates([]) == [] == find_near_duplicates([None, one])
    near = fingerprint(recompressed(scene(1), 80))
    assert [(group.members, group.equal) for group in find_near_duplicates([near, one, one])] == [((0, 1, 2), False)]


def test_plain_images_are_alike_where_their_colour_is():
    prints = [fingerprint(np.full((40, 60, 3), value, dtype=np.uint8)) for value in (0, 2, 200)]
    assert [group.members for group in find_near_duplicates(prints)] == [(0, 1)]
    assert fingerprint(np.zeros((2, 8, 3), np.uint8)).digest != fingerprint(np.zeros((4, 4, 3), np.uint8)).digest


@pytest.mark.parametrize("seed", range(4))
def test_the_hash_is_that_of_the_cosine_transform(seed):
    """As imagehash.phash: scipy's transform of 32 x 32 grey values, its lowest 8 x 8, above their median."""
    image = scene(seed)
    small = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (32, 32), interpolation=cv2.INTER_AREA)
    lowest = dct(dct(small.astype(float), axis=0, norm="ortho"), axis=1, norm="ortho")[:8, :8]
    np.testing.assert_array_equal(hash_bits(image).reshape(8, 8), lowest > np.median(lowest))


def test_many_images_are_compared_in_blocks():
    rng = np.random.default_rng(0)
    prints = [Fingerprint(os.urandom(16), rng.random(64) < 0.5, np.zeros((16, 16, 3), np.uint8)) for _ in range(3000)]
    copies = [Fingerprint(os.urandom(16), each.bits, each.thumbnail) for each in prints[::100]]
    found = find_near_duplicates([*prints, *copies])
    assert {(place * 100, 3000 + place) for place in range(30)} <= {
        (first, second) for group in found for first in group.members for second in group.members
    }


def test_thousands_of_frames_of_one_camera_are_one_group():
    bits, thumbnail = np.random.default_rng(0).random(64) < 0.5, np.full((16, 16, 3), 7, np.uint8)
    frames = [Fingerprint(os.urandom(16), bits, thumbnail) for _ in range(2000)]
    other = Fingerprint(os.urandom(16), bits, thumbnail + 100)
    assert [group.members for group in find_near_duplicates([other, *frames])] == [tuple(range(1, 2001))]


def test_a_file_that_cannot_be_read_has_no_fingerprint(tmp_path):
    Image.fromarray(scene(3)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    first, second = read_fingerprints([tmp_path / "a.png", tmp_path / "b.png"])
    assert second is None and first is not None and first.digest == fingerprint(scene(3)).digest


def test_what_is_said_of_splits():
    def split(name, **scenes):
        records = [make_record(key, Path(f"{name}/{key}.jpg"), (120, 160), []) for key in scenes]
        return CheckedSplit(name, records, Faults(), [fingerprint(image) for image in scenes.values()])

    train = split("train", a=scene(1), b=scene(2), c=scene(1))
    val = split("val", d=COPIES["mirrored"](scene(1)), e=scene(4))
    groups = find_duplicate_images([train, val])
    assert [[record.image_id for _, record in group.members] for group in groups] == [["a", "c", "d"]]
    assert describe_duplicate_images(groups) == [
        "1 images of val show the same as 2 of train, so val measures too well: e.g. train/a.jpg and val/d.jpg",
        "train: 1 images show the same as another, e.g. train/a.jpg and train/c.jpg",
    ]


def test_real_images(real_photographs):
    """Copies of photographs are found, and no two photographs are taken for one."""
    originals = [read_image(file) for file in real_photographs]
    prints = [fingerprint(image) for image in originals]
    assert find_near_duplicates(prints) == []
    for kind, copy in COPIES.items():
        found = find_near_duplicates([*prints, *(fingerprint(copy(image)) for image in originals)])
        assert [group.members for group in found] == [(place, place + len(prints)) for place in range(len(prints))], kind


@pytest.fixture
def real_photographs() -> list[Path]:
    folder = os.environ.get("RESDET_TEST_DATA")
    if not folder:
        pytest.skip("RESDET_TEST_DATA is not set: no real data to test with")
    return sorted(Path(folder, "voc12_animals").rglob("*.jpg"))[::25]
