"""Outlines of masks: by hand, against the masks themselves, and as the page reads them."""

import base64
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import detection
from detection.masks import Masks
from detection.report.outlines import GRID, MAX_POLYGONS, outline, pack_outlines
from detection.report.reported import ReportedDetector, analyse
from detection.report.sections.pictures import build
from detection.report.sections.summary import head_numbers
from tests.report.scenes import scene

Polygons = list[list[list[int]]]  # of one mask: (x, y) in steps of 1 / GRID

TEMPLATES = Path(detection.__file__).parent / "templates/report"


def unpacked(text: str) -> list[int]:
    numbers, value, place = [], 0, 0
    for byte in base64.b64decode(text):
        value |= (byte & 127) << place
        place += 7
        if byte < 128:
            numbers.append(value)
            value = place = 0
    return numbers


def polygons_of(text: str) -> list[Polygons]:
    """The way back, in plain loops."""
    numbers, masks = iter(unpacked(text)), list[Polygons]()
    for count in numbers:
        masks.append([])
        for _ in range(count):
            x = y = 0
            masks[-1].append([])
            for _ in range(next(numbers)):
                dx, dy = (-(n + 1) // 2 if n % 2 else n // 2 for n in (next(numbers), next(numbers)))
                x, y = x + dx, y + dy
                masks[-1][-1].append([x, y])
    return masks


def rectangle(size_hw: tuple[int, int], x1: int, y1: int, x2: int, y2: int) -> torch.Tensor:
    bitmap = torch.zeros((1, *size_hw), dtype=torch.bool)
    bitmap[0, y1:y2, x1:x2] = True
    return bitmap


def test_a_rectangle_by_hand():
    masks = Masks.from_bitmaps(torch.cat([rectangle((93, 341), 10, 20, 31, 61), rectangle((93, 341), 0, 0, 0, 0)]))
    text = pack_outlines([None, masks], np.array([0, 1, 1]), np.array([0, 0, 1]))
    # 1023 steps for 341 px across and 93 px down: 3 and 11 each. Through the pixels' centres: 10.5 to 30.5, 20.5 to 60.5.
    left, right, top, bottom = 32, 92, 226, 666
    none, shown, empty = polygons_of(text)
    assert none == empty == [] and {(x, y) for x, y in shown[0]} == {(left, top), (right, top), (right, bottom), (left, bottom)}
    assert len(shown) == 1 and len(shown[0]) == 4
    assert pack_outlines([None, None], np.array([0, 1]), np.array([0, 0])) == ""


def test_a_hole_is_a_polygon_and_dust_is_left_out():
    ring = rectangle((100, 100), 10, 10, 90, 90) & ~rectangle((100, 100), 30, 30, 60, 60)
    assert len(outline(Masks.from_bitmaps(ring), 0, [10, 10, 90, 90])) == 2
    dust = torch.zeros((1, 200, 200), dtype=torch.bool)
    for place in range(20, 180, 8):
        for column in range(20, 180, 8):
            dust[0, place : place + 4, column : column + 4] = True
    (box,) = Masks.from_bitmaps(dust).boxes().int().tolist()
    assert len(outline(Masks.from_bitmaps(dust), 0, box)) == MAX_POLYGONS


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6))
def test_the_inside_of_the_outline_is_the_mask(seed):
    random = np.random.default_rng(seed)
    height, width = random.integers(100, 700, 2).tolist()
    noise = cv2.GaussianBlur(random.random((height, width)), (0, 0), 0.08 * min(height, width))
    bitmap = noise > np.quantile(noise, 0.7)
    masks = Masks.from_bitmaps(torch.from_numpy(bitmap[None]))
    found = outline(masks, 0, masks.boxes()[0].int().tolist())
    drawn = np.zeros((height, width), np.uint8)
    corners = [np.rint(each / GRID * [width, height] - 0.5).astype(np.int32) for each in found]
    cv2.fillPoly(drawn, corners, 1)
    assert (bitmap & (drawn > 0)).sum() / (bitmap | (drawn > 0)).sum() > 0.85
    assert sum(map(len, found)) < 0.2 * cv2.Canny(bitmap.astype(np.uint8) * 255, 50, 100).astype(bool).sum() + 20


def masked_scene():
    """A scene in which all objects and detections have masks: their boxes' left halves."""
    dataset, found = scene(4, num_detections=12)

    def halves(boxes: torch.Tensor) -> Masks:
        corners = torch.minimum(boxes.clamp(min=0), torch.tensor([320.0, 240, 320, 240])).tolist()
        parts = [rectangle((240, 320), int(x1), int(y1), int(x1 + x2) // 2 + 1, int(y2) + 1) for x1, y1, x2, y2 in corners]
        return Masks.from_bitmaps(torch.cat([torch.zeros((0, 240, 320), dtype=torch.bool), *parts]))

    records = [replace(each, masks=halves(each.boxes)) for each in dataset.records]
    return replace(dataset, records=records), {key: replace(each, masks=halves(each.boxes)) for key, each in found.items()}


def test_each_row_of_the_page_has_its_own_mask(tmp_path):
    dataset, found = masked_scene()
    data = build(analyse(ReportedDetector("mine", dataset, found, {}, {})), tmp_path)
    for table in (data.objects, data.detections):
        boxes = np.frombuffer(base64.b64decode(table.boxes), "<u2").reshape(-1, 4) / 65535
        shown = polygons_of(table.masks)
        assert len(shown) == len(boxes) == sum(table.counts) > 10
        for (x1, y1, x2, y2), polygons in zip(boxes, shown, strict=True):
            corners = np.array(polygons[0]) / GRID
            expected = [x1, y1, (x1 + x2) / 2, y2]
            assert np.abs(np.concatenate([corners.min(axis=0), corners.max(axis=0)]) - expected).max() < 0.01


def test_without_masks_nothing_is_added(tmp_path):
    data = build(analyse(ReportedDetector("mine", *scene(3), {}, {})), tmp_path)
    assert data.objects.masks == data.detections.masks == ""


def test_the_masks_number_stands_beside_the_boxes():
    metrics = {"AP": 0.4, "AP50": 0.6, "AP75": 0.4, "voc_area": 0.6, "voc07": 0.6}
    masked = metrics | {"mask_AP": 0.321, "mask_AP50": 0.5, "mask_voc50": 0.45}
    with_masks, without = (
        {each.title: each for each in head_numbers(analyse(ReportedDetector("mine", *scene(2), values, {})))}
        for values in (masked, metrics)
    )
    assert "mask AP" not in without and with_masks["mask AP"].text == "0.321" and "0.450" in with_masks["mask AP"].note


def test_the_page_reads_them(tmp_path):
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    dataset, found = masked_scene()
    data = build(analyse(ReportedDetector("mine", dataset, found, {}, {})), tmp_path)
    common = (TEMPLATES / "common.js").read_text()
    unpack = common[common.index("function unpack") : common.index("  // Call `act`")]
    program = f"""
        {unpack}
        const report = {{ MISSED: 7, isError: () => false, kinds: [], unpack }};
        {(TEMPLATES / "pictures_data.js").read_text().replace('"use strict";', "")}
        const table = (masks, counts) => ({{ counts, labels: "", boxes: "", sizes: "", states: "", found_by: "", scores: "",
          kinds: "", objects: "", ious: "", true_labels: "", masks }});
        const read = (objects, detections) => picturesData.read({{ files: [], numbers: [], objects, detections }});
        const {{ objects, detections }} = read(table("", [2, 1]), table({json.dumps(data.detections.masks)},
          {json.dumps(data.detections.counts)}));
        console.log(JSON.stringify([objects.masks, detections.masks]));
    """
    printed = subprocess.run([node, "-e", program], capture_output=True, text=True, check=True).stdout
    nothing, shown = json.loads(printed)
    assert nothing == [[], [], []]
    expected = polygons_of(data.detections.masks)
    assert [[[[round(x * GRID), round(y * GRID)] for x, y in each] for each in polygons] for polygons in shown] == expected
