"""The detector's promises: empty cases, frozen parts, lists equal singles, padding never trained on."""

import pytest
import torch

from backbones import FrozenBatchNorm2d, build_backbone
from detection.modeling.matching import IGNORED
from detection.modeling.roi_head import RoiHead
from detection.resize import resized_size
from detection.structures import Batch, Target, pad_images
from tests.small_detector import detector, noise


def target(*boxes: list[float], ignored: tuple = ()) -> Target:
    return Target(
        torch.tensor(boxes).reshape(-1, 4), torch.zeros(len(boxes), dtype=torch.long), torch.tensor(ignored).reshape(-1, 4)
    )


@pytest.mark.parametrize("pooling", ["max", "align"])
def test_losses_are_finite_and_train_everything_but_the_frozen_stages(pooling):
    model = detector(roi={"pooling": pooling})
    batch = Batch(noise(64, 80)[None], [(64, 80)], [target([8.0, 8, 40, 40])])
    losses = model(batch)
    assert set(losses) == {"loss_rpn_objectness", "loss_rpn_box", "loss_class", "loss_box"}
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        frozen = name.startswith(("trunk.conv1", "trunk.layer1"))
        if parameter.grad is None:
            assert frozen, name
        else:
            assert not frozen and parameter.grad.isfinite().all(), name


def test_conv5_may_begin_before_the_pooling(monkeypatch):
    model = detector(model={"backbone": "resnet50"})
    batch = Batch(noise(64, 80)[None], [(64, 80)], [target([8.0, 8, 40, 40])])

    def compute():
        torch.manual_seed(0)  # the sampled anchors and RoIs
        losses = model(batch)
        found = model.predict([noise_of_seed(1, 64, 90)])[0]
        return losses, found.boxes, found.scores, found.labels  # gradients: in double, with the head's own tests

    fast = compute()
    monkeypatch.setattr(RoiHead, "begin", lambda self, features: None)
    torch.testing.assert_close(fast, compute(), rtol=1e-4, atol=1e-4)


def noise_of_seed(seed: int, *size_hw: int) -> torch.Tensor:
    torch.manual_seed(seed)
    return noise(*size_hw)


def test_norms_are_constants_by_construction():
    model = detector().train()
    assert sum(isinstance(module, FrozenBatchNorm2d) for module in model.modules()) == 20
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())


def test_a_batch_without_any_box_still_trains():
    model = detector()
    losses = model(Batch(noise(64, 80)[None], [(64, 80)], [target()]))
    assert losses["loss_box"] == 0 and losses["loss_rpn_box"] == 0
    assert losses["loss_class"] > 0 and losses["loss_rpn_objectness"] > 0
    sum(losses.values()).backward()
    # DistributedDataParallel waits for every trained parameter.
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)


def test_an_image_that_leaves_nothing_to_sample_gives_zero_not_nan():
    model = detector(roi={"negative_iou": [0.0, 0.0], "positive_iou": 1.0})
    whole = (0.0, 0.0, 80.0, 64.0)
    losses = model(Batch(noise(64, 80)[None], [(64, 80)], [target(ignored=whole)]))
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()


def test_no_anchor_on_padding_is_trained_or_proposed():
    model = detector(rpn={"ignore_straddling": False})
    small, large = noise(32, 48), noise(64, 96)
    batch = Batch(pad_images([small, large]), [(32, 48), (64, 96)], [target([4.0, 4, 30, 30]), target([4.0, 4, 30, 30])])
    output = model.rpn(model.extract(batch))
    match_labels, _ = model.rpn.match(output.anchors, batch.targets[0], (32, 48))
    centers = (output.anchors[:, :2] + output.anchors[:, 2:]) / 2
    outside = (centers[:, 0] >= 48) | (centers[:, 1] >= 32)
    assert outside.any() and (match_labels[outside] == IGNORED).all() and (match_labels[~outside] != IGNORED).any()
    for boxes, (height, width) in zip(model.propose(model.extract(batch), batch.sizes_hw), batch.sizes_hw, strict=True):
        assert (boxes >= 0).all() and (boxes[:, 2] <= width).all() and (boxes[:, 3] <= height).all()


def test_anchors_on_padding_count_where_the_config_says_so():
    model = detector(rpn={"ignore_straddling": False, "anchors_on_padding": True, "nms_threshold": 1.0, "post_nms_test": 500})
    batch = Batch(pad_images([noise(32, 48), noise(64, 96)]), [(32, 48), (64, 96)])
    output = model.rpn(model.extract(batch))
    match_labels, _ = model.rpn.match(output.anchors, target([4.0, 4, 30, 30]), (32, 48))
    centers = (output.anchors[:, :2] + output.anchors[:, 2:]) / 2
    outside = (centers[:, 0] >= 48) | (centers[:, 1] >= 32)
    assert (match_labels[outside] != IGNORED).any()
    proposals = model.propose(model.extract(batch), batch.sizes_hw)[0]
    assert len(proposals) > (~outside).sum() and (proposals <= torch.tensor([48, 32, 48, 32])).all()


def test_padding_is_zero_after_normalisation():
    model = detector()
    seen = []
    model.trunk.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model.extract(Batch(pad_images([noise(32, 48), noise(64, 96)]), [(32, 48), (64, 96)]))
    assert (seen[0][0, :, 32:] == 0).all() and (seen[0][0, :, :, 48:] == 0).all() and (seen[0][1] != 0).any()


def test_straddling_anchors_are_left_out_in_the_paper_recipe():
    model = detector()
    anchors = torch.tensor([[-1.0, 0, 15, 16], [0, 0, 16, 16]])
    match_labels, _ = model.rpn.match(anchors, target([0.0, 0, 16, 16]), (64, 80))
    assert match_labels.tolist() == [IGNORED, 1]


def test_classify_of_no_proposals_is_empty():
    model = detector()
    features = model.extract(Batch(noise(64, 80)[None], [(64, 80)]))
    found = model.classify(features, [torch.zeros(0, 4)], [(64, 80)])
    assert found.scores[0].shape == (0, 2) and found.boxes[0].shape == (0, 2, 4)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((600, 800), (600, 800)), ((300, 400), (600, 800)), ((400, 1000), (400, 1000)), ((1, 5000), (1, 1000))],
)
def test_resized_size_by_hand(size, expected):
    assert resized_size(size, 600, 1000) == expected


@pytest.mark.parametrize(("size", "expected"), [((22, 44), (666, 1333)), ((78, 39), (1333, 666)), ((21, 62), (451, 1333))])
def test_halves_of_pixels_are_rounded_as_in_detectron2(size, expected):
    """22 x 44 becomes 800 x 1600, and that times 1333 / 1600, which is a little less than 666.5 x 1333."""
    assert resized_size(size, 800, 1333) == expected


def test_a_classifier_initialises_the_detector():
    classifier = build_backbone("resnet18", num_classes=7)
    model = detector()
    model.load_backbone(classifier.state_dict(), classifier.preprocessing)
    images = torch.randn(1, 3, 64, 80)
    frozen = classifier.eval()(images)
    torch.testing.assert_close(model.trunk(images), frozen["c4"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.roi_head.conv5(frozen["c4"]), frozen["c5"].mean(dim=(2, 3)), rtol=1e-4, atol=1e-4)
