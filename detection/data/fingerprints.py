"""Images that show the same: equal pixels, or one the resized, recompressed or mirrored copy of the other.

An image's fingerprint has a perceptual hash, the signs of the lowest frequencies of its cosine transform (as "pHash" of the
imagehash package), by which pairs are found, and a thumbnail, by which they are confirmed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from torch.utils.data import Dataset as TorchDataset

from detection.config import LOADER_TIMEOUT, MAX_PIXELS
from detection.data.images import read_image
from detection.data.workers import load
from detection.errors import DatasetError

HASH_SIDE = 8  # frequencies each way: 64 bits
_HASHED_SIDE = 32  # px of the image that is transformed
_THUMBNAIL_SIDE = 16

MAX_DIFFERENT_BITS = 14
"""Of 64 in the hashes of two images that may show the same: mirrored copies differ in up to 12, images at random in half."""
MAX_DIFFERENCE = 8.0
"""Mean difference of the thumbnails' colours, 0 to 255, up to which two images show the same: copies 3, others 30 and more."""

_COMPARED = 32  # images of a group with whose thumbnails another is compared
_BLOCK = 1024  # images that are compared with all others at once


@dataclass(frozen=True)
class Fingerprint:
    """What is kept of an image to compare it with others: under a kilobyte."""

    digest: bytes  # of its size and pixels
    bits: np.ndarray  # (64,) bool
    thumbnail: np.ndarray  # (16, 16, 3) uint8


@dataclass(frozen=True)
class NearDuplicates:
    """Images that show the same, by their places in a sequence."""

    members: tuple[int, ...]  # ascending, at least two
    equal: bool  # all of them pixel by pixel


def fingerprint(image: np.ndarray) -> Fingerprint:
    """The fingerprint of an image, (H, W, 3) uint8 RGB."""
    digest = hashlib.blake2b(image.tobytes(), digest_size=16, key=repr(image.shape).encode()).digest()
    thumbnail = cv2.resize(image, (_THUMBNAIL_SIDE, _THUMBNAIL_SIDE), interpolation=cv2.INTER_AREA)
    return Fingerprint(digest, hash_bits(image), thumbnail)


def hash_bits(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB -> (64,) bool: which of the lowest 8 x 8 frequencies are above their median, row by row."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_HASHED_SIDE, _HASHED_SIDE), interpolation=cv2.INTER_AREA)
    lowest = cv2.dct(small.astype(np.float32))[:HASH_SIDE, :HASH_SIDE]
    return np.asarray(lowest > np.median(lowest)).ravel()


class _Fingerprints(TorchDataset[Fingerprint | None]):
    """Index -> the fingerprint of a file, None for one that cannot be read."""

    def __init__(self, files: Sequence[Path], max_pixels: int) -> None:
        self.files = [str(file) for file in files]
        self.max_pixels = max_pixels

    def __getitem__(self, index: int) -> Fingerprint | None:
        try:
            return fingerprint(read_image(self.files[index], self.max_pixels))
        except DatasetError:
            return None


def read_fingerprints(
    files: Sequence[Path], workers: int = 0, max_pixels: int = MAX_PIXELS, timeout: float = LOADER_TIMEOUT
) -> Iterator[Fingerprint | None]:
    """The fingerprint of each file in their order, None for one that cannot be read; `workers` processes read them.

    Raises DatasetError where none is read for `timeout` seconds, or a worker dies.
    """
    dataset = _Fingerprints(files, max_pixels)
    return load(dataset, range(len(files)), workers, timeout, name_files=lambda index: [str(files[index])])


def find_near_duplicates(prints: Sequence[Fingerprint | None]) -> list[NearDuplicates]:
    """The groups of images that show the same, by their first members; None is an image that could not be read.

    Whoever is like one of a group is of the group. Time grows with the square of the number of images: 10,000 take seconds.
    """
    places_of: dict[bytes, list[int]] = {}
    for place, each in enumerate(prints):
        if each is not None:
            places_of.setdefault(each.digest, []).append(place)
    places = list(places_of.values())  # equal images are compared with others once
    firsts = [found for each in places if (found := prints[each[0]]) is not None]
    members: dict[int, list[int]] = {}
    for number, group in enumerate(_join(firsts)):
        members.setdefault(int(group), []).append(number)
    groups = [
        NearDuplicates(tuple(sorted(sum((places[each] for each in group), []))), len(group) == 1) for group in members.values()
    ]
    return sorted((group for group in groups if len(group.members) > 1), key=lambda group: group.members)


def _join(prints: Sequence[Fingerprint]) -> np.ndarray:
    """(N,): the group of each of N images, the smallest place in it."""
    groups = np.arange(len(prints))
    thumbnails = np.stack([each.thumbnail for each in prints]) if prints else np.zeros((0, 0))
    for place, candidates in _candidates(prints):
        others = _confirmed(thumbnails, place, candidates[_few_of_each(groups[candidates])])
        joined = np.unique(np.append(groups[others], groups[place]))
        if len(joined) > 1:
            groups[np.isin(groups, joined)] = joined[0]
    return groups


def _few_of_each(groups: np.ndarray) -> np.ndarray:
    """The places of the first of each group: thousands of frames of one camera need not all be compared with each other."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    return order[np.arange(len(order)) - np.searchsorted(ordered, ordered) < _COMPARED]


def _candidates(prints: Sequence[Fingerprint]) -> Iterator[tuple[int, np.ndarray]]:
    """For each image whose hash is like those of some before it: its place, and theirs."""
    if not prints:
        return
    signs = np.where(np.stack([each.bits for each in prints]), 1, -1).astype(np.float32)
    mirrored = signs * np.tile([1, -1], 32).astype(np.float32)  # waves of odd numbers across the image change their sign
    least = 64 - 2 * MAX_DIFFERENT_BITS  # of the sum of products of signs
    for start in range(0, len(prints), _BLOCK):
        block = slice(start, min(start + _BLOCK, len(prints)))
        before = signs[: block.stop].T
        alike = np.maximum(signs[block] @ before, mirrored[block] @ before) >= least
        for row in np.flatnonzero(np.tril(alike, start - 1).any(axis=1)):
            place = start + int(row)
            yield place, np.flatnonzero(alike[row, :place])


def _confirmed(thumbnails: np.ndarray, place: int, others: np.ndarray) -> np.ndarray:
    """Those of some images whose thumbnails differ little from one's, as it is or mirrored."""
    candidates = thumbnails[others].astype(np.int16)
    own = thumbnails[place].astype(np.int16)
    differences = [np.abs(candidates - each).mean(axis=(1, 2, 3)) for each in (own, own[:, ::-1])]
    return others[np.minimum(*differences) <= MAX_DIFFERENCE]
