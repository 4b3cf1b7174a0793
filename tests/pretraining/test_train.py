from pathlib import Path

import pytest
import torch
import torchvision

from backbones import load_checkpoint
from detection.config import Config, parse_config
from detection.errors import CheckpointError, DatasetError, TrainingError
from detection.inference.detector import build_detector
from detection.pretraining import train_classifier
from detection.pretraining.data import train_loader
from detection.pretraining.folders import load_folders
from detection.weights.checkpoint import initialise_detector
from tests.pretraining.class_folders import make_config, pack, write_data, write_split


@pytest.fixture(scope="module")
def run(module_path):
    """A short run on two separable classes: its config and result."""
    config = make_config(
        write_data(module_path / "set"), module_path / "run", train={"steps": 12, "eval_every": 6, "learning_rate": 0.005}
    )
    return config, train_classifier(config)


def test_separable_classes_are_learnt(run):
    _, result = run
    assert result.metrics == {"top1_error": 0.0, "top5_error": 0.0}
    assert not result.interrupted and result.training.steps == 12 and result.training.best is not None


def test_the_model_file_is_complete(run):
    config, result = run
    checkpoint = load_checkpoint(result.weights)
    assert result.weights == config.output_dir / "model.pt"
    about = checkpoint["metadata"]
    assert (checkpoint["format"], checkpoint["version"], about["kind"]) == ("resdet", 2, "classifier")
    assert about["class_names"] == ["apple", "berry"] and about["config"] == config.model_dump(mode="json")
    assert about["preprocessing"]["channel_order"] == "rgb" and "torch" in about["versions"]
    torchvision.models.resnet18(num_classes=2).load_state_dict(checkpoint["model"], strict=True)


def test_the_model_initialises_a_detector(run):
    _, result = run
    detector = build_detector(parse_config(Config, {"model": {"backbone": "resnet18"}, "data": {"classes": ["x"]}}, "test"))
    initialise_detector(detector, result.weights)
    expected = load_checkpoint(result.weights)["model"]["layer1.0.bn1.running_mean"]
    assert torch.equal(detector.trunk.get_buffer("layer1.0.bn1.running_mean"), expected)


def test_bn_statistics_are_the_strict_average(run):
    """The first BN's mean, by hand: the mean of conv1's outputs over the two batches that come after the last step."""
    config, result = run
    saved, last = load_checkpoint(result.weights)["model"], load_checkpoint(config.output_dir / "last.pt")["model"]
    assert all(torch.equal(saved[key], last[key]) for key in saved if "running" not in key and "tracked" not in key)
    model = torchvision.models.resnet18(num_classes=2)
    model.load_state_dict(saved)
    (folder,) = load_folders(Path(config.data.root), ["train"])
    loader = train_loader(folder, config, first_batch=12)
    images = torch.cat([next(loader).images for _ in range(2)])
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    with torch.no_grad():
        outputs = model.conv1((images.float() - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    torch.testing.assert_close(saved["bn1.running_mean"], outputs.mean(dim=(0, 2, 3)), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(last["bn1.running_mean"], saved["bn1.running_mean"], rtol=1e-3, atol=1e-4)


def test_a_finished_run_can_be_resumed(run):
    config, result = run
    before = load_checkpoint(result.weights)["model"]
    again = train_classifier(config, resume=True)
    after = load_checkpoint(again.weights)["model"]
    assert again.metrics == result.metrics and all(torch.equal(after[key], before[key]) for key in before)


def test_moving_averages_may_be_kept_and_an_archive_trained_on(tmp_path):
    archive = pack(write_data(tmp_path / "set"), tmp_path / "set.tar.xz", "w:xz")
    config = make_config(archive, tmp_path / "run", train={"steps": 2}).model_copy(update={"bn_images": 0})
    result = train_classifier(config)
    saved, last = load_checkpoint(result.weights)["model"], load_checkpoint(config.output_dir / "last.pt")["model"]
    assert all(torch.equal(saved[key], last[key]) for key in last)


def test_splits_with_different_classes_stop_before_anything_is_written(tmp_path):
    write_split(tmp_path / "set", "train")
    write_split(tmp_path / "set", "val", ("apple",))
    with pytest.raises(DatasetError, match="only 'train' has berry"):
        train_classifier(make_config(tmp_path / "set", tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_quick_checks_come_before_the_images_are_read(tmp_path):
    config = make_config(tmp_path / "nowhere", tmp_path / "run", model={"weights": "missing.pt"})
    with pytest.raises(CheckpointError, match="cannot read checkpoint missing.pt"):
        train_classifier(config)
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run/last.pt").touch()
    with pytest.raises(TrainingError, match="holds another run"):
        train_classifier(config)
