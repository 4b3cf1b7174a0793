"""The numbers of predicted masks, against COCO's algorithm on files and by hand."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from detection.data.catalog import Dataset
from detection.errors import DatasetError
from detection.evaluation.coco import evaluate_coco_files
from detection.evaluation.predicted_masks import evaluate_predicted_masks
from detection.files import write_json
from detection.inference.evaluate import evaluate_detections
from detection.masks import Masks
from detection.structures import Detections, Record
from tests.there import there

NAMES = ("cat", "dog")


def discs(*places: tuple[int, int, int]) -> Masks:
    """Discs (x, y, radius) in an image of 40 x 50 pixels; one of radius 0 has no pixel."""
    y, x = torch.meshgrid(torch.arange(40) + 0.5, torch.arange(50) + 0.5, indexing="ij")
    return Masks.from_bitmaps(torch.stack([(x - cx) ** 2 + (y - cy) ** 2 < r**2 for cx, cy, r in places]))


def record(masks: Masks | None, *labels: int, key: int = 1) -> Record:
    count = len(labels)
    boxes = torch.tensor([[0.0, 0, 9, 9]] * count) if masks is None else masks.boxes()
    areas = torch.full((count,), 100.0) if masks is None else masks.areas.float()
    no = torch.zeros(count, dtype=torch.bool)
    return Record(key, Path("a.jpg"), (40, 50), boxes, torch.tensor(labels), no, no, areas, masks=masks)


def found(masks: Masks, *labels: int) -> Detections:
    scores = torch.linspace(0.9, 0.5, len(labels))
    return Detections(masks.boxes(), scores, torch.tensor(labels), masks=masks)


def test_perfect_masks():
    masks = discs((12, 12, 8), (30, 20, 9))
    result = evaluate_predicted_masks([record(masks, 0, 1)], {1: found(masks, 0, 1)}, NAMES)
    assert result is not None and result.numbers["AP"] == pytest.approx(1) and result.class_ap == {"cat": 1.0, "dog": 1.0}


def test_masks_and_not_boxes_decide():
    """A ring's box is the disc's, its mask is not."""
    disc = discs((20, 20, 12))
    ring = disc.without(discs((20, 20, 11)))
    result = evaluate_detections(Dataset(NAMES, [record(disc, 0)], [], {}), {1: found(ring, 0)})
    assert result.metrics["AP"] == pytest.approx(1) and result.metrics["mask_AP"] == 0
    assert result.class_ap["mask_AP"] == {"cat": 0.0} and "COCO mask AP50" in str(result)


def test_the_same_as_of_files(tmp_path):
    truth = [record(discs((12, 12, 8), (30, 20, 9)), 0, 1), record(discs((25, 25, 10)), 1, key=2)]
    detections = {1: found(discs((13, 12, 8), (31, 22, 9), (10, 30, 5)), 0, 1, 1), 2: found(discs((25, 24, 9)), 1)}
    annotations = [
        {"id": number, "image_id": each.image_id, "category_id": label, "segmentation": mask, "area": area, "iscrowd": 0}
        for number, (each, label, mask, area) in enumerate(
            (
                (each, label, mask, area)
                for each in truth
                for label, mask, area in zip(
                    each.labels.tolist(), there(each.masks).as_json(), each.areas.tolist(), strict=True
                )
            ),
            1,
        )
    ]
    boxes = [box for each in truth for box in each.boxes.tolist()]
    for annotation, (x1, y1, x2, y2) in zip(annotations, boxes, strict=True):
        annotation["bbox"] = [x1, y1, x2 - x1, y2 - y1]
    images = [{"id": key, "height": 40, "width": 50, "file_name": f"{key}.jpg"} for key in (1, 2)]
    categories = [{"id": label, "name": name} for label, name in enumerate(NAMES)]
    write_json(tmp_path / "truth.json", {"images": images, "annotations": annotations, "categories": categories})
    from detection.evaluation.detection_files import coco_results

    results = coco_results(detections, NAMES, {"cat": 0, "dog": 1})
    assert all(entry["segmentation"]["size"] == [40, 50] and len(entry["bbox"]) == 4 for entry in results)
    write_json(tmp_path / "found.json", results)
    expected = evaluate_coco_files(tmp_path / "truth.json", tmp_path / "found.json", "masks")
    own = evaluate_predicted_masks(truth, detections, NAMES)
    assert own is not None and own.numbers == expected and 0 < expected["AP"] < 1


def test_an_object_without_a_mask_counts_neither_way():
    masks = discs((12, 12, 8), (30, 20, 0))
    result = evaluate_predicted_masks([record(masks, 0, 0)], {1: found(masks[:1], 0)}, NAMES)
    assert result is not None and result.numbers["AP"] == pytest.approx(1)


def test_nothing_to_compare():
    masks = discs((12, 12, 8))
    plain = found(masks, 0)
    assert evaluate_predicted_masks([record(None, 0)], {1: plain}, NAMES) is None
    assert evaluate_predicted_masks([record(masks, 0)], {1: replace(plain, masks=None)}, NAMES) is None
    result = evaluate_predicted_masks([record(masks, 0)], {1: found(masks[:0])}, NAMES)
    assert result is not None and result.numbers["AP"] == 0
    metrics = evaluate_detections(Dataset(NAMES, [record(None, 0)], [], {}), {1: plain}).metrics
    assert not any(key.startswith("mask_") for key in metrics)


def test_masks_of_another_size_are_refused():
    other = Masks.from_bitmaps(torch.ones(1, 4, 5, dtype=torch.bool))
    with pytest.raises(DatasetError, match=r"image 1 has 1 detections with 1 masks of \(4, 5\); its own size is \(40, 50\)"):
        evaluate_predicted_masks([record(discs((12, 12, 8)), 0)], {1: found(other, 0)}, NAMES)
