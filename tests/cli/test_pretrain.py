import json

import pytest
import torch
import yaml

from backbones import load_checkpoint
from detection.cli.main import main
from tests.pretraining.class_folders import make_config, write_data, write_split


@pytest.fixture
def config_file(tmp_path):
    """A config of a short run on two classes; its output folder is tmp_path / run."""
    config = make_config(write_data(tmp_path / "set"), tmp_path / "run")
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return path


def refused(capsys, *arguments) -> str:
    """The one line on stderr of a command that is a mistake."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


def test_resumed_equals_uninterrupted_bit_for_bit(config_file, tmp_path, capsys):
    pretrain = ["pretrain", "--config", str(config_file)]
    random = "data.augmentations=[{RandomResizedCrop: {}}, {HorizontalFlip: {p: 0.5}}]"
    assert main([*pretrain, "--output-dir", str(tmp_path / "whole"), random]) == 0
    parts = [*pretrain, "--output-dir", str(tmp_path / "parts"), random]
    assert main([*parts, "train.steps=2"]) == 0
    assert main([*parts, "--resume", "data.workers=1"]) == 0
    for name in ("model.pt", "last.pt"):
        whole, resumed = (load_checkpoint(tmp_path / run / name)["model"] for run in ("whole", "parts"))
        assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    out = capsys.readouterr().out
    assert "8 training and 8 validation images of 2 classes" in out and "top-1 error" in out and "weights:" in out


def test_eval_classifier_repeats_the_runs_figures(config_file, tmp_path, capsys):
    assert main(["pretrain", "--config", str(config_file)]) == 0
    trained = capsys.readouterr().out
    arguments = ["eval-classifier", "--config", str(config_file), "--weights", str(tmp_path / "run/model.pt")]
    assert main([*arguments, "--json", str(tmp_path / "new/errors.json")]) == 0
    line = capsys.readouterr().out.strip()
    assert line.partition(": ")[2] in trained
    figures = json.loads((tmp_path / "new/errors.json").read_text())
    assert set(figures) == {"top1_error", "top5_error"} and f"top-1 error {figures['top1_error']:.2%}" in line
    write_split(tmp_path / "set", "other", ("apple", "clover"))
    assert "other classes" in refused(capsys, *arguments, "data.val=other")
    whole = (tmp_path / "run/model.pt").read_bytes()
    (tmp_path / "run/model.pt").write_bytes(whole[:1000])
    assert "model.pt" in refused(capsys, *arguments)
    assert "holds another run" in refused(capsys, "pretrain", "--config", config_file)


def test_weights_start_a_new_run(config_file, tmp_path, capsys):
    pretrain = ["pretrain", "--config", str(config_file)]
    assert main([*pretrain, "train.steps=1"]) == 0
    weights = str(tmp_path / "run/model.pt")
    arguments = [*pretrain, "--weights", weights, "--output-dir", str(tmp_path / "next"), "train.steps=1"]
    assert main([*arguments, "train.learning_rate=1e-9"]) == 0
    assert "all weights initialised" in capsys.readouterr().out
    first, second = (load_checkpoint(tmp_path / run / "model.pt")["model"] for run in ("run", "next"))
    torch.testing.assert_close(first["conv1.weight"], second["conv1.weight"], rtol=0, atol=1e-6)
    assert "one of the two" in refused(capsys, *pretrain, "--weights", weights, "--resume")
    other = [*pretrain, "--weights", weights, "--output-dir", tmp_path / "other"]
    assert "resnet34" in refused(capsys, *other, "model.backbone=resnet34")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.root=nowhere"], "nowhere"),
        (["data.val=test"], "no split 'test'"),
        (["model.backbone=resnet19"], "did you mean 'resnet1"),
        (["train.stepz=3"], "did you mean 'train.steps'"),
        (["data.augmentations=[{Resize: {height: 16}}]"], "data.augmentations give"),
        (["data.augmentations=[{NoSuchThing: {}}]"], "NoSuchThing"),
        (["--resume"], "nothing to resume"),
        (["model.weights=missing.pt"], "missing.pt"),
    ],
)
def test_mistakes_are_told_in_one_line(config_file, capsys, overrides, message):
    assert message in refused(capsys, "pretrain", "--config", config_file, *overrides)


def test_a_damaged_image_or_archive_is_named(config_file, tmp_path, capsys):
    image = tmp_path / "set/train/berry/02.png"
    image.write_bytes(image.read_bytes()[:-200])
    assert "berry/02.png" in refused(capsys, "pretrain", "--config", config_file)
    archive = tmp_path / "set.tar.xz"
    archive.write_bytes(b"\xfd7zXZ\0cut")
    assert "set.tar.xz" in refused(capsys, "pretrain", "--config", config_file, f"data.root={archive}")
