"""Which anchors enter the loss, and the loss in numbers computed by hand."""

import math

import pytest
import torch

from detection.config import LocRpnConfig
from detection.localisation.losses import box_loss, sample_anchors, score_loss, score_loss_of_all_classes
from detection.modeling.boxes import decode_boxes, pairwise_iou

# Four anchors in a row, and one that holds two of them.
ANCHORS = torch.tensor([[0.0, 0, 10, 10], [10, 0, 20, 10], [20, 0, 30, 10], [-10, -10, 0, 0], [0, 0, 20, 10]])


def sigmoid_loss(logit: float, truth: float) -> float:
    probability = 1 / (1 + math.exp(-logit))
    return -math.log(probability if truth else 1 - probability)


def test_positives_come_first_with_the_deltas_to_their_object():
    boxes = torch.tensor([[0.0, 0, 10, 10], [21, 0, 31, 10]])  # anchor 0; anchor 2 by 9 / 11
    sample = sample_anchors(ANCHORS, [boxes], LocRpnConfig(sample_size=8))
    assert sample.images.tolist() == [0] * len(sample.anchors)
    positive = sample.anchors[sample.is_positive].tolist()
    # Anchor 4 has an IoU of one half with the first object: neither positive nor negative.
    assert sorted(positive) == [0, 2] and sorted(sample.anchors[~sample.is_positive].tolist()) == [1, 3]
    assert sample.is_positive.tolist() == [True, True, False, False]
    decoded = decode_boxes(sample.targets, ANCHORS[positive])
    torch.testing.assert_close(decoded, boxes[[0 if anchor == 0 else 1 for anchor in positive]])


def test_the_best_anchor_of_an_object_is_positive_whatever_its_iou():
    sample = sample_anchors(ANCHORS, [torch.tensor([[0.0, 0, 4, 4]])], LocRpnConfig(sample_size=8))
    assert sample.anchors[sample.is_positive].tolist() == [0]


def test_an_image_gives_at_most_the_sample_size_and_half_of_it_positives():
    anchors = torch.tensor([[0.0, 0, 10, 10]] * 20 + [[50.0, 50, 60, 60]] * 20)
    sample = sample_anchors(anchors, [torch.tensor([[0.0, 0, 10, 10]])] * 3, LocRpnConfig(sample_size=8))
    for image in range(3):
        own = sample.images == image
        assert (own.sum(), sample.is_positive[own].sum()) == (8, 4)
        assert ((sample.anchors[own] < 20) == sample.is_positive[own]).all()


def test_images_without_objects_give_negatives_only():
    boxes = [torch.zeros((0, 4)), torch.tensor([[0.0, 0, 10, 10]]), torch.zeros((0, 4))]
    sample = sample_anchors(ANCHORS, boxes, LocRpnConfig(sample_size=4))
    assert [(sample.images == image).sum().item() for image in range(3)] == [4, 4, 4]
    assert sample.images[sample.is_positive].tolist() == [1]
    assert sample.targets.shape == (1, 4)
    nothing = sample_anchors(ANCHORS, boxes[:1], LocRpnConfig(sample_size=4))
    assert nothing.targets.shape == (0, 4) and not nothing.is_positive.any()


def test_anchors_across_the_border_count():
    sample = sample_anchors(ANCHORS, [torch.tensor([[-10.0, -10, 0, 0]])], LocRpnConfig(sample_size=8))
    assert sample.anchors[sample.is_positive].tolist() == [3]


@pytest.mark.parametrize("seed", range(5))
def test_labels_keep_the_thresholds(seed):
    torch.manual_seed(seed)
    corners = torch.rand(60, 2) * 100
    anchors = torch.cat([corners, corners + 5 + torch.rand(60, 2) * 60], dim=1)
    boxes = anchors[:3] + 3
    sample = sample_anchors(anchors, [boxes], LocRpnConfig(sample_size=50))
    iou = pairwise_iou(anchors, boxes)
    best_of_object = iou.argmax(dim=0).tolist()
    for anchor, positive in zip(sample.anchors.tolist(), sample.is_positive.tolist(), strict=True):
        assert positive == (bool(iou[anchor].max() >= 0.6) or anchor in best_of_object)
        assert positive or iou[anchor].max() < 0.3


def test_the_own_classes_loss_is_the_mean_over_the_sample():
    loss = score_loss(torch.tensor([0.0, 2.0, -1.0]), torch.tensor([True, False, False]))
    expected = (sigmoid_loss(0, 1) + sigmoid_loss(2, 0) + sigmoid_loss(-1, 0)) / 3
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_all_classes_losses_are_summed_over_classes_and_averaged_over_anchors():
    logits = torch.tensor([[1.0, 2.0, -3.0], [0.5, -0.5, 0.0]])
    loss = score_loss_of_all_classes(logits, torch.tensor([1, 0]), torch.tensor([True, False]))
    first = sigmoid_loss(1, 0) + sigmoid_loss(2, 1) + sigmoid_loss(-3, 0)
    second = sigmoid_loss(0.5, 0) + sigmoid_loss(-0.5, 0) + sigmoid_loss(0, 0)
    assert loss.item() == pytest.approx((first + second) / 2, rel=1e-6)


def test_with_one_class_both_forms_are_the_same():
    logits, positive = torch.randn(6), torch.rand(6) < 0.5
    of_all = score_loss_of_all_classes(logits[:, None], torch.zeros(6, dtype=torch.long), positive)
    torch.testing.assert_close(of_all, score_loss(logits, positive))


def test_the_box_loss_is_divided_by_the_sample():
    # |d| = 0.2 is beyond beta = 0.1: 0.2 - 0.05; |d| = 0.05 is within: 0.5 * 0.05^2 / 0.1.
    found = torch.tensor([[0.2, 0.05, 0.0, 0.0]])
    loss = box_loss(found, torch.zeros(1, 4), 5, beta=0.1)
    assert loss.item() == pytest.approx((0.15 + 0.0125) / 5, rel=1e-5)


def test_losses_of_nothing_are_zero_with_a_gradient():
    logits = torch.zeros(0, requires_grad=True)
    total = score_loss(logits, torch.zeros(0, dtype=torch.bool)) + box_loss(logits.reshape(0, 4), torch.zeros(0, 4), 0, beta=1)
    total.backward()
    assert total.item() == 0 and logits.grad is not None
