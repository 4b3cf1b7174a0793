"""AP^r against numbers worked out by hand and against plain loops over pixels."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detection.data.catalog import Dataset
from detection.data.voc_masks import read_mask_truth
from detection.errors import DatasetError
from detection.evaluation.devkit import read_devkit
from detection.evaluation.metrics import VocMetric
from detection.evaluation.voc import VocResult, evaluate_voc
from detection.evaluation.voc_masks import evaluate_predicted_voc_masks, evaluate_voc_masks
from detection.inference.evaluate import evaluate_detections
from detection.masks import Masks
from detection.structures import Detections, ImageId, Record
from tests.evaluation import devkit
from tests.evaluation.scenes import make_detections, make_record
from tests.there import there

NAMES = ["cat", "dog", "cow"]
SIZE = (12, 15)
BOX = (0, 0, 1, 1)  # of everything: nobody looks at it

Bitmaps = torch.Tensor  # (N, H, W) bool


def rectangle(top: int, left: int, bottom: int, right: int) -> Bitmaps:
    bitmap = torch.zeros((1, *SIZE), dtype=torch.bool)
    bitmap[:, top:bottom, left:right] = True
    return bitmap


def with_masks(record: Record, bitmaps: Bitmaps, void: Bitmaps | None = None) -> Record:
    """The record with its objects' masks; without void pixels it has none, or one without a pixel."""
    unknown = None if void is None else Masks.from_bitmaps(void)
    return replace(record, size_hw=SIZE, masks=Masks.from_bitmaps(bitmaps), void=unknown)


def one_image(objects: Bitmaps, found: Bitmaps, void: Bitmaps | None = None, least: float = 0.5) -> float:
    """AP^r of one class in one image; the detections by falling score."""
    record = with_masks(make_record("a", [BOX] * len(objects)), objects, void)
    return evaluate_voc_masks([record], {"a": detected(found)}, ["cat"], least).mean_ap


def detected(bitmaps: Bitmaps) -> Detections:
    """Detections of one class with these masks, by falling score."""
    scores = torch.linspace(0.9, 0.1, len(bitmaps)).tolist()
    return replace(make_detections([BOX] * len(bitmaps), scores), masks=Masks.from_bitmaps(bitmaps))


def test_masks_decide_and_not_their_boxes():
    frame = rectangle(0, 0, 10, 10) & ~rectangle(2, 2, 10, 8)  # 52 of 100 pixels, 68 for the other
    assert one_image(frame, rectangle(0, 0, 10, 10)) == 1 and one_image(frame, rectangle(0, 0, 10, 10), least=0.7) == 0
    assert one_image(frame, rectangle(2, 2, 10, 8)) == 0


def test_right_wrong_right_by_hand():
    objects = torch.cat([rectangle(0, 0, 4, 4), rectangle(6, 6, 10, 10)])
    found = torch.cat([rectangle(0, 0, 4, 4), rectangle(0, 8, 4, 12), rectangle(6, 6, 10, 10)])
    assert one_image(objects, found) == pytest.approx(5 / 6)


def test_void_pixels_count_neither_way():
    # 16 pixels of 36: an IoU of 0.44; without the border of 20 pixels it is 1.
    inner, outer = rectangle(3, 3, 7, 7), rectangle(2, 2, 8, 8)
    assert one_image(inner, outer) == 0
    assert one_image(inner, outer, void=outer & ~inner) == 1


def test_objects_without_a_pixel_are_not_to_be_found():
    objects = torch.cat([rectangle(0, 0, 4, 4), rectangle(0, 0, 0, 0)])
    assert one_image(objects, rectangle(0, 0, 4, 4)) == 1
    result = evaluate_voc_masks([with_masks(make_record("a", [BOX]), rectangle(0, 0, 0, 0))], {}, ["cat"])
    assert result.absent == ("cat",) and np.isnan(result.mean_ap)


def test_difficult_objects_are_neither_wanted_nor_wrong():
    objects = torch.cat([rectangle(0, 0, 4, 4), rectangle(6, 6, 10, 10)])
    record = with_masks(make_record("a", [BOX, BOX], difficult=[True, False]), objects)
    result = evaluate_voc_masks([record], {"a": detected(objects)}, ["cat"])
    assert result.mean_ap == 1 and result.curves["cat"].num_objects == 1


def test_a_class_of_hundreds_of_objects():
    records = [with_masks(make_record(key, [BOX]), rectangle(0, 0, 4, 4)) for key in range(300)]
    found = {key: detected(rectangle(0, 0, 4, 4)) for key in range(150)}
    assert evaluate_voc_masks(records, found, ["cat"]).mean_ap == 0.5


def test_nothing_found():
    objects = rectangle(0, 0, 4, 4)
    assert one_image(objects, objects[:0]) == 0
    assert evaluate_voc_masks([with_masks(make_record("a", [BOX]), objects)], {}, ["cat"]).mean_ap == 0
    assert np.isnan(evaluate_voc_masks([], {}, ["cat"]).mean_ap)


def test_images_without_masks_do_not_count():
    objects = rectangle(0, 0, 4, 4)
    records = [with_masks(make_record("a", [BOX]), objects), make_record("b", [BOX])]
    wrong = rectangle(6, 6, 10, 10)
    result = evaluate_voc_masks(records, {"a": detected(objects), "b": detected(wrong)}, ["cat"])
    assert result.mean_ap == 1 and result.curves["cat"].num_objects == 1


def test_both_numbers_of_what_has_masks_and_none_without():
    frame, square = rectangle(0, 0, 10, 10) & ~rectangle(2, 2, 10, 8), rectangle(0, 0, 10, 10)  # IoU 0.52
    record = with_masks(make_record("a", [BOX]), frame)
    result = evaluate_detections(Dataset(("cat",), [record]), {"a": detected(square)})
    assert (result.metrics["mask_voc50"], result.metrics["mask_voc70"]) == (1, 0)
    assert (result.class_ap["mask_voc50"], result.class_ap["mask_voc70"]) == ({"cat": 1.0}, {"cat": 0.0})
    assert "VOC mask AP^r@.7" in str(result)
    assert evaluate_predicted_voc_masks([record], {"a": replace(detected(square), masks=None)}, ["cat"]) == {}
    assert evaluate_predicted_voc_masks([make_record("a", [BOX])], {"a": detected(square)}, ["cat"]) == {}


Scene = tuple[list[Record], dict[Any, Bitmaps], dict[Any, Bitmaps], dict[Any, Detections], dict[Any, Bitmaps]]


def random_scene(seed: int) -> Scene:
    """Records, their objects' bitmaps and void pixels; detections and their bitmaps. Rectangles: many IoUs are equal."""
    random = np.random.default_rng(seed)

    def some(count: int) -> Bitmaps:
        corners, sizes = random.integers(0, 8, (count, 2)), random.integers(0, 6, (count, 2))
        parts = [rectangle(y, x, y + h, x + w) for (y, x), (h, w) in zip(corners, sizes, strict=True)]
        return torch.cat([torch.zeros((0, *SIZE), dtype=torch.bool), *parts])

    records, objects, voids, detections, found = [], {}, {}, {}, {}
    for key in range(5):
        bitmaps, count = some(int(random.integers(0, 4))), int(random.integers(0, 5))
        labels, flags = random.integers(0, 3, len(bitmaps)).tolist(), (random.random(len(bitmaps)) < 0.2).tolist()
        records.append(make_record(key, [BOX] * len(bitmaps), labels, difficult=flags))
        voids[key] = some(1) & ~bitmaps.any(0)
        objects[key] = bitmaps
        if random.random() < 0.8:
            near = torch.cat([bitmaps.roll(1, int(random.integers(0, 3))), some(count)])
            scores = (random.integers(1, 6, len(near)) / 5).tolist()
            wrong, others = random.random(len(near)) < 0.3, random.integers(0, 3, len(near))
            names = np.where(wrong, others, [*labels, *others[len(labels) :]]).astype(int)
            detections[key] = make_detections([BOX] * len(near), scores, names.tolist())
            found[key] = near
    return records, objects, voids, detections, found


def plain_ap(scene: Scene, label: int, metric: VocMetric, least: float) -> float:
    """The kit's algorithm, detection after detection, with the IoU of bitmaps. NaN without an object to find."""
    records, objects, voids, detections, found = scene
    rows = [
        (float(score), record.image_id, mask & ~voids[record.image_id][0])
        for record in records
        if record.image_id in detections
        for score, row_label, mask in zip(
            detections[record.image_id].scores, detections[record.image_id].labels, found[record.image_id], strict=True
        )
        if row_label == label
    ]
    wanted = {
        record.image_id: [
            (mask, bool(flag) or not mask.any())
            for mask, flag, row in zip(objects[record.image_id], record.difficult, record.labels, strict=True)
            if row == label
        ]
        for record in records
    }
    total = sum(not ignored for each in wanted.values() for _, ignored in each)
    if not total:
        return float("nan")
    taken: set[tuple[ImageId, int]] = set()
    right = wrong = 0
    recalls, precisions = [], []
    for _, key, mask in sorted(rows, key=lambda row: -row[0]):
        best, where = 0.0, -1
        for index, (target, _) in enumerate(wanted[key]):
            iou = float((mask & target).sum()) / max(float((mask | target).sum()), 1)
            if iou > best:
                best, where = iou, index
        if best < least or (not wanted[key][where][1] and (key, where) in taken):
            wrong += 1
        elif not wanted[key][where][1]:
            taken.add((key, where))
            right += 1
        recalls.append(right / total)
        precisions.append(right / (right + wrong) if right + wrong else 0.0)
    return devkit.eleven_points(recalls, precisions) if metric == "voc07" else devkit.area(recalls, precisions)


def evaluate(scene: Scene, least: float, metric: VocMetric) -> VocResult:
    records, objects, voids, detections, found = scene
    truth = [with_masks(record, objects[record.image_id], voids[record.image_id]) for record in records]
    masked = {key: replace(each, masks=Masks.from_bitmaps(found[key])) for key, each in detections.items()}
    return evaluate_voc_masks(truth, masked, NAMES, least, metric)


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), least=st.sampled_from([0.5, 0.7]), metric=st.sampled_from(["voc07", "area"]))
def test_equals_plain_loops(seed, least, metric):
    scene = random_scene(seed)
    result = evaluate(scene, least, metric)
    for label, name in enumerate(NAMES):
        expected = plain_ap(scene, label, metric, least)
        assert (name in result.absent) == np.isnan(expected)
        if name in result.ap:
            assert result.ap[name] == pytest.approx(expected, abs=1e-12)


def test_scenes_are_neither_all_right_nor_all_wrong():
    values = [value for seed in range(20) for value in evaluate(random_scene(seed), 0.5, "area").ap.values()]
    assert 0.1 < np.mean(values) < 0.9


def test_masks_that_fill_their_boxes_give_what_the_boxes_give():
    scene = random_scene(7)
    records, objects, _, detections, found = scene
    boxed = [
        replace(
            each,
            boxes=Masks.from_bitmaps(objects[each.image_id]).boxes(),
            difficult=each.difficult | (objects[each.image_id].sum((1, 2)) == 0),
        )
        for each in records
    ]
    found_boxes = {key: replace(each, boxes=Masks.from_bitmaps(found[key]).boxes()) for key, each in detections.items()}
    no_void = {key: each & False for key, each in scene[2].items()}
    by_masks = evaluate((records, objects, no_void, detections, found), 0.5, "area")
    assert by_masks.ap == pytest.approx(evaluate_voc(boxed, found_boxes, NAMES).ap, abs=1e-12)
    assert len(by_masks.ap) == 3


@pytest.mark.parametrize(
    ("detections", "message"),
    [
        ({"a": replace(detected(rectangle(0, 0, 4, 4)), masks=None)}, r"image 'a' has 1 detections with 0 masks"),
        ({"a": replace(detected(rectangle(0, 0, 4, 4)), masks=Masks(SIZE))}, r"image 'a' has 1 detections with 0 masks"),
        ({"a": replace(detected(rectangle(0, 0, 4, 4)), masks=Masks((9, 9)).union())}, r"1 masks of \(9, 9\); its own size is"),
        ({"b": Detections.empty()}, "detections of image 'b'"),
    ],
)
def test_what_does_not_fit_is_refused(detections, message):
    with pytest.raises(DatasetError, match=message):
        evaluate_voc_masks([with_masks(make_record("a", [BOX]), rectangle(0, 0, 4, 4))], detections, ["cat"])


def test_voc_s_own_masks(real_data: Path):
    folder = real_data / "voc_mini/VOCdevkit/VOC2012"
    annotated = read_devkit(folder, "val")
    records = read_mask_truth(folder, annotated.records)
    random = np.random.default_rng(0)
    detections = {
        each.image_id: Detections(each.boxes, torch.from_numpy(random.random(len(each.labels))), each.labels, masks=each.masks)
        for each in records
    }
    assert evaluate_voc_masks(records, detections, annotated.class_names).mean_ap == 1
    moved = {
        key: replace(each, masks=Masks.from_bitmaps(there(each.masks).decode().roll((6, 6), (1, 2))))
        for key, each in detections.items()
    }
    half, strict = (evaluate_voc_masks(records, moved, annotated.class_names, least).mean_ap for least in (0.5, 0.7))
    assert 0.3 < strict < half < 0.95
