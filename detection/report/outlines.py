"""Masks on a page: their outlines as polygons of few corners, packed.

Numbers of `packed_small`: of each mask how many polygons there are, of each polygon how many corners, of each corner how far it
lies from the one before, across and down, the first from the image's upper left corner; in steps of 1 / GRID of the image's
sides, n as 2 n and -n as 2 n - 1. Holes are polygons, too: a point is inside where it is in an odd number of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import cv2
import numpy as np

from detection.evaluation.voc import Ints
from detection.masks import Masks
from detection.report.packed import packed_small

GRID = 1023
MAX_POLYGONS = 16
"""Of a mask, those with the most area: some masks are dust."""

_TOLERANCE = 1 / 250  # of the image's longer side, by which an outline may be off


def pack_outlines(masks: Sequence[Masks | None], images: Ints, places: Ints) -> str:
    """Of R rows, image by image, the mask at a place (R,) of an image (R,) that is one of S; "" where no image has masks."""
    if all(each is None for each in masks):
        return ""
    return packed_small(list(_numbers(masks, images, places)))


def outline(masks: Masks, place: int, box: Sequence[int]) -> list[Ints]:
    """The polygons (P, 2) of a mask, x and y in steps of 1 / GRID; `box`: xyxy, the smallest around it."""
    (height, width), (x1, y1, x2, y2) = masks.size_hw, box
    part = masks.decode_part(place, (slice(y1, y2), slice(x1, x2)))
    if not part.size:
        return []
    found, _ = cv2.findContours(part.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    largest = sorted(found, key=cv2.contourArea, reverse=True)[:MAX_POLYGONS]
    simple = [cv2.approxPolyDP(each, _TOLERANCE * max(height, width), closed=True).reshape(-1, 2) for each in largest]
    # OpenCV's contours go through the pixels' centres.
    scale, corner = GRID / np.array([width, height]), np.array([x1, y1]) + 0.5
    return [np.rint((each + corner) * scale).astype(np.int64) for each in simple if len(each) > 2]


def _numbers(masks: Sequence[Masks | None], images: Ints, places: Ints) -> Iterator[int]:
    for image, rows in groupby(zip(images.tolist(), places.tolist(), strict=True), key=lambda row: row[0]):
        own = masks[image]
        runs = None if own is None else own.rasterised()
        boxes = [] if runs is None else runs.boxes().int().tolist()
        for _, place in rows:
            yield from _of_polygons([] if runs is None else outline(runs, place, boxes[place]))


def _of_polygons(polygons: Sequence[Ints]) -> Iterable[int]:
    yield len(polygons)
    for each in polygons:
        steps = np.diff(each, axis=0, prepend=0)
        yield len(each)
        yield from np.where(steps < 0, -2 * steps - 1, 2 * steps).reshape(-1).tolist()
