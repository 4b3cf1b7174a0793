"""The command: a checkpoint in, a file that runs without this package out; or one line that says why not."""

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from detection.cli.commands import export
from detection.cli.main import main
from detection.data.images import read_image
from detection.export.exporter import OLDEST_TORCH
from detection.inference.detector import load_detector
from tests.cli.trained import write_trained

NEW_ENOUGH = torch.__version__ >= OLDEST_TORCH
pytestmark = pytest.mark.skipif(not NEW_ENOUGH, reason=f"exporting needs torch {OLDEST_TORCH} or newer")
PAGE = Path(__file__).parents[2] / "docs" / "export.md"


@pytest.fixture(scope="module")
def trained(module_path):
    return write_trained(module_path)


@pytest.fixture
def photo(tmp_path, monkeypatch):
    """A photo.jpg in the working folder, and what is in it."""
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("photo.jpg", np.random.default_rng(1).integers(0, 255, (150, 130, 3), dtype=np.uint8))
    return read_image(tmp_path / "photo.jpg")


def examples() -> dict[str, str]:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return dict(zip(("load", "onnx", "paste", "pt2", "move"), blocks, strict=True))


def test_the_documented_program_finds_what_predict_finds(trained, photo, capsys):
    for package in ("onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    assert main(["export", "--weights", str(trained / "best.pt"), "test.score_threshold=0.3", "detector.onnx"]) == 0
    assert re.search(
        r"^detector.onnx: run by onnxruntime on .* detections agree with PyTorch's, boxes to", capsys.readouterr().out
    )
    names: dict[str, Any] = {}
    exec(examples()["onnx"], names)
    model = load_detector(trained / "best.pt")
    (expected,) = model.predict([photo])
    expected = expected[expected.scores > 0.3]
    assert len(expected)
    assert names["names"] == [model.class_names[label] for label in expected.labels.tolist()]
    np.testing.assert_allclose(names["boxes"], expected.boxes, atol=2e-2)
    np.testing.assert_allclose(names["scores"], expected.scores, atol=1e-4)


def test_torch_export_and_its_documented_program(trained, photo):
    assert main(["export", "--weights", str(trained / "best.pt"), "sub/detector.pt2"]) == 0
    Path("sub/detector.pt2").rename("detector.pt2")
    names: dict[str, Any] = {}
    exec(examples()["pt2"], names)
    assert names["class_names"] == ["cat", "dog"] and names["boxes"].shape[1] == 4


def test_backbone(tmp_path, capsys):
    file = tmp_path / "backbone.pt2"
    assert main(["export", "--backbone", "cifar_resnet8", str(file)]) == 0
    assert "features differ from PyTorch's by" in capsys.readouterr().out
    maps = torch.export.load(file).module()(torch.zeros(1, 3, 32, 48, dtype=torch.uint8))
    assert [tuple(one.shape) for one in maps] == [(1, 16, 32, 48), (1, 32, 16, 24), (1, 64, 8, 12)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--weights", "best.pt", "x.tflite"],
            "x.tflite: the suffix tells the format and must be .onnx or .pt2 (torch.export)",
        ),
        (["--weights", "best.pt"], "arguments are required: OUTPUT"),
        (["--weights", "best.pt", "test.flip=true"], "name one file to write, not 0: OUTPUT is missing"),
        (["--weights", "best.pt", "x.pt2", "y.pt2"], "name one file to write, not 2: x.pt2 y.pt2"),
        (["--weights", "best.pt", "x.pt2", "test.voting=true"], "test.voting=true cannot be exported"),
        (["--weights", "best.pt", "x.pt2", "test.nms_treshold=1"], "did you mean 'test.nms_threshold'"),
        (["--weights", "best.pt", "x.pt2", "roi.pooling=max"], "'roi.pooling=max' cannot be chosen here, only test...."),
        (["--weights", "best.pt", "x.pt2", "--backbone-weights", "y.pt"], "--backbone-weights goes with --backbone"),
        (["--weights", "absent.pt", "x.pt2"], "absent.pt"),
        (["--backbone", "resnet51", "x.pt2"], "did you mean 'resnet50'"),
        (["--backbone", "resnet18", "x.pt2", "model.norm=bn"], "only model.stride_in_1x1=... and model.stem_pool=..."),
        (["--backbone", "resnet18", "x.pt2", "--backbone-weights", "best.pt"], "best.pt"),
    ],
)
def test_mistakes_take_one_line(trained, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(trained)
    assert main(["export", *arguments]) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ") and text.count("\n") == 1 and message in text
    assert not list(trained.glob("x.*"))


def test_help_names_the_formats(capsys):
    with pytest.raises(SystemExit, match="0"):
        export.main(["--help"])
    assert ".pt2" in capsys.readouterr().out
