"""Proposals, losses and detections equal torchvision's, given the same weights, images and boxes."""

import pytest
import torch
from torch import nn
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import MultiScaleRoIAlign, roi_align

from detection.config import Config
from detection.modeling import FasterRCNN
from detection.structures import Batch, Target
from tests.small_detector import select_one

NUM_CLASSES = 3
SIZE_HW = (96, 128)
# So large that everything is sampled: the comparison then needs no common random choice.
ALL = 1_000_000


@pytest.fixture
def ours() -> FasterRCNN:
    config = Config.model_validate(
        {
            "model": {"backbone": "resnet18", "freeze_stages": 0},
            "rpn": {
                "channels": 256, "anchor_sizes": [16, 32, 64], "sample_size": ALL, "ignore_straddling": False, "min_size": 4,
                "pre_nms_train": 200, "post_nms_train": 60, "pre_nms_test": 150, "post_nms_test": 40,
            },
            "roi": {
                "pooling": "align", "pool_size": 7, "sampling_ratio": 2, "sample_size": ALL, "negative_iou": [0, 0.5],
                "smooth_l1_beta": 1 / 9,
            },
            "data": {"classes": ["a", "b", "c"]},
            # All detections: we drop empty boxes after choosing the best, as detectron2, and torchvision before.
            "test": {
                "shorter_side": 96, "longer_side": 128, "score_threshold": 0.05, "nms_threshold": 0.5, "max_detections": 1000,
            },
        }
    )  # fmt: skip
    model = FasterRCNN(config).eval()
    # Initial predictors are nearly constant; give them something to say.
    for layer in (model.rpn.objectness, model.rpn.deltas, model.roi_head.class_scores, model.roi_head.box_deltas):
        nn.init.normal_(layer.weight, std=0.1)
        assert layer.bias is not None
        nn.init.normal_(layer.bias, std=0.1)
    # Scores saturated at 1 would tie, and ties may come in any order.
    nn.init.normal_(model.roi_head.class_scores.weight, std=0.01)
    return model


def torchvision_twin(ours: FasterRCNN) -> TorchvisionFasterRCNN:
    """torchvision's detector around our trunk and conv5, with our weights in its own RPN and predictors."""

    class Trunk(nn.Module):
        out_channels = ours.trunk.channels

        def forward(self, images):
            return ours.trunk(images)

    class Predictor(nn.Module):
        def forward(self, vectors):
            head = ours.roi_head
            logits = head.class_scores(vectors)
            deltas = head.box_deltas(vectors)
            # Background is its class 0 and our last.
            return torch.cat([logits[:, -1:], logits[:, :-1]], 1), torch.cat([torch.zeros_like(deltas[:, :4]), deltas], 1)

    rpn, roi = ours.config.rpn, ours.config.roi
    theirs = TorchvisionFasterRCNN(
        Trunk(),
        rpn_anchor_generator=AnchorGenerator((rpn.anchor_sizes,), (rpn.anchor_ratios,)),
        rpn_pre_nms_top_n_train=rpn.pre_nms_train, rpn_pre_nms_top_n_test=rpn.pre_nms_test,
        rpn_post_nms_top_n_train=rpn.post_nms_train, rpn_post_nms_top_n_test=rpn.post_nms_test,
        rpn_batch_size_per_image=ALL, box_batch_size_per_image=ALL,
        box_roi_pool=MultiScaleRoIAlign(["0"], roi.pool_size, roi.sampling_ratio),
        box_head=ours.roi_head.conv5, box_predictor=Predictor(),
        box_nms_thresh=ours.config.test.nms_threshold,
        box_detections_per_img=ours.config.test.max_detections,
        min_size=SIZE_HW[0], max_size=SIZE_HW[1],
    ).eval()  # fmt: skip
    theirs.rpn.min_size = rpn.min_size
    theirs.rpn.anchor_generator.cell_anchors = list(ours.rpn.get_buffer("cell_anchors"))
    theirs.rpn.head.conv[0][0].load_state_dict(ours.rpn.conv.state_dict())
    theirs.rpn.head.cls_logits.load_state_dict(ours.rpn.objectness.state_dict())
    theirs.rpn.head.bbox_pred.load_state_dict(ours.rpn.deltas.state_dict())
    theirs.roi_heads.box_roi_pool = AlignedPool(roi.pool_size, roi.sampling_ratio)
    return theirs


class AlignedPool(nn.Module):
    """torchvision's detector has RoIAlign's half-pixel offset off; ours has it on."""

    def __init__(self, size: int, sampling_ratio: int) -> None:
        super().__init__()
        self.size, self.sampling_ratio = size, sampling_ratio

    def forward(self, features, proposals, image_shapes):
        return roi_align(features["0"], proposals, self.size, 1 / 16, self.sampling_ratio, aligned=True)


@pytest.fixture
def batch() -> Batch:
    images = torch.randint(0, 256, (2, 3, *SIZE_HW), dtype=torch.uint8)
    none = torch.zeros(0, 4)
    targets = [
        Target(torch.tensor([[10.0, 10, 60, 50], [70, 30, 120, 90]]), torch.tensor([0, 2]), none),
        Target(torch.tensor([[5.5, 20.25, 40, 80]]), torch.tensor([1]), none),
    ]
    return Batch(images, [SIZE_HW, SIZE_HW], targets)


def normalized(ours: FasterRCNN, batch: Batch) -> torch.Tensor:
    return ours.preprocessing.normalize(batch.images)


def image_list(images: torch.Tensor):
    return ImageList(images, [SIZE_HW] * len(images))


def test_proposals(ours, batch):
    theirs = torchvision_twin(ours)
    with torch.no_grad():
        features = ours.extract(batch)
        expected, _ = theirs.rpn(image_list(normalized(ours, batch)), {"0": features[0]})
        found = ours.propose(features, batch.sizes_hw)
    for a, b in zip(found, expected, strict=True):
        assert 0 < len(a) <= ours.config.rpn.post_nms_test
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)


def test_four_losses_and_their_gradients(ours, batch):
    theirs = torchvision_twin(ours)
    theirs.train()
    # Labels are 1..K there.
    targets = [{"boxes": target.boxes, "labels": target.labels + 1} for target in batch.targets]
    features = {"0": ours.trunk(normalized(ours, batch))}
    images = image_list(normalized(ours, batch))
    proposals, rpn_losses = theirs.rpn(images, features, targets)
    _, roi_losses = theirs.roi_heads(features, proposals, images.image_sizes, targets)
    expected = {
        "loss_rpn_objectness": rpn_losses["loss_objectness"],
        "loss_rpn_box": rpn_losses["loss_rpn_box_reg"],
        "loss_class": roi_losses["loss_classifier"],
        "loss_box": roi_losses["loss_box_reg"],
    }
    weight = ours.trunk.conv1.weight
    expected_gradient = torch.autograd.grad(sum(expected.values()), weight)[0]
    found = ours(batch)
    assert found.keys() == expected.keys()
    for name, loss in found.items():
        torch.testing.assert_close(loss, expected[name], rtol=1e-4, atol=1e-5, msg=name)
        assert loss > 0
    gradient = torch.autograd.grad(sum(found.values()), weight)[0]
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-3, atol=1e-4 * expected_gradient.abs().max().item())


def test_detections(ours, batch):
    theirs = torchvision_twin(ours)
    with torch.no_grad():
        features = ours.extract(batch)
        proposals = ours.propose(features, batch.sizes_hw)
        expected, _ = theirs.roi_heads({"0": features[0]}, proposals, [SIZE_HW] * 2)
        regions = ours.classify(features, proposals, batch.sizes_hw)
    for index, theirs_of_image in enumerate(expected):
        found = select_one(regions.scores[index], regions.boxes[index], SIZE_HW, ours.config.test, ours.score_threshold)
        assert len(found) == len(theirs_of_image["scores"]) > 0
        torch.testing.assert_close(found.scores, theirs_of_image["scores"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.labels, theirs_of_image["labels"] - 1)
        torch.testing.assert_close(found.boxes, theirs_of_image["boxes"], rtol=1e-4, atol=1e-2)
