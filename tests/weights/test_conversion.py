"""Detectors of other projects: renamed in full, with their meaning set from the source, or refused in one line."""

import math

import numpy as np
import pytest
import torch

from detection.config.class_lists import VOC_CLASSES
from detection.errors import CheckpointError, ConfigError
from detection.modeling.anchors import generate_cell_anchors
from detection.weights.conversion import FORMATS, convert
from tests.foreign_weights import arrays_of, detectron2_detector, detectron2_mask_head, py_faster_rcnn_detector


@pytest.fixture(scope="module")
def detectron2():
    """A small one: basic blocks, 20 classes."""
    torch.manual_seed(0)
    return detectron2_detector(18, 20, rpn_channels=16)


def test_detectron2(detectron2):
    state = detectron2 | {
        "proposal_generator.anchor_generator.cell_anchors.0": generate_cell_anchors([32, 64, 128, 256, 512], [0.5, 1, 2])
    }
    found = convert({"model": state, "optimizer": {}, "iteration": 3}, "model.pth")
    checkpoint = found.checkpoint
    assert (found.format, checkpoint.metadata.kind, checkpoint.metadata.class_names) == ("detectron2", "detector", VOC_CLASSES)
    assert checkpoint.metadata.preprocessing.to_dict() == {
        "channel_order": "bgr",
        "mean": [103.53, 116.28, 123.675],
        "std": [1.0, 1.0, 1.0],
    }
    model = checkpoint.metadata.config["model"]
    assert (model["backbone"], model["stride_in_1x1"], model["stem_pool"]) == ("resnet18", True, "pad1")
    ours = checkpoint.state
    pairs = {
        "backbone.stem.conv1.norm.running_var": "trunk.bn1.running_var",
        "backbone.res3.1.conv2.weight": "trunk.layer2.1.conv2.weight",
        "backbone.res4.0.shortcut.norm.bias": "trunk.layer3.0.downsample.1.bias",
        "roi_heads.res5.0.conv1.weight": "roi_head.conv5.layer4.0.conv1.weight",
        "proposal_generator.rpn_head.anchor_deltas.weight": "rpn.deltas.weight",
        "roi_heads.box_predictor.cls_score.bias": "roi_head.class_scores.bias",
    }
    for theirs, name in pairs.items():
        assert torch.equal(ours[name], state[theirs])
    assert {entry.source for entry in found.entries} == set(state)
    assert found.counts == {"matched": 0, "renamed": len(state), "dropped": 0, "added": 0}


def test_detectron2_on_torchvisions_network(detectron2):
    pixels = {"pixel_mean": torch.tensor([123.675, 116.28, 103.53]), "pixel_std": torch.tensor([58.395, 57.12, 57.375])}
    checkpoint = convert(detectron2 | pixels, "model.pth").checkpoint
    assert checkpoint.metadata.preprocessing.to_dict() == {
        "channel_order": "rgb", "mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375],
    }  # fmt: skip
    assert checkpoint.metadata.config["model"]["stride_in_1x1"] is False


def test_detectron2_without_statistics_and_with_masks(detectron2):
    state = {key: value for key, value in detectron2.items() if "running" not in key}
    masks = detectron2_mask_head(512, 20, 0, channels=16)
    found = convert(state | masks, "model.pkl")
    assert torch.equal(found.checkpoint.state["trunk.bn1.running_var"], torch.ones(64))
    assert found.counts["dropped"] == 0 and found.counts["added"] == 2 * 20
    model, mask = (found.checkpoint.metadata.config[section] for section in ("model", "mask"))
    assert (model["mask"], mask["channels"], mask["targets"], mask["pasting"]) == (True, 16, "hard", "grid")
    for part in ("deconv.weight", "predictor.bias"):
        assert torch.equal(found.checkpoint.state[f"roi_head.mask_head.{part}"], masks[f"roi_heads.mask_head.{part}"])


@pytest.mark.parametrize(
    ("changes", "overrides", "message"),
    [
        ({"backbone.fpn_lateral2.norm.weight": (1,)}, [], r"'backbone.fpn_lateral2.norm.weight': norms in the pyramid"),
        ({"backbone.fpn_lateral2.weight": (1,)}, [], "missing keys: 'trunk.backbone.conv1.weight'"),
        ({"roi_heads.box_head.conv1.weight": (1,)}, [], "convolutions before its layers"),
        ({"roi_heads.mask_head.mask_fcn1.norm.weight": (1,)}, [], "norms in the mask head"),
        ({"roi_heads.mask_head.predictor.bias": (1,)}, [], "predicts one mask for all classes"),
        ({"roi_heads.mask_head.predictor.bias": (20,)}, [], "3 missing keys: 'roi_head.mask_head.deconv.weight'"),
        ({"backbone.res5.0.conv1.weight": (1,)}, [], "conv5 in the trunk"),
        ({"roi_heads.box_predictor.0.cls_score.weight": (1,)}, [], "another head"),
        ({"backbone.res3.0.conv2_offset.weight": (1,)}, [], "deformable"),
        ({"roi_heads.box_predictor.extra": (1,)}, [], "1 of its 113 tensors have no place in that: .roi_heads.box_pred"),
        ({"roi_heads.box_predictor.cls_score.weight": None}, [], "1 missing keys: 'roi_head.class_scores.weight'"),
        ({"roi_heads.box_predictor.cls_score.bias": None}, [], "1 missing keys: 'roi_head.class_scores.bias'"),
        ({"backbone.res4.1.conv1.weight": None}, [], "1 missing keys: 'trunk.layer3.1.conv1.weight'"),
        ({"roi_heads.box_predictor.bbox_pred.weight": (4, 512)}, [], r"'roi_head.box_deltas.weight' has shape \(4, 512\)"),
        ({"roi_heads.box_predictor.cls_score.bias": (4,)}, [], "tells 3 classes apart, which it does not name"),
        ({"pixel_mean": (2,)}, [], "pixel_mean and pixel_std cannot be used"),
        ({"pixel_std": (3,)}, [], "pixel_mean and pixel_std cannot be used: std must be positive"),
        ({"proposal_generator.anchor_generator.cell_anchors.0": (3, 4)}, [], "has 3 anchors, the first"),
        ({}, ["data.classes=coco"], "tells 20 classes apart, and 80 are named"),
        ({}, ["model.backbone=resnet34"], "holds a resnet18, not a resnet34"),
        ({}, ["rpn.anchor_sizes=[32,64]"], "'rpn.objectness.weight' has shape"),
        ({}, ["roi.context=true"], "'roi_head.class_scores.weight' has shape"),
    ],
)  # fmt: skip
def test_detectron2_refused(detectron2, changes, overrides, message):
    state = dict(detectron2)
    for key, shape in changes.items():
        state.pop(key, None)
        if shape is not None:
            state[key] = torch.zeros(shape)
    with pytest.raises(CheckpointError, match=f"^model.pkl.*{message}"):
        convert({"model": arrays_of(state)}, "model.pkl", None, overrides)


def test_another_depth_and_not_a_number(detectron2):
    state = {key.replace("res3.1", "res3.2"): value for key, value in detectron2.items()}
    with pytest.raises(CheckpointError, match="missing keys: 'trunk.layer2.1.conv1.weight'"):
        convert(state, "x.pkl")
    state = {key: value for key, value in detectron2.items() if "res3.1" not in key}
    with pytest.raises(CheckpointError, match="has 2, 1, 2, 2 basic blocks in its stages; no ResNet here"):
        convert(state, "x.pkl")
    state = detectron2 | {"backbone.stem.conv1.norm.bias": torch.full((64,), math.nan)}
    with pytest.raises(CheckpointError, match="'trunk.bn1.bias' holds NaN or infinity"):
        convert(state, "x.pkl")


def test_classes_named_by_the_user():
    state = detectron2_detector(18, 2, rpn_channels=8)
    checkpoint = convert(state, "x.pkl", None, ["data.classes=[cat,dog]", "test.nms_threshold=0.4"]).checkpoint
    assert checkpoint.metadata.class_names == ("cat", "dog") and checkpoint.metadata.config["test"]["nms_threshold"] == 0.4
    with pytest.raises(CheckpointError, match="add data.classes="):
        convert(state, "x.pkl")
    with pytest.raises(ConfigError, match="did you mean 'test.nms_threshold'"):
        convert(state, "x.pkl", None, ["test.nms_treshold=1"])


def rounded_anchors(num_sizes: int) -> np.ndarray:
    """py-faster-rcnn's: ratio by ratio, size by size, in whole pixels with both ends included."""
    anchors = []
    for ratio in (0.5, 1, 2):
        width = np.round(np.sqrt(16 * 16 / ratio))
        height = np.round(width * ratio)
        for scale in [8, 16, 32] if num_sizes == 3 else [4, 8, 16, 32]:
            w, h = width * scale, height * scale
            anchors.append([7.5 - (w - 1) / 2, 7.5 - (h - 1) / 2, 7.5 + (w - 1) / 2, 7.5 + (h - 1) / 2])
    return np.array(anchors)


@pytest.mark.parametrize(
    ("style", "depth", "num_sizes", "classes"), [("jwyang", 18, 3, 20), ("jwyang", 18, 4, 80), ("tf", 18, 3, 20)]
)
def test_two_way_rpns(style, depth, num_sizes, classes):
    torch.manual_seed(0)
    state = py_faster_rcnn_detector(style, depth, classes, num_sizes)
    found = convert({"model": state, "session": 1, "class_agnostic": False, "pooling_mode": "pool"}, "x.pth")
    config, ours = found.checkpoint.metadata.config, found.checkpoint.state
    assert found.format == {"jwyang": "jwyang", "tf": "tf-faster-rcnn"}[style]
    assert (config["model"]["stride_in_1x1"], config["rpn"]["anchor_offset"]) == (True, 0.5)
    assert (config["model"]["stem_pool"], config["roi"]["pool_size"], config["roi"]["pooling"]) == (
        ("ceil", 7, "max") if style == "jwyang" else ("pad1", 14, "align")
    )
    assert found.checkpoint.metadata.preprocessing.mean == (102.9801, 115.9465, 122.7717)
    assert found.counts["dropped"] == 1  # the step count

    names = ["RCNN_rpn.RPN_cls_score", "RCNN_rpn.RPN_bbox_pred", "RCNN_cls_score", "RCNN_bbox_pred"]
    if style == "tf":
        names = ["rpn_cls_score_net", "rpn_bbox_pred_net", "cls_score_net", "bbox_pred_net"]
    theirs = rounded_anchors(num_sizes)
    cells = generate_cell_anchors(config["rpn"]["anchor_sizes"], config["rpn"]["anchor_ratios"]) + 8
    num_anchors = 3 * num_sizes
    scores = torch.randn(512) @ state[f"{names[0]}.weight"].flatten(1).T
    hidden = torch.randn(512)
    scores = state[f"{names[0]}.weight"].flatten(1) @ hidden + state[f"{names[0]}.bias"]
    objectness = scores.view(2, num_anchors).softmax(0)[1]
    deltas = (state[f"{names[1]}.weight"].flatten(1) @ hidden + state[f"{names[1]}.bias"]).view(-1, 4)
    found_scores = (ours["rpn.objectness.weight"].flatten(1) @ hidden + ours["rpn.objectness.bias"]).sigmoid()
    found_deltas = (ours["rpn.deltas.weight"].flatten(1) @ hidden + ours["rpn.deltas.bias"]).view(-1, 4)
    for index, anchor in enumerate(theirs + [0, 0, 1, 1]):
        distance = (cells - torch.tensor(anchor)).abs().amax(dim=1)
        nearest = int(distance.argmin())
        # Rounding moves an edge by at most 1/22 of the anchor's side.
        assert distance[nearest] <= 0.05 * max(anchor[2:] - anchor[:2])
        torch.testing.assert_close(found_scores[nearest], objectness[index], rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(found_deltas[nearest], deltas[index], rtol=1e-3, atol=1e-4)
    assert torch.equal(ours["roi_head.class_scores.weight"][-1], state[f"{names[2]}.weight"][0])
    assert torch.equal(ours["roi_head.class_scores.bias"][:-1], state[f"{names[2]}.bias"][1:])
    assert torch.equal(ours["roi_head.box_deltas.bias"], state[f"{names[3]}.bias"][4:])


@pytest.mark.parametrize(
    ("changes", "extras", "message"),
    [
        ({}, {"class_agnostic": True}, "class_agnostic"),
        ({"RCNN_rpn.RPN_cls_score.bias": (30,)}, {}, r"shape \(18, 512, 1, 1\) where the anchors need \(2, 15\) rows"),
        ({"RCNN_rpn.RPN_cls_score.bias": (10,)}, {}, "two scores for each of 9 or 12 anchors"),
        ({"RCNN_rpn.RPN_bbox_pred.weight": (35, 512, 1, 1)}, {}, "anchors need"),
        ({"RCNN_cls_score.weight": ()}, {}, "is a single number"),
        ({"RCNN_base.9.weight": (1,)}, {}, "no place in that: 'RCNN_base.9.weight'"),
    ],
)  # fmt: skip
def test_jwyang_refused(changes, extras, message):
    state = py_faster_rcnn_detector("jwyang", 18, 3) | {key: torch.zeros(shape) for key, shape in changes.items()}
    with pytest.raises(CheckpointError, match=message):
        convert({"model": state, **extras}, "x.pth")


def test_formats():
    with pytest.raises(CheckpointError, match=r"is in no format known here; its keys are \['a'\]. Known are torchvision-det"):
        convert({"a": torch.ones(1)}, "x.pth")
    with pytest.raises(CheckpointError, match="is a checkpoint of resdet already"):
        convert({"format": "resdet"}, "x.pt")
    with pytest.raises(CheckpointError, match="looks like the authors' Caffe models, but"):
        convert({"conv1.weight": torch.ones(1)}, "x.pth", "msra")
    known = ("torchvision-detector", "detectron2", "jwyang", "tf-faster-rcnn", "msra", "detectron2-backbone", "akamaster")
    assert (*known, "torchvision", "caffe", "caffe-bvlc") == FORMATS
