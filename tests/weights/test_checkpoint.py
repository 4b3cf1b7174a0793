"""Detectors from checkpoints, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from backbones import Preprocessing, build_backbone, save_checkpoint
from detection.config import Config
from detection.errors import CheckpointError
from detection.inference.detector import build_detector, load_detector
from detection.modeling import FasterRCNN
from detection.weights.checkpoint import (
    CheckpointMetadata,
    detector_metadata,
    initialise_detector,
    require_same_classes,
    write_checkpoint,
)

CLASSES = ("disc", "square")
OWN = Preprocessing("bgr", (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))


def config(**changes: Any) -> Config:
    values: dict[str, dict[str, Any]] = {
        "model": {"backbone": "resnet18"},
        "rpn": {"channels": 8, "anchor_sizes": [16, 32]},
        "data": {"classes": CLASSES},
    }
    for section, settings in changes.items():
        values[section] = {**values.get(section, {}), **settings}
    return Config.model_validate(values)


@pytest.fixture(scope="module")
def detector() -> FasterRCNN:
    model = build_detector(config())
    model.preprocessing = OWN
    return model


@pytest.fixture(scope="module")
def detector_file(detector: FasterRCNN, module_path: Path) -> Path:
    path = module_path / "detector.pt"
    write_checkpoint(detector_metadata(detector), detector.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def classifier_file(module_path: Path) -> Path:
    path = module_path / "classifier.pt"
    network = {"backbone": "resnet18", "stride_in_1x1": False}
    metadata = CheckpointMetadata("classifier", tuple("0123456789"), OWN, {"model": network})
    write_checkpoint(metadata, build_backbone("resnet18", num_classes=10).state_dict(), path)
    return path


def assert_same(ours: FasterRCNN, theirs: FasterRCNN) -> None:
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)
    assert ours.preprocessing == theirs.preprocessing


def test_a_detector_comes_back_whole(detector: FasterRCNN, detector_file: Path) -> None:
    loaded = load_detector(detector_file)
    assert_same(loaded, detector)
    assert (loaded.class_names, loaded.config, loaded.training) == (CLASSES, detector.config, False)


def test_another_config_may_change_the_inference(detector: FasterRCNN, detector_file: Path) -> None:
    loaded = load_detector(detector_file, config(test={"nms_threshold": 0.5}))
    assert loaded.config.test.nms_threshold == 0.5
    assert_same(loaded, detector)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"classes": ("disc", "ball")}}, "it lacks ball; it also has square"),
        ({"data": {"classes": ("square", "disc")}}, "the same names in another order"),
        ({"model": {"backbone": "resnet50"}}, "trained with model.backbone=resnet18, not resnet50"),
        ({"rpn": {"anchor_sizes": [16, 64]}}, r"trained with rpn.anchor_sizes=\(16.0, 32.0\), not \(16.0, 64.0\)"),
        ({"rpn": {"channels": 4}}, "rpn.*shape"),
    ],
)
def test_another_model_is_refused(detector_file: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_detector(detector_file, config(**changes))


def test_a_classifier_is_no_detector(classifier_file: Path) -> None:
    with pytest.raises(CheckpointError, match="is a classifier's checkpoint; a detector's is needed here"):
        load_detector(classifier_file)


def test_an_incomplete_or_newer_file_is_refused(detector_file: Path, tmp_path: Path) -> None:
    contents = torch.load(detector_file, weights_only=True)
    save_checkpoint({**contents, "version": 99}, tmp_path / "newer.pt")
    with pytest.raises(CheckpointError, match="newer.pt has format version 99; this resdet reads 1, 2: install a newer one$"):
        load_detector(tmp_path / "newer.pt")
    del contents["metadata"]["class_names"]
    save_checkpoint(contents, tmp_path / "partial.pt")
    with pytest.raises(CheckpointError, match="it lacks class_names"):
        load_detector(tmp_path / "partial.pt")
    save_checkpoint({"epoch": 3}, tmp_path / "foreign.pt")
    with pytest.raises(CheckpointError, match="neither a resdet checkpoint nor a plain state dict"):
        initialise_detector(build_detector(config()), tmp_path / "foreign.pt")


def test_weights_of_a_detector_restore_everything(detector: FasterRCNN, detector_file: Path) -> None:
    model = build_detector(config())
    said = initialise_detector(model, detector_file)
    assert "all weights start from the detector" in said and str(detector_file) in said
    assert_same(model, detector)


def test_weights_of_a_classifier_restore_the_backbone(classifier_file: Path) -> None:
    model = build_detector(config())
    said = initialise_detector(model, classifier_file)
    assert "the backbone starts from the 10-class classifier" in said and "all other layers start from random" in said
    saved = torch.load(classifier_file, weights_only=True)["model"]
    torch.testing.assert_close(model.trunk.state_dict()["conv1.weight"], saved["conv1.weight"])
    assert model.preprocessing == OWN


def test_torchvision_weights_restore_the_backbone(tmp_path: Path) -> None:
    theirs = torchvision.models.resnet18()
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    model = build_detector(config())
    assert "the backbone starts from the plain weights" in initialise_detector(model, tmp_path / "resnet18.pth")
    torch.testing.assert_close(model.trunk.state_dict()["conv1.weight"], theirs.conv1.weight.data)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"backbone": "resnet34"}, "resnet18, not a resnet34"), ({"stride_in_1x1": True}, "stride_in_1x1")],
)
def test_weights_of_another_backbone_are_refused(classifier_file: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        initialise_detector(build_detector(config(model=settings)), classifier_file)


def test_class_difference_is_shortened() -> None:
    many = [f"class{index}" for index in range(80)]
    with pytest.raises(CheckpointError, match=r"80 classes, expected here 1: .*it also has class0, .*class4 \.\.\.$"):
        require_same_classes(many, ["ball"], "x.pt")
