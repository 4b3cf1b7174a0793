"""Layer responses of several classifiers in one table, picture and JSON file."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from backbones import load_checkpoint, save_checkpoint
from detection.analysis.plots import label_weights
from detection.cli.commands.layer_responses import main, split_labels
from detection.cli.main import run
from detection.config import dump_config
from detection.data.images import read_image
from detection.pretraining import train_classifier
from tests.pretraining.class_folders import make_config, write_data, write_split

NETWORKS = ("cifar_plain20", "cifar_resnet26")


@pytest.fixture(scope="module")
def trained(module_path) -> Path:
    """A folder with data, one run of each of NETWORKS, and a config that is the first one's."""
    configs = [
        make_config(write_data(module_path / "data"), module_path / name, model={"backbone": name}, train={"steps": 1})
        for name in NETWORKS
    ]
    for config in configs:
        train_classifier(config)
    (module_path / "config.yaml").write_text(dump_config(configs[0]))
    return module_path


def command(root: Path, *weights: Path) -> list[str]:
    return ["--config", str(root / "config.yaml"), "--weights", *map(str, weights)]


def refused(capsys, arguments: list[str]) -> str:
    capsys.readouterr()
    assert run(main, arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_networks_of_different_depths_in_one_call(trained, tmp_path, capsys):
    weights = [trained / name / "model.pt" for name in NETWORKS]
    picture, file = tmp_path / "new" / "responses.png", tmp_path / "responses.json"
    assert run(main, [*command(trained, *weights), "--plot", str(picture), "--json", str(file)]) == 0
    written = json.loads(file.read_text())
    assert written["images"] == 8  # all there are, not the 1000 that are asked for
    networks = written["networks"]
    assert [(item["label"], len(item["layers"])) for item in networks] == [("cifar_plain20", 19), ("cifar_resnet26", 25)]
    assert [item["weights"] for item in networks] == [str(path) for path in weights]
    assert networks[0]["layers"][0]["name"] == "conv1" and all(layer["std"] > 0 for layer in networks[1]["layers"])
    assert read_image(picture).shape[1] > 1000 and "cifar_plain20" in capsys.readouterr().out


def test_labels_may_stand_before_overrides(trained, tmp_path):
    labelled = ["--images", "3", "--json", str(tmp_path / "r.json"), "--labels", "plain", "data.workers=0"]
    assert run(main, [*command(trained, trained / NETWORKS[0] / "model.pt"), *labelled]) == 0
    written = json.loads((tmp_path / "r.json").read_text())
    assert written["images"] == 3 and [item["label"] for item in written["networks"]] == ["plain"]
    assert split_labels(["lr=0.1", "lr=0.2"], 2) == (["lr=0.1", "lr=0.2"], [])
    assert split_labels(["a", "b", "c"], 2) == (["a", "b", "c"], [])


def test_files_of_one_folder_are_told_apart_by_their_names(trained, tmp_path):
    files = [tmp_path / "plain.pt", tmp_path / "residual.pt"]
    for name, file in zip(NETWORKS, files, strict=True):
        shutil.copy(trained / name / "model.pt", file)
    assert label_weights(files, None) == ["plain", "residual"]
    assert label_weights([trained / name / "model.pt" for name in NETWORKS], None) == list(NETWORKS)
    assert label_weights([Path("one.of.the.zoo"), files[0]], ["a", "b"]) == ["a", "b"]


def test_mistakes_are_one_line_that_names_the_file(trained, tmp_path, capsys, monkeypatch):
    good = trained / NETWORKS[0] / "model.pt"
    assert "--images" in refused(capsys, [*command(trained, good), "--images", "0"])
    assert "named twice" in refused(capsys, command(trained, good, good))
    # Before anything is computed or even read:
    assert "cannot draw 'x.xyz'" in refused(capsys, [*command(trained, tmp_path / "none.pt"), "--plot", "x.xyz"])
    broken = tmp_path / "diverged.pt"
    contents = load_checkpoint(good)
    contents["model"]["layer2.0.conv1.weight"].fill_(torch.nan)
    save_checkpoint(contents, broken)
    line = refused(capsys, command(trained, good, broken))
    assert "diverged.pt" in line and "layer2.0.conv1" in line
    write_split(tmp_path / "three", "val", ("apple", "berry", "clover"))
    line = refused(capsys, [*command(trained, good), f"data.root={tmp_path / 'three'}"])
    assert "model.pt" in line and "other classes" in line
    monkeypatch.setattr("detection.analysis.layer_responses.normed_3x3_layers", lambda network: {})  # as of VGG-16, but quick
    line = refused(capsys, command(trained, good))
    assert f"{good}: the network has no BN" in line
