"""Boxes of many images, against one image after the other, and their errors, against the definition."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from detection.engine.distributed import World
from detection.errors import DatasetError
from detection.localisation.evaluate import (
    centre_view,
    gt_class_error,
    guesses_of,
    localise_images,
    localise_together,
    measure_guesses,
    true_classes,
    truth_of,
    with_guesses,
)
from detection.localisation.images import LocImages, read_loc_images
from detection.localisation.merging import best_box, top_proposals
from detection.localisation.rescoring import rescore
from detection.localisation.testing import find_boxes
from tests.localisation.loc_kit import make_config, write_loc
from tests.localisation.small_localiser import make_rcnn, make_rpn

TINY: dict[str, dict[str, Any]] = {
    "model": {"backbone": "tiny"},
    "rpn": {"anchor_sizes": [24, 48], "anchor_ratios": [1.0, 2.0]},
}
CLASSES = ("n01", "n02", "n03")


@pytest.fixture(scope="module")
def config(module_path):
    """Five validation images, three per batch of the test, and five proposals of each class."""
    test = {"scales": [64, 96], "longer_side": 160, "batch_size": 3}
    return make_config(write_loc(module_path / "loc", num_val=5), None, **TINY, test=test, rcnn={"num_proposals": 5})


@pytest.fixture(scope="module")
def images(config) -> LocImages:
    return read_loc_images(config.data, config.data.val)


def networks():
    return make_rpn(CLASSES, **TINY), make_rcnn(CLASSES, **TINY)


def literal(image, classes, config, rpns, rcnns):
    """An image's boxes by the RPN and by the R-CNN, class by class."""
    first, second = [], []
    for label in classes:
        found = find_boxes(rpns, image, label[None], config.test)
        first.append(best_box(found, config.test)[0][0])
        proposals, _ = top_proposals(found, config.rcnn)
        second.append(best_box(rescore(rcnns, image, proposals, label[None], config.test), config.test)[0][0])
    return torch.stack(first), torch.stack(second)


def test_boxes_are_those_of_one_image_after_the_other(config, images):
    rpn, rcnn = networks()
    classes = torch.tensor([[0, 1], [1, 2], [2, 0], [0, 0], [1, 0]])
    done: list[int] = []
    found = localise_images([rpn], [rcnn], images, config, classes, report=done.append)
    assert found.rcnn is not None and found.final is found.rcnn and done == [3, 5]
    assert found.rpn.shape == (5, 2, 4) and found.rpn.dtype == torch.float32
    for row in range(5):
        image = torch.from_numpy(images.image(row)).permute(2, 0, 1)
        first, second = literal(image, classes[row], config, [rpn], [rcnn])
        torch.testing.assert_close(found.rpn[row], first, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(found.rcnn[row], second, rtol=1e-4, atol=1e-3)


def test_without_an_rcnn_the_boxes_are_the_rpns(config, images):
    found = localise_images([make_rpn(CLASSES, **TINY)], [], images, config, true_classes(images))
    assert found.rcnn is None and found.final is found.rpn and found.rpn.shape == (5, 1, 4)


def test_boxes_are_in_pixels_of_the_annotated_size(config, images):
    rpn, rcnn = networks()
    twice = replace(images, sizes_hw=images.sizes_hw * 2)
    found, scaled = (localise_images([rpn], [rcnn], each, config, true_classes(each)) for each in (images, twice))
    torch.testing.assert_close(scaled.rpn, found.rpn * 2)
    torch.testing.assert_close(scaled.final, found.final * 2)


def test_several_processes_find_what_one_does(config, images, monkeypatch):
    rpn, rcnn = networks()
    classes = torch.tensor([[0, 1], [1, 2], [2, 0], [0, 0], [1, 0]])
    whole = localise_images([rpn], [rcnn], images, config, classes)
    worlds = [World(rank, 2, torch.device("cpu")) for rank in range(2)]
    shares: list[Any] = []

    def gather(world: World, value: Any) -> list[Any]:
        shares.append(value)
        return [value] * 2

    monkeypatch.setattr("detection.localisation.evaluate.all_gather", gather)
    for world in worlds:
        localise_together(world, [rpn], [rcnn], images, config, classes)
    assert [len(share.rpn) for share in shares] == [3, 2]
    monkeypatch.setattr("detection.localisation.evaluate.all_gather", lambda world, value: shares)
    together = localise_together(worlds[0], [rpn], [rcnn], images, config, classes)
    torch.testing.assert_close((together.rpn, together.final), (whole.rpn, whole.final), rtol=1e-4, atol=1e-3)


def test_an_image_that_cannot_be_read_is_an_error(config, images, tmp_path):
    broken = replace(images, folder=str(tmp_path))
    with pytest.raises(DatasetError, match=r"ILSVRC2012_val_00000001\.JPEG"):
        localise_images([make_rpn(CLASSES, **TINY)], [], broken, config, true_classes(images))


def test_no_image_at_all(config, images):
    nothing = images.subset([])
    found = localise_images([make_rpn(CLASSES, **TINY)], [], nothing, config, true_classes(nothing))
    assert found.rpn.shape == (0, 1, 4) and np.isnan(gt_class_error(nothing, found.final[:, 0]))


def test_the_centre_view_keeps_the_rest_of_the_test(config):
    centre = centre_view(config)
    assert centre.test.views == "center" and centre.test.scales == config.test.scales and centre.data == config.data


def test_the_ground_truth_is_that_of_the_images(images):
    truth = truth_of(images)
    assert truth.num_classes == 3 and truth.labels.tolist() == [0, 1, 2, 0, 1]
    assert truth.images.tolist() == [0, 1, 1, 2, 3, 3, 4] and truth.unevaluated.tolist() == [False, True, False, False, False]
    # loc_kit's boxes: 10..30 x 5..30 with both ends, and 36..58 x 13..39.
    assert truth.boxes[:3].tolist() == [[10, 5, 31, 31], [10, 5, 31, 31], [36, 13, 59, 40]]


def test_errors_by_hand(images):
    """Image 0: right. 1: wrong, but blacklisted. 2: just below IoU 0.5. 3: its second object. 4: exactly 0.5."""
    boxes = torch.tensor([[10.0, 5, 31, 31], [0, 0, 1, 1], [10, 5, 20.4, 31], [36, 13, 59, 40], [10, 5, 20.5, 31]])
    assert gt_class_error(images, boxes) == pytest.approx(1 / 4)
    classes = torch.tensor([[1, 0, -1], [1, 2, -1], [2, 1, 0], [2, 1, -1], [1, -1, -1]])
    guessed = boxes[:, None].expand(-1, 3, 4)
    errors = measure_guesses(images, classes, guessed)
    # Image 1 counts for its class alone.
    assert errors.classification_error == pytest.approx([2 / 5, 1 / 5, 1 / 5, 1 / 5, 1 / 5])
    assert errors.localisation_error == pytest.approx([3 / 4, 2 / 4, 2 / 4, 2 / 4, 2 / 4])
    assert guesses_of(classes, guessed).labels.tolist()[0] == [1, 0, -1, -1, -1]


def test_the_true_class_comes_before_the_guesses(images):
    assert with_guesses(images, None).tolist() == [[0], [1], [2], [0], [1]]
    guessed = torch.tensor([[1, 0, 2, -1, -1]] * 5)
    found = with_guesses(images, guessed)
    assert found[:, 0].tolist() == [0, 1, 2, 0, 1] and found[:, 1:].equal(guessed) and found.dtype == torch.int64
