"""The comparison on real features: whole ones of tiny detectors, which the results' page can read; what is finished stays."""

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from backbones import build_backbone
from backbones.norm import recompute_bn_statistics
from detection.config import load_config, override_config
from detection.data import load_split
from docs.result_files import ComparisonResult, read_result
from tests.shapes import write_config
from tools.benchmarks import real_features
from tools.benchmarks.real_features import IMPROVEMENTS, MEASURED, TRAININGS, main, settings_of, unfold_norms, write_renewed

HALF = ("model.backbone=resnet50_half", "model.stride_in_1x1=true", "model.stem_pool=ceil", "roi.pooling=align")
QUICK = ("train.steps=1", "train.log_every=1", "data.workers=0")


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("weights") / "half.pt"
    torch.manual_seed(0)
    torch.save(build_backbone("resnet50_half").state_dict(), file)
    return file


def test_each_row_is_trained_and_measured_once(tmp_path, devkit, weights, monkeypatch):
    config = write_config(tmp_path, devkit)
    options = ["--config", str(config), "--json", str(tmp_path / "out.json"), "--threads", "1", "--seeds", "3"]
    rows = ["--picture", str(tmp_path / "losses.png"), "--rows", "config", "random", "torchvision", "norms_learn"]
    monkeypatch.setattr(sys, "argv", ["real_features", *options, *rows, "--", *HALF, *QUICK, f"model.weights={weights}"])
    sys.argv.insert(1, "--improvements")
    monkeypatch.setattr(real_features, "IMPROVEMENTS", {"none": (), "voting": ("test.voting=true",)})
    main()
    result = read_result(tmp_path / "out.json")
    assert isinstance(result, ComparisonResult)
    assert list(result.rows) == ["the config", "from random weights", "torchvision's detector", "norms learn"]
    assert list(result.pictures.values()) == ["images/losses.png"] and (tmp_path / "losses.png").stat().st_size > 1000
    (improved,) = (table for table in result.tables if table.title.startswith("Improvements"))
    assert [row[0] for row in improved.rows] == ["none", "voting"] and improved.rows[0][1] == result.rows["the config"]["AP"]
    assert [row["seeds"] for row in result.rows.values()] == [1] * 4
    assert "norm: bn" in (tmp_path / "run/norms_learn_3/config.yaml").read_text()
    assert "weights: null" in (tmp_path / "run/random_3/config.yaml").read_text()
    measured = tmp_path / "run/config_3" / MEASURED
    changed = json.loads(measured.read_text())
    changed["metrics"]["AP"] = 0.25
    measured.write_text(json.dumps(changed))
    main()
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert rows["the config"]["AP"] == 0.25 and rows["norms learn"] == result.rows["norms learn"]


@torch.no_grad()
def test_unfolded_norms_compute_what_they_did_from_normalised_values():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5)).eval()
    for norm in (module for module in net if isinstance(module, nn.BatchNorm2d)):
        assert norm.running_mean is not None and norm.running_var is not None
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.normal_(norm.bias)
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    batches = [torch.randn(4, 3, 16, 16) * 3 + 1 for _ in range(2)]
    before = [net(images) for images in batches]
    unfold_norms(net, batches)
    for images, expected in zip(batches, before, strict=True):
        torch.testing.assert_close(net(images), expected, rtol=1e-4, atol=1e-4)
    # As normalised over both batches the values are what BatchNorm makes in training.
    torch.testing.assert_close(net.train()(torch.cat(batches)), torch.cat(before), rtol=1e-3, atol=1e-3)


def test_recomputed_norms_are_written_as_a_classifier(tmp_path, devkit, weights):
    config = load_config(write_config(tmp_path, devkit), [*HALF])
    write_renewed(config, weights, load_split(config.data, "train"), tmp_path / "new.pt", change=recompute_bn_statistics)
    new = build_backbone("resnet50_half", weights=tmp_path / "new.pt", stride_in_1x1=True, stem_pool="ceil").state_dict()
    old = torch.load(weights)
    assert torch.equal(new["layer1.0.conv1.weight"], old["layer1.0.conv1.weight"])
    assert not torch.allclose(new["layer1.0.bn1.running_mean"], old["layer1.0.bn1.running_mean"])


def test_the_papers_rate_drops_after_two_thirds():
    paper = next(each for each in TRAININGS if each.folder == "paper")
    assert "train.lr_drops=[400]" in settings_of(paper, 0, 600)
    assert settings_of(TRAININGS[0], 1, 600) == ["train.seed=1"]


def test_the_settings_that_are_measured_exist(tmp_path, devkit):
    config = load_config(write_config(tmp_path, devkit))
    for settings in [*IMPROVEMENTS.values(), *(settings_of(each, 0, config.train.steps) for each in TRAININGS)]:
        override_config(config, list(settings))
