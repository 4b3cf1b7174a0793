"""Objects that are there twice."""

from pathlib import Path

import pytest
import torch

from detection.data.duplicate_objects import describe_duplicate_objects, describe_equal_objects, find_duplicate_objects
from detection.data.records import AnnotatedObject, Box, make_record
from detection.modeling.boxes import pairwise_iou
from detection.structures import Record


def record_of(*objects: tuple[Box, int], crowd: bool = False, name: str = "a") -> Record:
    annotated = [AnnotatedObject(box, label, crowd=crowd) for box, label in objects]
    return make_record(name, Path(f"{name}.jpg"), (100, 100), annotated)


BOX = (10.0, 10.0, 50.0, 50.0)


@pytest.mark.parametrize(
    ("second", "kind"),
    [
        ((BOX, 0), "same box and class"),
        ((BOX, 1), "same box, another class"),
        (((10, 10, 50, 51), 0), "nearly the same box"),  # IoU 40 / 41
        (((10, 10, 50, 51), 1), "nearly the same box"),
        (((10, 10, 50, 52.2), 0), None),  # IoU 40 / 42.2, below 0.95
        (((60, 60, 70, 70), 0), None),
    ],
)
def test_kinds(second, kind):
    found = find_duplicate_objects(record_of((BOX, 0), second))
    assert [(each.kind, each.first, each.second) for each in found] == ([(kind, 0, 1)] if kind else [])
    assert find_duplicate_objects(record_of((BOX, 0), second, crowd=True)) == []


def test_each_object_once_however_many():
    record = record_of(*[(BOX, 0)] * 3, ((10, 10, 50, 51), 0))
    assert [(each.first, each.second) for each in find_duplicate_objects(record)] == [(0, 1), (0, 2), (0, 3)]
    assert find_duplicate_objects(record_of()) == []
    lines = describe_duplicate_objects([record, record_of((BOX, 0), (BOX, 1))])
    assert lines == [
        "1 objects of 1 images are there twice, same box, another class, e.g. in a.jpg",
        "1 objects of 1 images are there twice, nearly the same box, e.g. in a.jpg",
    ]


def test_many_objects_in_blocks():
    torch.manual_seed(0)
    corner = torch.rand(700, 2, device="cpu") * 60
    boxes = torch.cat([corner, corner + 1 + torch.rand(700, 2, device="cpu") * 30], dim=1)
    boxes[600:650] = boxes[:50] + torch.tensor([0, 0, 0, 0.01], device="cpu")
    overlaps = pairwise_iou(boxes, boxes).tril(-1) > 0.95
    record = record_of(*((tuple(box), 0) for box in boxes.tolist()))
    assert (
        {each.second for each in find_duplicate_objects(record)}
        == set(torch.where(overlaps.any(dim=1))[0].tolist())
        >= set(range(600, 650))
    )


def test_equal_objects_have_the_very_box_and_class():
    other = (10.0, 10.0, 50.0, 51.0)
    unlike = [record_of((BOX, 0), (other, 0)), record_of((BOX, 0), (BOX, 1)), record_of(), record_of((BOX, 0))]
    assert describe_equal_objects(unlike) is None
    equal = [record_of((BOX, 0), (other, 0), (BOX, 0), (BOX, 0)), record_of((other, 0), (other, 0), name="b")]
    expected = "3 objects in 2 images have the very box and class of another; the first: 2 in a.jpg"
    assert describe_equal_objects([*unlike, *equal]) == expected
