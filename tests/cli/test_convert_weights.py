"""The command: a file of another project in, a checkpoint that everything here accepts out, or one line that says why not."""

import json

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from backbones import build_backbone, load_checkpoint
from detection import build_detector
from detection.cli.commands import convert_weights
from detection.cli.main import main
from detection.config import ClassifierModelConfig, Config
from detection.inference.detector import load_detector
from detection.pretraining.model import load_classifier
from detection.weights.checkpoint import initialise_detector
from detection.weights.conversion import FORMATS
from tests.foreign_weights import arrays_of, detectron2_detector, msra_classifier, py_faster_rcnn_detector, write_pickle


@pytest.fixture(scope="module")
def folder(module_path):
    return module_path


@pytest.fixture(scope="module")
def detectron2_file(folder):
    torch.manual_seed(0)
    state = detectron2_detector(18, 20, rpn_channels=16)
    return write_pickle(folder / "model_final.pkl", {"model": arrays_of(state), "__author__": "Detectron2"})


def error_of(capsys, *arguments) -> str:
    assert main(["convert-weights", *map(str, arguments)]) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ") and text.count("\n") == 1
    return text


def test_a_detector_that_detects(folder, detectron2_file, capsys):
    ours, report = folder / "detector.pt", folder / "reports" / "detector.json"
    assert main(["convert-weights", str(detectron2_file), str(ours), "--report", str(report), "test.shorter_side=64"]) == 0
    said = capsys.readouterr().out
    assert "detector, resnet18, 20 classes (format detectron2)" in said
    assert "stride_in_1x1: true, stem_pool: pad1" in said and "bgr, mean [103.53, 116.28, 123.675], std [1.0, 1.0, 1.0]" in said
    tensors = json.loads(report.read_text())["tensors"]
    assert {"kind": "renamed", "source": "pixel_std", "target": "(std)", "note": "read into the preprocessing"} in tensors
    detector = load_detector(ours)
    (found,) = detector.predict([np.full((40, 60, 3), 90, np.uint8)])
    assert found.boxes.shape[1] == 4
    fresh = build_detector(detector.config)
    assert "all weights start from the detector" in initialise_detector(fresh, ours)
    assert torch.equal(fresh.rpn.conv.weight, detector.rpn.conv.weight) and fresh.preprocessing == detector.preprocessing


def test_a_classifier_that_classifies_and_starts_a_detector(folder, capsys):
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18(num_classes=5).eval()
    save_file(theirs.state_dict(), folder / "resnet18.safetensors")
    ours = folder / "resnet18.pt"
    assert main(["convert-weights", str(folder / "resnet18.safetensors"), str(ours)]) == 0
    assert "classifier, resnet18 (format torchvision)" in capsys.readouterr().out
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        backbone = build_backbone("resnet18", weights=ours, num_classes=5).eval()
        torch.testing.assert_close(backbone.logits(images), theirs(images))
    model = load_classifier(ours, ClassifierModelConfig(backbone="resnet18"), ["a", "b", "c", "d", "e"])
    assert torch.equal(model.backbone.get_parameter("fc.weight"), theirs.fc.weight)
    config = Config.model_validate({"model": {"backbone": "resnet18"}, "rpn": {"channels": 8}})
    detector = build_detector(config)
    assert "the backbone starts from the classifier" in initialise_detector(detector, ours)
    assert torch.equal(detector.trunk.get_parameter("conv1.weight"), theirs.conv1.weight)


def test_the_authors_model_brings_its_meaning(folder, capsys):
    source = write_pickle(folder / "R-50.pkl", msra_classifier(50, num_classes=3))
    ours = folder / "r50.pt"
    assert main(["convert-weights", str(source), str(ours)]) == 0
    assert "added bn1.running_mean and 105 more: the source folds it into scale and offset" in capsys.readouterr().out
    assert load_checkpoint(ours)["metadata"]["preprocessing"]["channel_order"] == "bgr"
    backbone = build_backbone("resnet50", weights=ours, stride_in_1x1=True, stem_pool="ceil")
    assert backbone.preprocessing.std == (1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="was trained with stride_in_1x1=True"):
        build_backbone("resnet50", weights=ours, stem_pool="ceil")
    with pytest.raises(ValueError, match="was trained with stem_pool=ceil"):
        build_backbone("resnet50", weights=ours, stride_in_1x1=True)
    # detectron2 uses these weights with a padded pool; who wants that says so.
    assert main(["convert-weights", str(source), str(ours), "model.stem_pool=pad1"]) == 0
    build_backbone("resnet50", weights=ours, stride_in_1x1=True)
    with pytest.raises(ValueError, match="convert-weights"):
        build_backbone("resnet50", weights=source)


def test_other_detectors(folder):
    for style, number in (("jwyang", 20), ("tf", 20)):
        torch.save({"model": py_faster_rcnn_detector(style, 18, number)}, folder / f"{style}.pth")
        assert main(["convert-weights", str(folder / f"{style}.pth"), str(folder / f"{style}.pt"), "test.shorter_side=64"]) == 0
        load_detector(folder / f"{style}.pt").predict([np.zeros((50, 70, 3), np.uint8)])


def test_refused_in_one_line_and_nothing_is_written(folder, detectron2_file, capsys):
    target = folder / "never.pt"
    evil = write_pickle(folder / "evil.pkl", {"a": print})
    (folder / "cut.pkl").write_bytes(detectron2_file.read_bytes()[:-1000])
    torch.save({"a": torch.ones(1), "b": torch.ones(2)}, folder / "unknown.pth")
    (folder / "text.pth").write_text("hello")
    assert ".print, which could run code" in error_of(capsys, evil, target)
    assert "is cut short or damaged" in error_of(capsys, folder / "cut.pkl", target)
    assert "its keys are ['a', 'b']" in error_of(capsys, folder / "unknown.pth", target)
    assert "is not a checkpoint" in error_of(capsys, folder / "text.pth", target)
    assert "cannot read checkpoint" in error_of(capsys, folder / "missing.pth", target)
    assert "tells 20 classes apart, and 2 are named" in error_of(capsys, detectron2_file, target, "data.classes=[cat,dog]")
    assert "unknown key 'rpn.chanels'" in error_of(capsys, detectron2_file, target, "rpn.chanels=3")
    assert "must look like dotted.key=value" in error_of(capsys, detectron2_file, target, "third")
    assert "looks like torchvision's" in error_of(capsys, detectron2_file, target, "--format", "torchvision")
    assert not target.exists()
    before = detectron2_file.read_bytes()
    assert "is the source itself" in error_of(capsys, detectron2_file, detectron2_file)
    assert detectron2_file.read_bytes() == before


def test_a_checkpoint_of_ours_needs_no_conversion(folder, capsys):
    ours = folder / "resnet18.pt"
    assert "is a checkpoint of resdet already" in error_of(capsys, ours, folder / "again.pt")


def test_the_choices_are_the_formats():
    assert ("auto", *FORMATS) == convert_weights.FORMATS


def test_help(capsys):
    with pytest.raises(SystemExit) as exit_code:
        main(["convert-weights", "--help"])
    assert exit_code.value.code == 0
    assert "SRC" in capsys.readouterr().out
