"""The layout of checkpoints: version 2 as it is written, and files of version 1, which older releases wrote."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from backbones.errors import CheckpointError
from backbones.preprocessing import IMAGENET_PREPROCESSING
from backbones.weights.files import load_checkpoint, save_checkpoint
from backbones.weights.format import Checkpoint, CheckpointMetadata, parse_checkpoint
from detection.engine.train import train
from detection.inference.detector import build_detector, load_detector
from detection.pretraining import train_classifier
from detection.pretraining.model import build_classifier, initialise_classifier, load_classifier
from detection.weights.checkpoint import detector_metadata, initialise_detector, read_checkpoint
from tests.engine.test_train import lines
from tests.pretraining.class_folders import write_data
from tests.weights.narrow import CLASSES, batches, classifier_config, detector_config

FILES = Path(__file__).parent / "files"
DETECTOR, CLASSIFIER = FILES / "detector_v1.pt", FILES / "classifier_v1.pt"


def old(path: Path) -> dict[str, Any]:
    """The bare contents of a file of version 1."""
    contents = load_checkpoint(path)
    assert contents["version"] == 1
    return contents


def assert_equal(ours: Any, theirs: Any) -> None:
    torch.testing.assert_close(dict(ours), dict(theirs), rtol=0, atol=0)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    config = {"model": {"backbone": "narrow"}}
    metadata = CheckpointMetadata("classifier", ("a", "b"), IMAGENET_PREPROCESSING, config, torch.ones(3, 2, 2), {"torch": "9"})
    save_checkpoint(Checkpoint(metadata, {"x": torch.ones(2)}, {"step": 3}).contents(), tmp_path / "x.pt")
    contents = load_checkpoint(tmp_path / "x.pt")
    assert list(contents) == ["format", "version", "metadata", "model", "mean_image", "training"]
    assert json.loads(json.dumps(contents["metadata"])) == metadata.to_dict()
    found = read_checkpoint(tmp_path / "x.pt", "classifier")
    assert (found.metadata, found.metadata.versions, found.training) == (metadata, {"torch": "9"}, {"step": 3})
    assert found.metadata.mean_image is not None and torch.equal(found.metadata.mean_image, torch.ones(3, 2, 2))
    assert_equal(found.state, {"x": torch.ones(2)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": None}, "x.pt is no checkpoint of resdet, with classes and config; a classifier's is needed here"),
        ({"version": 3}, "x.pt has format version 3; this resdet reads 1, 2: install a newer one"),
        ({"metadata": None}, "it lacks kind, class_names, preprocessing, config"),
        ({"model": None}, "it lacks model"),
        ({"kind": "detector"}, "x.pt is a detector's checkpoint; a classifier's is needed here"),
        ({"config": 3}, "its config is 3"),
        ({"class_names": None}, "its class_names is None"),
        ({"preprocessing": {"mean": 1}}, "preprocessing must hold"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], message: str) -> None:
    metadata = CheckpointMetadata("classifier", (), IMAGENET_PREPROCESSING, {})
    contents = Checkpoint(metadata, {}).contents()
    at_top = {key: value for key, value in changes.items() if key in contents}
    inside = {key: value for key, value in changes.items() if key not in contents}
    contents |= {"metadata": contents["metadata"] | inside} | at_top
    with pytest.raises(CheckpointError, match=message) as caught:
        parse_checkpoint(contents, "x.pt", "classifier")
    assert "\n" not in str(caught.value)


def test_an_old_detector_predicts() -> None:
    model, saved = load_detector(DETECTOR), old(DETECTOR)
    assert_equal(model.state_dict(), saved["model"])
    assert model.class_names == CLASSES == tuple(saved["class_names"])
    assert model.preprocessing.to_dict() == saved["preprocessing"]
    (found,) = model.predict([torch.zeros(3, 64, 64, dtype=torch.uint8)])
    assert found.boxes.shape[1] == 4


def test_an_old_detector_and_an_old_classifier_start_a_new_detector() -> None:
    model = build_detector(detector_config(3))
    assert "all weights start from the detector" in initialise_detector(model, DETECTOR)
    assert_equal(model.state_dict(), old(DETECTOR)["model"])
    assert "the backbone starts from the 2-class classifier" in initialise_detector(model, CLASSIFIER)
    assert torch.equal(model.trunk.state_dict()["stage1.0.weight"], old(CLASSIFIER)["model"]["stage1.0.weight"])


def test_an_old_classifier_classifies_and_starts_another() -> None:
    network, saved = classifier_config(3).model, old(CLASSIFIER)
    model = load_classifier(CLASSIFIER, network, ["apple", "berry"])
    assert_equal(model.state_dict(), saved["model"])
    assert model.mean_image is not None and torch.equal(model.mean_image, saved["mean_image"])
    other = build_classifier(network, ["apple", "berry"])
    assert "all weights" in initialise_classifier(other, network, CLASSIFIER)
    assert_equal(other.state_dict(), saved["model"])


def resume_detector(folder: Path, source: Path) -> dict[str, Any]:
    """Steps 4 and 5 of the detector's run; returns the checkpoint it ends with."""
    folder.mkdir()
    shutil.copy(source, folder / "last.pt")
    config = detector_config(5)
    torch.manual_seed(1)  # what the model begins with does not matter
    model = build_detector(config)
    train(model, batches, config.train, folder, metadata=detector_metadata(model), resume=True)
    return load_checkpoint(folder / "last.pt")


def rewritten(source: Path, destination: Path) -> Path:
    """The same checkpoint as this version writes it."""
    save_checkpoint(parse_checkpoint(load_checkpoint(source), str(source)).contents(), destination)
    return destination


def assert_as_before(name: str, folder: Path, state: dict[str, Tensor]) -> None:
    """The run gives what the release of version 1 computed, as near as another CPU may come; but the RPN's bias, which starts
    at 0, is of the anchors that today's random keys sample."""
    expected = json.loads((FILES / "version1.json").read_text())[name]
    assert [line["loss"] for line in lines(folder, "train")] == pytest.approx(expected["losses"][-2:], rel=1e-4)
    sums = {key: float(value.double().abs().sum()) for key, value in state.items() if value.is_floating_point()}
    assert sums == pytest.approx(expected["weights"], rel=1e-4, abs=1e-6)


def test_a_detectors_run_of_version_1_goes_on(tmp_path: Path) -> None:
    from_old = resume_detector(tmp_path / "old", DETECTOR)
    from_new = resume_detector(tmp_path / "new", rewritten(DETECTOR, tmp_path / "new.pt"))
    assert from_old["version"] == 2 and from_old["training"]["step"] == 5
    for part in ("optimizer", "ema"):
        torch.testing.assert_close(from_old["training"][part], from_new["training"][part], rtol=0, atol=0)
    assert_equal(from_old["model"], from_new["model"])
    assert_as_before("detector", tmp_path / "old", from_old["model"])


def test_a_classifiers_run_of_version_1_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = []
    for name, source in (("old", CLASSIFIER), ("new", rewritten(CLASSIFIER, tmp_path / "new.pt"))):
        (tmp_path / name / "run").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / name)  # the run's config names its data by a relative path
        write_data(Path("set"))
        shutil.copy(source, "run/last.pt")
        result = train_classifier(classifier_config(5), resume=True)
        assert result.training.steps == 5
        states.append(load_checkpoint("run/last.pt")["model"])
    assert_equal(*states)
    assert_as_before("classifier", tmp_path / "old" / "run", states[0])
