"""Curves of several runs, and layer responses of several classifiers, in one picture."""

import json
from pathlib import Path

import cv2
import pytest

from detection.cli.layer_responses import main as layer_responses
from detection.cli.main import run
from detection.cli.plot_runs import Curve, main, read_run, smoothed
from detection.cli.plots import label_runs
from detection.config_files import dump_config
from detection.pretraining.train import run_pretraining
from tests.pretraining.class_folders import make_config, write_data


def write_run(folder: Path, errors: list[float], end: str = "") -> Path:
    folder.mkdir(parents=True)
    lines = []
    for number, error in enumerate(errors, start=1):
        step = number * 10
        lines.append({"kind": "train", "step": step, "loss": error, "losses": {"loss_x": error}, "train_top1_error": error / 2})
        lines.append({"kind": "evaluation", "step": step, "metrics": {"top1_error": error, "top5_error": 0.0}})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + end)
    return folder


def test_curves_are_read_by_name(tmp_path):
    curves = read_run(write_run(tmp_path / "a", [0.9, 0.5], end='{"kind": "tra'))
    assert curves.evaluation["top1_error"] == Curve([10, 20], [0.9, 0.5])
    assert curves.training["loss_x"].values == [0.9, 0.5] and curves.training["train_top1_error"].values == [0.45, 0.25]


def test_a_point_is_the_mean_of_those_before_it():
    assert smoothed(Curve([1, 2, 3, 4], [4.0, 2.0, 0.0, 1.0]), 2).values == [4, 3, 1, 0.5]


def test_runs_are_told_apart_by_as_much_of_the_path_as_it_takes():
    assert label_runs([Path("x/plain/run"), Path("x/resnet/run")], None) == ["plain/run", "resnet/run"]
    assert label_runs([Path("x/plain"), Path("y/resnet")], None) == ["plain", "resnet"]


def test_runs_are_drawn(tmp_path, capsys):
    runs = [write_run(tmp_path / name, errors) for name, errors in (("plain", [0.9, 0.8]), ("resnet", [0.9, 0.6]))]
    output = tmp_path / "out" / "curves.png"
    assert run(main, [*map(str, runs), "--output", str(output), "--json", str(tmp_path / "c.json")]) == 0
    assert cv2.imread(str(output)).shape[1] > 1000 and str(output) in capsys.readouterr().out
    written = json.loads((tmp_path / "c.json").read_text())
    assert written["metric"] == "top1_error" and written["train_metric"] == "train_top1_error"
    assert written["runs"]["resnet"]["evaluation"] == {"steps": [10, 20], "values": [0.9, 0.6]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metric", "top1_eror"], "did you mean 'top1_error'?"),
        (["--train-metric", "AP"], "has no training metric 'AP'"),
        (["--labels", "a", "b"], "--labels needs 1 different names, got 2"),
        (["--smooth", "0"], "--smooth must be at least 1"),
        (["--output", "curves.xyz"], "cannot draw 'curves.xyz'"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, options, message):
    folder = write_run(tmp_path / "a", [0.9])
    assert run(main, [str(folder), "--output", str(tmp_path / "c.png"), *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "has no records yet"), ('{"step": 1}\n{"a"\n{"b"\n', "line 1 is no record"), (None, "cannot read")],
)
def test_files_that_are_no_runs_are_one_line(tmp_path, capsys, text, message):
    if text is not None:
        (tmp_path / "metrics.jsonl").write_text(text)
    assert run(main, [str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_responses_of_networks_of_different_depths(tmp_path, capsys):
    configs = [
        make_config(write_data(tmp_path / "data"), tmp_path / name, model={"backbone": name}, train={"steps": 1})
        for name in ("cifar_plain20", "cifar_resnet20")
    ]
    weights = [str(run_pretraining(config).weights) for config in configs]
    (tmp_path / "config.yaml").write_text(dump_config(configs[0]))
    picture, file = tmp_path / "responses.png", tmp_path / "responses.json"
    command = ["--config", str(tmp_path / "config.yaml"), "--weights", *weights, "--plot", str(picture), "--json", str(file)]
    assert run(layer_responses, command) == 0
    networks = json.loads(file.read_text())["networks"]
    assert [item["label"] for item in networks] == ["cifar_plain20", "cifar_resnet20"]
    assert all(len(item["layers"]) == 19 and item["mean"] > 0 for item in networks)
    assert cv2.imread(str(picture)) is not None and "cifar_plain20" in capsys.readouterr().out
    assert run(layer_responses, [*command, "--images", "0"]) == 2
