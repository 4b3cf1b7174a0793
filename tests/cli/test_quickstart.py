"""`make run` in small: both stages, figures and pictures; run again it goes on instead of starting over."""

import json
from pathlib import Path

import pytest
import yaml

from detection.cli.commands.quickstart import main
from detection.cli.commands.train import main as train
from detection.cli.main import run
from detection.config import load_config
from detection.data.catalog import resolve_root
from detection.data.digits import DigitsOptions, make_digits
from detection.training import quickstart
from tests.datasets.scripts import load_script

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def digits(module_path):
    folder = module_path / "digits"
    sizes = ["--train", "6", "--val", "2", "--test", "3", "--crops", "600"]
    assert load_script("make_digits").main(["--output", str(folder), *sizes]) == 0
    return folder


def small_configs(digits: Path, folder: Path) -> list[str]:
    """The real configs with a few steps, on the small data."""
    detector = yaml.safe_load((ROOT / "configs" / "quickstart.yaml").read_text())
    for split in ("train", "val", "test"):
        detector["data"][split][0]["root"] = str(digits / "VOCdevkit")
    detector["data"]["workers"] = 0
    detector["train"].update(steps=2, log_every=1)
    classifier = yaml.safe_load((ROOT / "configs" / "quickstart_pretrain.yaml").read_text())
    classifier["data"].update(root=str(digits / "crops"), workers=0)
    classifier["train"].update(steps=2, batch_size=8, images_per_device=8)
    classifier["bn_images"] = 16
    (folder / "detector.yaml").write_text(yaml.safe_dump(detector))
    (folder / "classifier.yaml").write_text(yaml.safe_dump(classifier))
    return [
        "--config", str(folder / "detector.yaml"), "--pretrain-config", str(folder / "classifier.yaml"),
        "--output-dir", str(folder / "run"),
    ]  # fmt: skip


@pytest.mark.slow
def test_both_stages_and_again(digits, tmp_path, capsys):
    arguments = small_configs(digits, tmp_path)
    assert run(main, arguments) == 0
    first = json.loads((tmp_path / "run" / "summary.json").read_text())
    figures = {"voc07", "voc_area", "AP", "AP50", "AP75"}
    old_keys = {"voc07_map": "voc07", "voc_area_map": "voc_area", "coco_ap": "AP", "coco_ap50": "AP50", "coco_ap75": "AP75"}
    assert set(first) == figures | set(old_keys) | {"seconds", "deprecated"}
    assert all(first[old] == first[new] and f"{old} (now {new})" in first["deprecated"] for old, new in old_keys.items())
    assert set(first["seconds"]) == {"pretrain", "train", "evaluate"}
    assert all(0 <= first[name] <= 1 for name in figures)
    for name in ("detections.png", "ground_truth.png"):
        assert (tmp_path / "run" / "pictures" / name).stat().st_size > 1000
    assert (tmp_path / "run" / "classifier" / "model.pt").exists() and (tmp_path / "run" / "detector" / "best.pt").exists()
    capsys.readouterr()
    assert run(main, arguments) == 0
    again = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert {name: again[name] for name in figures} == {name: first[name] for name in figures}
    for stage in ("pretrain", "train"):
        assert again["seconds"][stage] == first["seconds"][stage]
    assert "VOC mAP@.5, area" in capsys.readouterr().out


def test_missing_sample_data_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESDET_DATASETS", str(tmp_path))
    configs = ROOT / "configs"
    arguments = ["--config", str(configs / "quickstart.yaml"), "--pretrain-config", str(configs / "quickstart_pretrain.yaml")]
    assert run(main, arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and "digits" in error


def test_sample_data_is_made_once_where_the_configs_look(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RESDET_DATASETS", raising=False)
    small = DigitsOptions(train=2, val=1, test=1, crops=10)
    monkeypatch.setattr(quickstart, "make_digits", lambda folder: make_digits(folder, small))
    said: list[str] = []
    quickstart.make_sample_data(said.append)
    assert "datasets/digits" in said[0]
    root = load_config("resdet:quickstart").data.test[0].root
    assert (resolve_root(root) / "VOC2007/ImageSets/Main/test.txt").exists()
    quickstart.make_sample_data(said.append)
    assert len(said) == 1


@pytest.mark.slow
def test_train_net_trains_the_classifier_first(digits, tmp_path, monkeypatch, capsys):
    """--pretrain is the first half of the quickstart; a finished classifier is not trained again."""
    small_configs(digits, tmp_path)
    monkeypatch.chdir(tmp_path)
    command = ["--config", "detector.yaml", "--pretrain", "classifier.yaml", "train.steps=1"]
    assert run(train, [*command, "--output-dir", "one"]) == 0
    said = capsys.readouterr().out
    assert "step 2/2" in said and "starts from the 10-class classifier runs/quickstart/classifier/model.pt" in said
    assert run(train, [*command, "--output-dir", "two"]) == 0
    assert "step 2/2" not in capsys.readouterr().out
    assert run(train, [*command, "--output-dir", "two"]) == 2
    assert run(train, [*command, "--weights", "x.pt"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert "two holds another run" in errors[0] and "give one of the two" in errors[1]
