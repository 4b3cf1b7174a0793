"""torchvision's pyramid detectors, converted, give what its own give: detections and masks from the image on, and losses."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import detection as theirs_of
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights, MaskRCNN_ResNet50_FPN_Weights
from torchvision.ops import MultiScaleRoIAlign, misc, roi_align

from backbones import FrozenBatchNorm2d
from backbones.weights.renaming import rename
from detection import Detector
from detection.config import override_config, parse_config
from detection.config.schema import Config
from detection.errors import CheckpointError
from detection.inference.select import to_image_pixels
from detection.modeling.anchors import anchors_of_maps
from detection.modeling.roi_align import roi_align as our_roi_align
from detection.modeling.roi_head import unaligned_boxes
from detection.resize import resize_image, resized_size
from detection.structures import Batch, Target, pad_images
from detection.weights.conversion import convert
from detection.weights.torchvision_detectors import UNUSED_CATEGORIES, fold_norms, rules_of
from tests.matching import same_detections, same_masks
from tests.shapes import ellipses
from tests.small_detector import select_one
from tests.there import there

# So large that everything is sampled: the comparison then needs no common random choice.
ALL = 1_000_000
SIDES = {"min_size": 128, "max_size": 190}
# Padded, their P5 has an odd number of columns: cells of P6 are closer than 64 pixels there.
SIZES_HW = [(97, 121), (150, 70)]
FEW = {
    "rpn_post_nms_top_n_train": 40, "rpn_post_nms_top_n_test": 60,
    "rpn_batch_size_per_image": ALL, "box_batch_size_per_image": ALL,
}  # fmt: skip
OVERRIDES = [
    "test.shorter_side=128", "test.longer_side=190", "rpn.post_nms_train=40", "rpn.post_nms_test=60", f"rpn.sample_size={ALL}",
    f"roi.sample_size={ALL}",
]  # fmt: skip
# COCO's number of each of our classes.
NUMBERS = [number for number in range(1, 91) if number not in UNUSED_CATEGORIES]


def random_detector(name):
    """Theirs with spread outputs and norms that are not the identity."""
    torch.manual_seed(0)
    model = getattr(theirs_of, name)(weights=None, weights_backbone=None, **SIDES, **FEW).eval()
    with torch.no_grad():
        for key, module in model.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.0
                for tensor in (there(module.running_mean), module.bias):
                    nn.init.normal_(tensor, std=0.1)
                # Weak branches keep a deep sum of them finite.
                last = key.endswith("bn3")
                nn.init.uniform_(module.weight, 0.1 if last else 0.5, 0.4 if last else 1.5)
                nn.init.uniform_(there(module.running_var), 0.5, 1.5)
        heads = [
            (model.rpn.head.cls_logits, 2.0), (model.rpn.head.bbox_pred, 0.4),
            (model.roi_heads.box_predictor.cls_score, 2.5), (model.roi_heads.box_predictor.bbox_pred, 1.0),
        ]  # fmt: skip
        for layer, _ in heads:
            nn.init.normal_(layer.weight, std=0.1)
        outputs: dict[str, Any] = {}
        hooks = [layer.register_forward_hook(lambda m, _, out: outputs.setdefault(m, []).append(out)) for layer, _ in heads]
        model([torch.rand(3, 128, 160)])
        for hook in hooks:
            hook.remove()
        for layer, wanted in heads:
            layer.weight *= wanted / torch.cat([out.flatten() for out in outputs[layer]]).std()
        nn.init.normal_(model.roi_heads.mask_predictor.mask_fcn_logits.weight, std=0.1)
        # Rare, so that none of them takes a place among the best; but in the softmax.
        model.roi_heads.box_predictor.cls_score.bias[list(UNUSED_CATEGORIES)] = -3.0
    return model


def converted(model, overrides=()):
    checkpoint = convert(model.state_dict(), "theirs.pth", None, [*OVERRIDES, *overrides]).checkpoint
    ours = Detector(parse_config(Config, dict(checkpoint.metadata.config), "theirs.pth"), checkpoint.metadata.preprocessing)
    ours.load_state_dict(checkpoint.state, strict=True)
    for module in ours.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0  # as theirs: the losses' test leaves the pair as it was
    return ours.eval()


# Those with masks have all that those without have.
@pytest.fixture(scope="module", params=["maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2"])
def pair(request):
    theirs = random_detector(request.param)
    return theirs, converted(theirs)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size_hw, 3), dtype=np.uint8) for size_hw in SIZES_HW]


def floats(image):
    return torch.from_numpy(image).permute(2, 0, 1).float() / 255


def compare(found, expected):
    used = torch.isin(expected["labels"], torch.tensor(NUMBERS))
    numbers = torch.tensor(NUMBERS)[found.labels]
    assert len(found) == int(used.sum()) > 5
    wanted = tuple(expected[key][used] for key in ("boxes", "scores", "labels"))
    counterparts = same_detections((found.boxes, found.scores, numbers), wanted)
    if found.masks is not None:
        same_masks(found.masks.decode(), expected["masks"][used][counterparts, 0])


@torch.no_grad()
def test_detections(pair, images):
    theirs, ours = pair
    for image, found in zip(images, ours.predict(images), strict=True):
        assert found.masks is not None
        compare(found, theirs([floats(image)])[0])


@torch.no_grad()
def test_detections_in_a_batch_of_two_sizes(pair, images):
    theirs, ours = pair
    sizes_hw = [resized_size(image.shape[:2], 128, 190, "torchvision") for image in images]
    resized = [resize_image(image, size_hw, "torchvision") for image, size_hw in zip(images, sizes_hw, strict=True)]
    batch = Batch(pad_images([torch.from_numpy(image).permute(2, 0, 1) for image in resized]), sizes_hw)
    features = ours.extract(batch)
    regions = ours.classify(features, ours.propose(features, sizes_hw), sizes_hw)
    expected = theirs([floats(image) for image in images])
    for index, (image, size_hw) in enumerate(zip(images, sizes_hw, strict=True)):
        found = select_one(regions.scores[index], regions.boxes[index], size_hw, ours.config.test, ours.score_threshold)
        compare(to_image_pixels(found, size_hw, image.shape[:2]), expected[index])


def test_losses_and_their_gradients(pair, images):
    """v1 has constant norms; v2's are trained, with the statistics of the batch."""
    theirs, ours = pair
    ours.train()
    theirs.train()
    if ours.config.model.norm == "frozen_bn":
        theirs.apply(lambda module: module.eval() if isinstance(module, nn.BatchNorm2d) else None)
    boxes = [torch.tensor([[10.0, 12, 70, 80], [60, 5, 115, 90.5]]), torch.tensor([[5.0, 20, 60, 130]])]
    labels = [torch.tensor([0, 79]), torch.tensor([11])]
    none = torch.zeros(0, 4)
    masks = [ellipses(own, image.shape[:2]).byte() for own, image in zip(boxes, images, strict=True)]
    given = [
        {"boxes": own, "labels": torch.tensor(NUMBERS)[own_labels], "masks": own_masks}
        for own, own_labels, own_masks in zip(boxes, labels, masks, strict=True)
    ]
    sizes_hw = [resized_size(image.shape[:2], 128, 190, "torchvision") for image in images]
    resized, targets = [], []
    for image, size_hw, own, own_labels, own_masks in zip(images, sizes_hw, boxes, labels, masks, strict=True):
        resized.append(torch.from_numpy(resize_image(image, size_hw, "torchvision")).permute(2, 0, 1))
        ratio = torch.tensor([size_hw[1] / image.shape[1], size_hw[0] / image.shape[0]] * 2)
        # Its nearest pixel is that of a pixel's corner, ours that of its middle: the losses are of the same masks.
        theirs_resized = nn.functional.interpolate(own_masks[:, None].float(), size_hw)[:, 0].bool()
        targets.append(Target(own * ratio, own_labels, none, masks=theirs_resized))
    found = ours(Batch(pad_images(resized), sizes_hw, targets))
    expected = theirs([floats(image) for image in images], given)
    names = {
        "loss_rpn_objectness": "loss_objectness", "loss_rpn_box": "loss_rpn_box_reg",
        "loss_class": "loss_classifier", "loss_box": "loss_box_reg", "loss_mask": "loss_mask",
    }  # fmt: skip
    assert {names[name] for name in found} == set(expected)
    for name, value in found.items():
        assert value > 0
        torch.testing.assert_close(value, expected[names[name]], rtol=1e-4, atol=1e-4, msg=name)
    if ours.config.model.norm == "frozen_bn":
        # With norms of so few cells gradients differ by percents between two runs of torchvision's own.
        layers = ours.trunk.neck.laterals[0][0].weight, theirs.backbone.fpn.inner_blocks[0][0].weight
        gradient, other = (
            torch.autograd.grad(sum(losses.values()), layer)[0] for losses, layer in zip((found, expected), layers, strict=True)
        )
        assert float((gradient - other).norm() / other.norm()) < 1e-3
    ours.eval()
    theirs.eval()


def test_without_masks(pair):
    state = {key: value for key, value in pair[0].state_dict().items() if "mask" not in key}
    found = convert(state, "theirs.pth").checkpoint
    assert not found.metadata.config["model"]["mask"]
    assert {key for key in pair[1].state_dict() if key.startswith("roi_head.mask_head.")} | set(found.state) == set(
        pair[1].state_dict()
    )


def test_classes_by_name():
    names = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    assert MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"] == names
    config = Config.model_validate({"data": {"classes": "coco"}})
    assert tuple(names[number] for number in NUMBERS) == config.data.class_names
    assert {names[number] for number in UNUSED_CATEGORIES} == {"N/A"}


@pytest.mark.parametrize("sampling", [0, 2])
def test_pooling_without_the_half_pixel(sampling):
    features = torch.randn(1, 3, 9, 11)
    rois = torch.tensor([[3.0, 5, 60, 50], [8, 8, 9, 9.5], [-4, -6, 100, 90], [20, 20, 20, 20]])
    ours = our_roi_align(features, [unaligned_boxes(rois, 8)], 7, 1 / 8, sampling)
    theirs = roi_align(features, [rois], 7, 1 / 8, sampling, aligned=False)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert MultiScaleRoIAlign(["0"], 7, 2).sampling_ratio == 2


@pytest.mark.parametrize("size_hw", [(480, 640), (427, 640), (640, 427), (33, 500), (500, 333), (800, 1333), (1, 3)])
def test_sizes_and_pixels(size_hw):
    transform = theirs_of.transform.GeneralizedRCNNTransform(800 // 4, 1333 // 4, [0.0] * 3, [1.0] * 3)
    image = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    expected, _ = transform.eval().resize(floats(image))
    found = resize_image(image, resized_size(size_hw, 800 // 4, 1333 // 4, "torchvision"), "torchvision")
    assert found.dtype == np.float32
    torch.testing.assert_close(torch.from_numpy(found).permute(2, 0, 1) / 255, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("side", range(300, 1300, 37))
def test_sizes_are_theirs_to_the_pixel(side):
    transform = theirs_of.transform.GeneralizedRCNNTransform(800, 1333, [0.0] * 3, [1.0] * 3).eval()
    for size_hw in ((side, 2 * side), (side + 1, side), (side, 640)):
        expected, _ = transform.resize(torch.zeros(1, *size_hw))
        assert resized_size(size_hw, 800, 1333, "torchvision") == tuple(expected.shape[1:])


def test_anchors_of_whole_pixels():
    config = override_config(Config(), ["rpn.round_anchors=true", "rpn.anchor_sizes=[32,64,128,256,512]", "model.neck=fpn"])
    cells = anchors_of_maps([4, 8, 16, 32, 64], config.rpn)
    theirs = theirs_of.faster_rcnn._default_anchorgen().cell_anchors
    assert all(torch.equal(ours, other) for ours, other in zip(cells, theirs, strict=True))


def test_norms_that_are_constants():
    """Their published files have norms without step counts, which torchvision computes with eps 0."""
    state = {"bn.weight": torch.rand(5), "bn.bias": torch.randn(5), "bn.running_mean": torch.randn(5)}
    state["bn.running_var"] = torch.tensor([1e-7, 1e-3, 0.5, 1.0, 30.0])
    theirs, ours = misc.FrozenBatchNorm2d(5, eps=0.0), FrozenBatchNorm2d(5)
    theirs.load_state_dict({key.removeprefix("bn."): value for key, value in state.items()})
    fold_norms(state)
    ours.load_state_dict({key.removeprefix("bn."): value for key, value in state.items()})
    x = torch.randn(2, 5, 3, 4)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_older_names_are_the_same_layers():
    """Before torchvision 0.13: `rpn.head.conv`, `inner_blocks.0`; what its published file of the first generation has."""
    rules = rules_of(91)
    pairs = {
        "rpn.head.conv.weight": "rpn.head.conv.0.0.weight",
        "backbone.fpn.inner_blocks.2.bias": "backbone.fpn.inner_blocks.2.0.bias",
        "backbone.fpn.layer_blocks.3.weight": "backbone.fpn.layer_blocks.3.0.weight",
        "roi_heads.mask_head.mask_fcn4.weight": "roi_heads.mask_head.3.0.weight",
    }
    for old, new in pairs.items():
        (first,), (second,) = (rename({name: torch.zeros(2)}, rules, "x.pth", "torchvision's")[0] for name in (old, new))
        assert first == second


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone.body.0.0.weight": (1,)}, "a MobileNet"),
        ({"roi_heads.keypoint_head.0.weight": (1,)}, "keypoints"),
        ({"roi_heads.box_predictor.bbox_pred.bias": (8,)}, "has 91 outputs of .* and 8 of its"),
        ({"roi_heads.box_predictor.cls_score.bias": None}, "has 0 outputs of"),
        ({"rpn.head.cls_logits.weight": (3, 4, 1, 1)}, "fit the model"),
    ],
)
def test_refused(changes, message):
    state: dict[str, tuple[int, ...]] = {
        "backbone.body.conv1.weight": (64, 3, 7, 7),
        "backbone.body.layer1.0.conv1.weight": (64, 64, 3, 3),
    }
    state |= {"roi_heads.box_predictor.cls_score.bias": (91,), "roi_heads.box_predictor.bbox_pred.bias": (364,)}
    for layer, count in ((1, 2), (2, 2), (3, 2), (4, 2)):
        state |= {f"backbone.body.layer{layer}.{block}.conv1.weight": (64, 64, 3, 3) for block in range(count)}
    tensors = {key: torch.zeros(shape) for key, shape in (state | changes).items() if shape is not None}
    with pytest.raises(CheckpointError, match=f"^x.pth.*{message}"):
        convert(tensors, "x.pth")
