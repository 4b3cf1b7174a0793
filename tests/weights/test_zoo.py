"""Weights by name, wherever a command or a function takes a file of them."""

import hashlib
import io
import json
import pickle

import cv2
import numpy as np
import pytest
import torch
import torchvision

from backbones import load_checkpoint
from backbones.weights.zoo import ZOO, PublishedWeights
from detection import load_detector
from detection.cli.main import main
from detection.config import ClassifierModelConfig
from detection.errors import CheckpointError
from detection.pretraining.model import build_classifier, initialise_classifier
from detection.weights.checkpoint import initialise_detector
from detection.weights.zoo import STANDARD_DETECTOR, resolve_weights
from tests.foreign_weights import arrays_of, detectron2_detector
from tests.small_detector import detector

CLASSIFIER = "torchvision/resnet18"


@pytest.fixture(scope="module")
def files() -> dict[str, tuple[str, bytes]]:
    """What is published under two names: (file, content)."""
    torch.manual_seed(0)
    stream = io.BytesIO()
    torch.save(torchvision.models.resnet18(num_classes=2).state_dict(), stream)
    arrays = {"model": arrays_of(detectron2_detector(18, 80, rpn_channels=16)), "__author__": "Detectron2"}
    classifier, found = stream.getvalue(), pickle.dumps(arrays, protocol=2)
    return {
        CLASSIFIER: (f"resnet18-{hashlib.sha256(classifier).hexdigest()[:8]}.pth", classifier),
        STANDARD_DETECTOR: (f"model_final_{hashlib.md5(found).hexdigest()[:6]}.pkl", found),
    }


@pytest.fixture
def server(server, files, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESDET_CACHE", str(tmp_path / "cache"))
    for name, (file, content) in files.items():
        server.files[file] = content
        monkeypatch.setitem(ZOO, name, PublishedWeights(name, f"{server.url}/{file}", ZOO[name].kind))
    return server


def test_a_detector_of_80_classes_in_one_command(server, tmp_path, capsys):
    cv2.imwrite("a.jpg", np.full((40, 60, 3), 90, np.uint8))
    small = ["test.shorter_side=64", "--output", "out", "--score-threshold", "0"]
    assert main(["demo", "a.jpg", *small]) == 0
    said = capsys.readouterr()
    assert f"weights: {STANDARD_DETECTOR} (--weights names others)" in said.out
    assert said.err == f"downloading {STANDARD_DETECTOR}\n"
    assert json.loads((tmp_path / "out" / "detections.json").read_text())[0]["detections"]
    assert main(["demo", "a.jpg", *small, "--weights", STANDARD_DETECTOR]) == 0
    assert capsys.readouterr().err == "" and len(server.requests) == 1
    loaded = load_detector(STANDARD_DETECTOR)
    assert len(loaded.class_names) == 80 and loaded.config.test.longer_side == 1333 and loaded.config.model.stride_in_1x1


def test_training_starts_from_a_name(server):
    model = detector()
    assert "the backbone starts from the classifier" in initialise_detector(model, resolve_weights(CLASSIFIER))
    network = ClassifierModelConfig(backbone="resnet18")
    classifier = build_classifier(network, ["cat", "dog"])
    assert "all weights" in initialise_classifier(classifier, network, resolve_weights(CLASSIFIER))
    assert torch.equal(classifier.backbone.state_dict()["conv1.weight"], model.trunk.state_dict()["conv1.weight"])
    assert len(server.requests) == 1


def test_conversion_takes_the_file_as_published(server):
    assert main(["convert-weights", STANDARD_DETECTOR, "ours.pt", "test.shorter_side=64"]) == 0
    assert load_checkpoint("ours.pt")["metadata"]["config"]["test"]["shorter_side"] == 64


def test_a_name_of_the_other_kind_downloads_nothing(server, capsys):
    with pytest.raises(CheckpointError, match="is a classifier's; a detector's is needed here: one of torchvision/fasterrcnn"):
        load_detector(CLASSIFIER)
    cv2.imwrite("a.jpg", np.full((40, 60, 3), 90, np.uint8))
    assert main(["demo", "a.jpg", "--weights", CLASSIFIER]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and server.requests == []
