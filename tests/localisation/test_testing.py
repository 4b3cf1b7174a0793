"""Boxes of given classes in an image: all views, mirrored ones, several networks, several images at once."""

import pytest
import torch

from detection.config import LocTestConfig
from detection.errors import CheckpointError, ConfigError
from detection.localisation.testing import find_boxes, find_boxes_in_each
from detection.localisation.views import views_of
from detection.modeling.boxes import decode_boxes, mirror_boxes
from tests.localisation.small_localiser import make_rpn, noise

DENSE = LocTestConfig(views="dense", scales=(64, 96), longer_side=200, batch_size=4)
ALL_TESTS = {
    "dense": DENSE,
    "center": LocTestConfig(views="center"),
    "flip": LocTestConfig(views="dense", scales=(64, 96), flip=True, batch_size=3),
}
CLASSES = torch.tensor([2, 0])


def literal(model, image, label, test):
    """One class, view by view, in the dense layers' outputs: scores (P,) and boxes (P, 4)."""
    scores, boxes = [], []
    for view in views_of(tuple(image.shape[1:]), test, model.config.data.image_size):
        features = model.features(view.of_image(image)[None])
        logits, deltas = model.head(features)
        found = decode_boxes(deltas[0, label], model.anchors(features))
        if view.mirrored:
            found = mirror_boxes(found, view.size_hw[1])
        for score, box in zip(logits[0, label].sigmoid(), found, strict=True):
            x1, y1, x2, y2 = (box + torch.tensor([*view.corner, *view.corner])).tolist()
            ratio_x, ratio_y = image.shape[2] / view.resized_hw[1], image.shape[1] / view.resized_hw[0]
            xs, ys = [x1 * ratio_x, x2 * ratio_x], [y1 * ratio_y, y2 * ratio_y]
            xs, ys = [min(max(x, 0), image.shape[2]) for x in xs], [min(max(y, 0), image.shape[1]) for y in ys]
            scores.append(score)
            boxes.append(torch.tensor([xs[0], ys[0], xs[1], ys[1]]))
    return torch.stack(scores), torch.stack(boxes)


@pytest.mark.parametrize("test", ALL_TESTS.values(), ids=ALL_TESTS)
def test_boxes_are_the_literal_ones(test):
    model, image = make_rpn(), noise(75, 101)
    found = find_boxes([model], image, CLASSES, test)
    assert found.size_hw == (75, 101) and len(found) == 2
    for row, label in enumerate(CLASSES.tolist()):
        scores, boxes = literal(model, image, label, test)
        torch.testing.assert_close(found.scores[row], scores)
        torch.testing.assert_close(found.boxes[row], boxes, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("test", ALL_TESTS.values(), ids=ALL_TESTS)
def test_images_together_are_images_alone(test):
    model = make_rpn()
    images = [noise(*size_hw) for size_hw in ((75, 101), (64, 64), (75, 101), (96, 96), (130, 70))]
    classes = torch.tensor([[0, 1], [2, 0], [1, 1], [0, 2], [2, 1]])
    together = find_boxes_in_each([model], images, classes, test)
    for found, image, own in zip(together, images, classes, strict=True):
        alone = find_boxes([model], image, own, test)
        torch.testing.assert_close((found.scores, found.boxes), (alone.scores, alone.boxes), rtol=1e-4, atol=1e-3)
        assert found.size_hw == alone.size_hw


def test_a_views_place_does_not_depend_on_other_images():
    # The second image's larger view has the size of the first image's smaller one, and so would come first.
    model, images = make_rpn(), [noise(96, 96), noise(64, 64)]
    test = LocTestConfig(scales=(96, 64), batch_size=8)
    found = find_boxes_in_each([model], [images[0][:, :64], images[1]], torch.tensor([[0], [0]]), test)
    alone = find_boxes([model], images[1], torch.tensor([0]), test)
    torch.testing.assert_close(found[1].boxes, alone.boxes, rtol=1e-4, atol=1e-3)


def test_a_mirrored_image_has_mirrored_boxes():
    model, image = make_rpn(), noise(64, 96)
    test = LocTestConfig(scales=(64,), flip=True)
    found, mirrored = (find_boxes([model], each, CLASSES, test) for each in (image, image.flip(2)))
    half = found.scores.shape[1] // 2
    for first, second in ((slice(0, half), slice(half, None)), (slice(half, None), slice(0, half))):
        torch.testing.assert_close(found.scores[:, first], mirrored.scores[:, second])
        torch.testing.assert_close(found.boxes[:, first], mirror_boxes(mirrored.boxes[:, second], 96), rtol=1e-4, atol=1e-3)


def test_an_ensemble_averages_anchor_by_anchor():
    first, second, image = make_rpn(), make_rpn(), noise(40, 300)
    test = LocTestConfig(views="dense", scales=(64,), longer_side=200)
    found = find_boxes([first, second], image, CLASSES, test)
    (view,) = views_of((40, 300), test, 64)
    parts = [model.predict(view.of_image(image)[None], CLASSES[None]) for model in (first, second)]
    torch.testing.assert_close(found.scores, (parts[0][0][0] + parts[1][0][0]) / 2)
    torch.testing.assert_close(found.boxes, view.to_image((parts[0][1][0] + parts[1][1][0]) / 2), rtol=1e-4, atol=1e-3)


def test_an_ensemble_of_one_and_of_equal_ones_is_that_one():
    model, image = make_rpn(), noise(75, 101)
    alone = find_boxes([model], image, CLASSES, DENSE)
    twice = find_boxes([model, model], image, CLASSES, DENSE)
    torch.testing.assert_close((twice.scores, twice.boxes), (alone.scores, alone.boxes))


def test_memory_that_runs_out_is_told_with_the_settings_to_lower(monkeypatch):
    model = make_rpn()
    monkeypatch.setattr(model, "predict", lambda images, classes: (_ for _ in ()).throw(MemoryError()))
    says = r"Lower test.batch_size \(now 4\), or the largest of test.scales \(now 96\) with test.longer_side \(now 200\)$"
    with pytest.raises(ConfigError, match=says):
        find_boxes([model], noise(64, 64), CLASSES, DENSE)


def test_networks_keep_their_modes_and_need_no_gradient():
    model = make_rpn().train()
    found = find_boxes([model], noise(64, 64), CLASSES, DENSE)
    assert model.training and not found.boxes.requires_grad


def test_no_image_and_no_class():
    model = make_rpn()
    assert find_boxes_in_each([model], [], torch.zeros((0, 5), dtype=torch.long), DENSE) == []
    found = find_boxes([model], noise(64, 64), torch.zeros(0, dtype=torch.long), DENSE)
    assert found.scores.shape[0] == found.boxes.shape[0] == 0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rpn": {"anchor_sizes": [24, 50]}}, r"RPN 2 of the ensemble has rpn.anchor_sizes=\(24.0, 50.0\), the first"),
        ({"rpn": {"anchor_ratios": [1.0]}}, r"RPN 2 of the ensemble has rpn.anchor_ratios=\(1.0,\), the first"),
        ({"data": {"image_size": 96}}, "RPN 2 of the ensemble has data.image_size=96, the first 64: what they give"),
    ],
)
def test_networks_of_other_anchors_are_no_ensemble(changes, says):
    with pytest.raises(ConfigError, match=says):
        find_boxes([make_rpn(), make_rpn(**changes)], noise(64, 64), CLASSES, ALL_TESTS["center"])


def test_dense_views_do_not_depend_on_the_side_in_training():
    found = find_boxes([make_rpn(), make_rpn(data={"image_size": 96})], noise(64, 64), CLASSES, DENSE)
    assert found.scores.shape == (2, (4 + 9) * 4)


def test_networks_of_other_classes_are_no_ensemble():
    with pytest.raises(CheckpointError, match="network 2 of the ensemble has other classes"):
        find_boxes([make_rpn(), make_rpn(("a", "b", "c"))], noise(64, 64), CLASSES, DENSE)
