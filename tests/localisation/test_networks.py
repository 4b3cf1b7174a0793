"""The networks of both stages: their losses, what learns from a batch, what they predict, and how they start."""

import math

import pytest
import torch
from torch import nn

from backbones import Preprocessing, build_backbone
from detection.errors import BackboneError, CheckpointError
from detection.localisation.batches import RoiBatch, RpnBatch
from detection.localisation.networks import LocRpn, build_rcnn, build_rpn, initialise
from detection.modeling.boxes import decode_boxes, encode_boxes, mirror_boxes
from detection.weights.checkpoint import CheckpointMetadata, write_checkpoint
from tests.localisation.small_localiser import CHANNELS, NAMES, make_config, make_rcnn, make_rpn, small_backbones

pytestmark = pytest.mark.usefixtures("_small")
OWN = Preprocessing("bgr", (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))


@pytest.fixture(scope="module")
def _small():
    with small_backbones():
        yield


def images(count: int, side: int = 64) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8)


def rpn_batch(labels=(2, 0), boxes=(((8.0, 8, 40, 56),), ())) -> RpnBatch:
    found = [torch.tensor(each, dtype=torch.float32).reshape(-1, 4) for each in boxes]
    return RpnBatch(images(len(labels)), torch.tensor(labels), found, ["a"] * len(labels))


def roi_batch(labels=(2, 0, 2), positive=(True, False, False)) -> RoiBatch:
    rois = torch.tensor([[10.0, 20, 50, 80], [0, 0, 30, 30], [5, 5, 6, 6]])[: len(labels)]
    gt_boxes = torch.tensor([[12.0, 16, 48, 90], [60, 60, 90, 90], [60, 60, 90, 90]])[: len(labels)]
    return RoiBatch(images(len(labels)), torch.tensor(labels), rois, gt_boxes, torch.tensor(positive), ["a"] * len(labels))


def learning_rows(model) -> set[int]:
    """The classes whose rows have a gradient."""
    return learning_rows_of(model.head.scores) | learning_rows_of(model.head.deltas)


def zero_features(model) -> None:
    """So the outputs are the biases, whatever the image."""
    for parameter in model.backbone.parameters():
        nn.init.zeros_(parameter)


def test_the_grid_of_a_crop_lies_symmetrically_in_it():
    anchors = make_rpn().anchors(torch.zeros(1, CHANNELS, 7, 7)).reshape(7, 7, 4, 4)
    torch.testing.assert_close(mirror_boxes(anchors, 224).flip(1), anchors)
    torch.testing.assert_close((anchors[..., :2] + anchors[..., 2:])[3, 3] / 2, torch.full((4, 2), 112.0))


def test_the_rpns_losses_are_those_of_equal_scores_at_the_start():
    model = make_rpn()
    zero_features(model)
    losses = model(rpn_batch())
    assert list(losses) == ["loss_rpn_class", "loss_rpn_box"]
    assert losses["loss_rpn_class"].item() == pytest.approx(math.log(2))


def test_the_rpns_box_loss_in_numbers():
    # One cell, one anchor of 32 x 32 at its centre, and an object of that size 4 pixels to its right: an IoU of 28 / 36.
    model = make_rpn(rpn={"anchor_sizes": [32], "anchor_ratios": [1.0]})
    zero_features(model)
    model.head.deltas.get_parameter("bias").data[8:12] = torch.tensor([0.5, 0.0, 0.0, 1.0])  # of class 2
    batch = RpnBatch(images(1, 32), torch.tensor([2]), [torch.tensor([[4.0, 0, 36, 32]])], ["a"])
    # The object is at (0.125, 0, 0, 0): |d| is 0.375 and 1, both beyond beta = 1/9.
    assert model(batch)["loss_rpn_box"].item() == pytest.approx(0.375 + 1 - 2 / 18)


@pytest.mark.parametrize(("other_classes", "rows"), [("ignored", {0, 2}), ("negative", {0, 1, 2}), ("common", {0, 2})])
def test_which_classes_learn_from_a_batch(other_classes, rows):
    model = make_rpn(rpn={"other_classes": other_classes})
    sum(model(rpn_batch()).values()).backward()
    assert learning_rows(model) == rows
    rcnn = make_rcnn(rcnn={"other_classes": other_classes})
    sum(rcnn(roi_batch()).values()).backward()
    assert learning_rows(rcnn) == rows


def test_boxes_are_learnt_by_the_own_class_of_positives_only():
    model = make_rpn(rpn={"other_classes": "negative"})
    model(rpn_batch())["loss_rpn_box"].backward()
    assert learning_rows_of(model.head.deltas) == {2}  # the image of class 0 has no object
    rcnn = make_rcnn(rcnn={"other_classes": "negative"})
    rcnn(roi_batch())["loss_box"].backward()
    assert learning_rows_of(rcnn.head.deltas) == {2}


def learning_rows_of(layer: nn.Conv2d) -> set[int]:
    assert layer.weight.grad is not None
    return set(layer.weight.grad.reshape(len(NAMES), -1).ne(0).any(dim=1).nonzero().squeeze(1).tolist())


def test_the_rpns_negative_form_is_the_literal_one():
    # As many anchors as there are: the sample is all of them that are positive or negative, in whatever order.
    model = make_rpn(rpn={"other_classes": "negative", "sample_size": 1000, "positive_fraction": 1.0})
    batch = rpn_batch()
    loss = model(batch)["loss_rpn_class"]
    features = model.features(batch.images)
    logits, _ = model.head(features)
    own = make_rpn_matches(model, batch)
    expected, count = 0.0, 0
    for image, matches in enumerate(own):
        for anchor, match in enumerate(matches.tolist()):
            if match >= 0:
                count += 1
                for label in range(3):
                    true = float(match == 1 and label == batch.labels[image])
                    expected += nn.functional.binary_cross_entropy_with_logits(
                        logits[image, label, anchor], torch.tensor(true)
                    ).item()
    assert loss.item() == pytest.approx(expected / count, rel=1e-5)


def make_rpn_matches(model: LocRpn, batch: RpnBatch) -> list[torch.Tensor]:
    from detection.modeling.matching import match_anchors

    anchors = model.anchors(torch.zeros(1, 1, 2, 2))
    rpn = model.config.rpn
    return [match_anchors(anchors, boxes, rpn.positive_iou, rpn.negative_iou)[0] for boxes in batch.boxes]


def test_the_rcnns_losses_in_numbers():
    model = make_rcnn()
    zero_features(model)
    model.head.scores.get_parameter("bias").data[:] = torch.tensor([1.0, 5.0, -1.0])
    batch = roi_batch()
    losses = model(batch)
    assert list(losses) == ["loss_class", "loss_box"]
    # Labels 2, 0, 2: positive at -1, negative at 1, negative at -1.
    expected = (math.log(1 + math.e) + math.log(1 + math.e) + math.log(1 + 1 / math.e)) / 3
    assert losses["loss_class"].item() == pytest.approx(expected, rel=1e-6)
    wanted = encode_boxes(batch.gt_boxes[:1], batch.rois[:1], (0.1, 0.1, 0.2, 0.2))[0]
    parts = [d * d / 2 if abs(d) < 1 else abs(d) - 0.5 for d in wanted.tolist()]
    assert losses["loss_box"].item() == pytest.approx(sum(parts) / 3, rel=1e-5)


@pytest.mark.parametrize("other_classes", ["ignored", "negative", "common"])
def test_batches_without_objects_train(other_classes):
    model = make_rpn(rpn={"other_classes": other_classes})
    losses = model(rpn_batch(boxes=((), ())))
    sum(losses.values()).backward()
    assert losses["loss_rpn_box"].item() == 0 and losses["loss_rpn_class"].isfinite()
    assert learning_rows_of(model.head.deltas) == set()
    rcnn = make_rcnn(rcnn={"other_classes": other_classes})
    losses = rcnn(roi_batch(positive=(False, False, False)))
    sum(losses.values()).backward()
    assert losses["loss_box"].item() == 0 and losses["loss_class"].isfinite()


def test_a_negative_roi_may_have_any_object():
    batch = roi_batch()
    batch.gt_boxes[1:] = torch.tensor([7.0, 7, 7, 7])  # no area: its logarithm is infinite
    losses = make_rcnn()(batch)
    assert all(loss.isfinite() for loss in losses.values())


def test_scores_of_a_thousand_classes_start_as_rare_where_all_are_asked():
    names = tuple(f"n{number:08d}" for number in range(1000))
    model = make_rpn(names, rpn={"other_classes": "negative"})
    zero_features(model)
    assert model(rpn_batch(labels=(999, 0)))["loss_rpn_class"].item() < 5  # 693 from one half on


def test_rpn_predictions_are_anchors_moved_by_the_classes_own_deltas():
    model = make_rpn()
    pixels, classes = images(2), torch.tensor([[2, 0], [1, 2]])
    scores, boxes = model.predict(pixels, classes)
    features = model.features(pixels)
    logits, deltas = model.head(features)
    rows = torch.arange(2)[:, None]
    torch.testing.assert_close(scores, logits.sigmoid()[rows, classes])
    torch.testing.assert_close(boxes, decode_boxes(deltas[rows, classes], model.anchors(features)))
    assert (scores.shape, boxes.shape) == ((2, 2, 16), (2, 2, 16, 4))


def test_rcnn_predictions_are_rois_moved_by_their_own_classes_deltas():
    model, batch = make_rcnn(), roi_batch()
    scores, boxes = model.predict(batch.images, batch.rois, batch.labels)
    for row, label in enumerate(batch.labels.tolist()):
        vector = model.features(batch.images[row : row + 1]).mean(dim=(2, 3))[0]
        logit = model.head.scores.weight[label, :, 0, 0] @ vector + model.head.scores.get_parameter("bias")[label]
        rows = slice(4 * label, 4 * label + 4)
        delta = model.head.deltas.weight[rows, :, 0, 0] @ vector + model.head.deltas.get_parameter("bias")[rows]
        torch.testing.assert_close(scores[row], logit.sigmoid())
        torch.testing.assert_close(boxes[row], decode_boxes(delta, batch.rois[row], (0.1, 0.1, 0.2, 0.2)), rtol=1e-5, atol=1e-4)


def test_coordinates_and_losses_are_float32_under_autocast():
    rpn, rcnn, rois = make_rpn(), make_rcnn(), roi_batch()
    with torch.autocast("cpu", torch.bfloat16):
        found = [*rpn(rpn_batch()).values(), *rcnn(rois).values(), *rpn.predict(images(1), torch.tensor([[1]]))]
        found += rcnn.predict(rois.images, rois.rois, rois.labels)
    assert {each.dtype for each in found} == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        zero_features(rcnn)
        nn.init.zeros_(rcnn.head.deltas.get_parameter("bias"))
        _, boxes = rcnn.predict(rois.images, rois.rois + 1 / 1024, rois.labels)
    torch.testing.assert_close(boxes, rois.rois + 1 / 1024, rtol=0, atol=1e-5)


def test_outputs_that_are_not_finite_are_refused():
    model = make_rpn()
    nn.init.constant_(model.head.scores.get_parameter("bias"), torch.nan)
    with pytest.raises(CheckpointError, match="not finite"):
        model.predict(images(1), torch.tensor([[0]]))


def test_images_are_normalised_by_the_backbones_preprocessing():
    model, pixels = make_rpn(), images(1)
    model.backbone.preprocessing = OWN
    expected = model.backbone(OWN.normalize(pixels))["c5"]
    torch.testing.assert_close(model.features(pixels), expected)


def test_settings_of_the_backbone_are_obeyed():
    config = make_config(model={"backbone": "narrow", "norm": "bn", "freeze_stages": 2})
    model = build_rpn(config, NAMES)
    assert isinstance(model.backbone.get_submodule("bn1"), nn.BatchNorm2d)
    trained = {name for name, parameter in model.backbone.named_parameters() if parameter.requires_grad}
    assert "layer2.0.conv1.weight" in trained and not any(name.startswith(("conv1.", "layer1.")) for name in trained)
    assert not model.train().backbone.get_submodule("bn1").training
    assert model.head.scores.weight.shape == (3 * 4, 64, 1, 1) and model.head.deltas.weight.shape == (3 * 4 * 4, 64, 1, 1)
    assert {key.partition(".")[0] for key in model.state_dict()} == {"backbone", "head"}
    assert model(rpn_batch())["loss_rpn_class"].isfinite()


def test_an_rcnn_has_one_anchor():
    model = build_rcnn(make_config(model={"backbone": "narrow"}), NAMES)
    assert model.head.scores.weight.shape == (3, 64, 1, 1) and model.head.deltas.weight.shape == (12, 64, 1, 1)


@pytest.mark.parametrize(("backbone", "says"), [("cifar_resnet20", "c4 of stride 4"), ("vgg16", "c5 of stride 16")])
def test_backbones_without_c5_of_stride_32_are_refused(backbone, says):
    with pytest.raises(BackboneError, match=f"model.backbone is {backbone}, .*{says}: localisation needs c5 of stride 32"):
        build_rpn(make_config(model={"backbone": backbone}), NAMES)


@pytest.fixture(scope="module")
def classifier_file(module_path, _small):
    path = module_path / "classifier.pt"
    metadata = CheckpointMetadata("classifier", ("a", "b"), OWN, {"model": {"backbone": "narrow", "stride_in_1x1": False}})
    write_checkpoint(metadata, build_backbone("narrow", num_classes=2).state_dict(), path)
    return path


@pytest.mark.parametrize("build", [build_rpn, build_rcnn])
def test_a_classifier_starts_the_backbone(classifier_file, build):
    model = build(make_config(model={"backbone": "narrow"}), NAMES)
    head = {key: value.clone() for key, value in model.head.state_dict().items()}
    said = initialise(model, classifier_file)
    assert f"the backbone starts from the classifier {classifier_file}" in said and "random numbers" in said
    saved = torch.load(classifier_file, weights_only=True)["model"]
    torch.testing.assert_close(model.backbone.state_dict()["layer4.1.conv2.weight"], saved["layer4.1.conv2.weight"])
    torch.testing.assert_close(dict(model.head.state_dict()), head, rtol=0, atol=0)
    assert model.preprocessing == OWN


def test_plain_weights_start_the_backbone(tmp_path):
    theirs = build_backbone("narrow", num_classes=2)
    torch.save(theirs.state_dict(), tmp_path / "narrow.pth")
    model = build_rpn(make_config(model={"backbone": "narrow"}), NAMES)
    assert "the backbone starts from the plain weights" in initialise(model, tmp_path / "narrow.pth")
    torch.testing.assert_close(model.backbone.state_dict()["conv1.weight"], theirs.state_dict()["conv1.weight"])


@pytest.mark.parametrize(
    ("network", "says"),
    [
        ({"backbone": "tiny"}, "holds a narrow, not a tiny"),
        ({"backbone": "narrow", "stride_in_1x1": True}, "trained with stride_in_1x1=False, the model has True"),
        ({"backbone": "narrow", "stem_pool": "ceil"}, "trained with stem_pool=pad1, the model has ceil"),
    ],
)
def test_a_classifier_of_another_network_is_refused(classifier_file, network, says):
    with pytest.raises(CheckpointError, match=says):
        initialise(build_rpn(make_config(model=network), NAMES), classifier_file)
