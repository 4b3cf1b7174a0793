"""The training command on a devkit of a few pictures: it learns, stops, goes on, and says what is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from detection import Callback, trackers
from detection.cli.main import command_main, run
from detection.inference.detector import load_detector
from tests.shapes import write_config

ROOT = Path(__file__).parents[2]


def train(*arguments: object) -> int:
    return run(command_main("train"), [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def trained(devkit: Path, module_path: Path) -> Path:
    """A finished run's folder; its config lies above it."""
    assert train("--config", write_config(module_path, devkit)) == 0
    return module_path / "run"


def test_a_run_learns_evaluates_and_leaves_a_detector(trained: Path) -> None:
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == [1, 2, 3, 4, 5, 6]
    assert len(lines[0]["losses"]) == 4
    assert {"AP", "AP50", "voc_area", "voc07"} <= lines[-1]["metrics"].keys()
    model = load_detector(trained / "best.pt")
    assert model.class_names == ("disc", "square") and not model.training
    assert torch.load(trained / "last.pt", weights_only=True)["metadata"]["kind"] == "detector"


def test_the_final_table_is_printed(devkit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--config", write_config(tmp_path, devkit), "--output-dir", tmp_path / "other", "train.steps=1") == 0
    said = capsys.readouterr().out
    for text in (
        "train: 4 images, 4 objects",
        "val: 2 images",
        "COCO AP@[.5,.95]",
        "VOC mAP@.5, 11-point",
        str(tmp_path / "other"),
    ):
        assert text in said


def test_sigterm_to_all_processes_then_resume_equals_a_whole_run(trained: Path, devkit: Path, tmp_path: Path) -> None:
    """As a cluster's scheduler or `timeout` does it: the loader's workers get the signal too."""
    config = write_config(tmp_path, devkit, workers=1)
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tools" / "train_net.py"), "--config", str(config)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    said = []
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        if line.startswith("step 1/"):
            os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(timeout=60) == 128 + signal.SIGTERM, "".join(said)
    assert "with --resume" in said[-1] and "Traceback" not in "".join(said), "".join(said)
    assert train("--config", config, "--resume") == 0
    ours, theirs = (torch.load(path / "last.pt", weights_only=True) for path in (tmp_path / "run", trained))
    torch.testing.assert_close(ours["model"], theirs["model"], rtol=0, atol=0)
    ours, theirs = ours["training"], theirs["training"]
    torch.testing.assert_close(ours["optimizer"], theirs["optimizer"], rtol=0, atol=0)


def test_weights_of_a_detector_start_a_new_run(
    trained: Path, devkit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, devkit)
    assert train("--config", config, "--weights", trained / "best.pt", "train.steps=1", "train.learning_rate=1e-9") == 0
    assert "all weights start from the detector" in capsys.readouterr().out
    ours, theirs = (torch.load(path, weights_only=True)["model"] for path in (tmp_path / "run/last.pt", trained / "best.pt"))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_a_detector_of_other_classes_is_a_start(
    trained: Path, devkit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--weights", f"{trained}/last.pt", "--output-dir", f"{tmp_path}/run"]
    changes = ["data.classes=[square, ball, disc]", "roi.context=true", "train.steps=2"]
    assert train("--config", write_config(tmp_path, devkit), *arguments, *changes) == 0
    said = capsys.readouterr().out
    assert "2 of 3 classes keep their rows of the box layers, ball start from random numbers" in said
    assert "global context start at zero" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume", "--weights", "x.pt"], "--resume goes on with a run, --weights starts a new one"),
        (["--resume", "--output-dir", "{tmp}/none"], "nothing to resume: "),
        (["--output-dir", "{trained}"], "holds another run (last.pt): resume it (--resume)"),
        (["--output-dir", "{trained}", "--resume", "train.momentum=0.5"], "train.momentum (0.9 -> 0.5)"),
        (["--weights", "{tmp}/none.pt"], "cannot read checkpoint"),
        (["--weights", "{trained}/last.pt", "model.stride_in_1x1=true"], "model.stride_in_1x1=False, not True"),
        (["train.stepz=3"], "unknown key 'train.stepz'"),
        (["data.train=[]"], "no source of images"),
    ],
)
def test_mistakes_are_one_line(
    trained: Path, devkit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    filled = [argument.format(tmp=tmp_path, trained=trained) for argument in arguments]
    assert train("--config", write_config(tmp_path, devkit), *filled) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert message in error


def test_a_classifier_and_its_detector_have_a_folder_each(
    devkit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "link").symlink_to("one")
    classifier = tmp_path / "classifier.yaml"
    classifier.write_text(f"output_dir: {tmp_path / 'link'}")
    config = write_config(tmp_path, devkit)
    assert train("--config", config, "--pretrain", classifier, "--output-dir", tmp_path / "one") == 2
    assert "each run needs a folder to itself" in capsys.readouterr().err
    assert list((tmp_path / "one").iterdir()) == []


@pytest.mark.parametrize("folder", ["run", "run/step1_rpn", "run/step3_rpn"])
def test_a_classifier_has_no_folder_of_an_alternating_step(
    devkit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], folder: str
) -> None:
    (tmp_path / "classifier.yaml").write_text(f"output_dir: {tmp_path / folder}")
    config = write_config(tmp_path, devkit)
    assert train("--config", config, "--pretrain", tmp_path / "classifier.yaml", "approach=alternating") == 2
    assert "each run needs a folder to itself" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_alternating_training_that_has_begun_is_found_before_the_classifier_is_trained(
    devkit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("detection.pretraining.train_classifier", lambda *_, **__: pytest.fail("the classifier was trained"))
    (tmp_path / "classifier.yaml").write_text(f"output_dir: {tmp_path / 'classifier'}")
    (tmp_path / "run/step1_rpn").mkdir(parents=True)
    (tmp_path / "run/step1_rpn/last.pt").touch()
    config = write_config(tmp_path, devkit)
    assert train("--config", config, "--pretrain", tmp_path / "classifier.yaml", "approach=alternating") == 2
    assert "step1_rpn holds another run (last.pt)" in capsys.readouterr().err


def test_a_run_is_tracked(
    devkit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Noted(Callback):
        steps: ClassVar[list[int]] = []

        def on_log(self, line: dict[str, Any]) -> None:
            self.steps.append(line["step"])

    monkeypatch.setitem(trackers.TRACKERS, "mlflow", Noted)
    config = write_config(tmp_path, devkit)
    assert train("--track", "mlflow", "--config", config, "train.steps=2") == 0 and Noted.steps == [1, 2]
    assert train("--config", config, "--track", "paper") == 2
    assert "invalid choice: 'paper'" in capsys.readouterr().err
