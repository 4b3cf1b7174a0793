"""Exported detectors predict as PyTorch's does, in float32 and nearly so in int8; what cannot be run is told in one line."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detection import Detector
from detection.cli.main import main
from detection.config import Config, override_config
from detection.engine.precision import has_native_bf16
from detection.errors import CheckpointError, ConfigError, DatasetError
from detection.export import ExportedDetector, export_int8, load_exported, quantise_detector, runtimes
from detection.export.exporter import OLDEST_TORCH, export_detector
from detection.export.quantisation import PREDICTORS
from detection.export.runtimes import RuntimeName, read_onnx
from detection.modeling.boxes import pairwise_iou
from detection.structures import Detections
from tests.small_detector import detector, noise

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
for package in ("onnxscript", "onnxruntime"):
    pytest.importorskip(package, reason=f"{package} is not installed")
pytestmark = pytest.mark.skipif(torch.__version__ < OLDEST_TORCH, reason=f"exporting needs torch {OLDEST_TORCH} or newer")
HAS_OPENVINO = runtimes.importlib.util.find_spec("openvino") is not None
RUNTIMES = ["onnx", pytest.param("openvino", marks=pytest.mark.skipif(not HAS_OPENVINO, reason="openvino is not installed"))]
# Of two shapes; the last is smaller, once it is resized, than the graph's shortest side.
SIZES = [(60, 80), (60, 80), (90, 70), (20, 90)]


@pytest.fixture(scope="module")
def model() -> Detector:
    torch.manual_seed(0)
    return detector(test={"max_detections": 20, "batch_size": 2, "score_threshold": 0.01}).eval()


@pytest.fixture(scope="module")
def file(model: Detector, module_path: Path) -> Path:
    export_detector(model, module_path / "detector.onnx")
    return module_path / "detector.onnx"


@pytest.fixture(scope="module")
def photos(module_path: Path) -> Path:
    """A folder of pictures, with smooth shapes in them."""
    folder = module_path / "photos"
    folder.mkdir()
    colours = np.random.default_rng(0)
    for number, (height, width) in enumerate(SIZES):
        small = Image.fromarray(colours.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        small.resize((width, height), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def int8(file: Path, photos: Path, module_path: Path) -> Path:
    sentence = quantise_detector(file, module_path / "int8.onnx", photos)
    assert sentence.startswith("21 of 25 layers are in int8, their ranges measured on 4 images; ")
    return module_path / "int8.onnx"


def settings(*overrides: str):
    return lambda own: override_config(own, list(overrides))


def assert_same(found: Sequence[Detections], expected: Sequence[Detections], scores: float = 1e-4) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert len(theirs) and ours.labels.tolist() == theirs.labels.tolist()
        torch.testing.assert_close(ours.boxes, theirs.boxes, rtol=0, atol=2e-2)
        torch.testing.assert_close(ours.scores, theirs.scores, rtol=0, atol=scores)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_predicts_what_pytorch_predicts(model: Detector, file: Path, photos: Path, runtime: RuntimeName) -> None:
    exported = load_exported(file, settings("test.batch_size=2"), runtime=runtime)
    whole = sorted(photos.iterdir())[:3]
    found, expected = exported.predict(whole), model.predict(whole)
    assert_same(found, expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.source, ours.size_hw, ours.class_names) == (theirs.source, theirs.size_hw, theirs.class_names)
    # Filled up at the bottom, which the features of the last rows see: as where images of a batch are padded.
    (narrow,) = exported.predict([photos / "3.png"])
    assert len(narrow) and (narrow.boxes[:, 3] <= 20).all() and narrow.size_hw == (20, 90)


def test_tiles_and_higher_thresholds_are_pytorchs(model: Detector, file: Path) -> None:
    image = noise(70, 110)
    threshold = float(model.predict(image)[0].scores[:8].mean())
    chosen = ("test.tile=64", "test.batch_size=3", f"test.score_threshold={{dog: {threshold}, cat: 0.01}}")
    strict = detector().eval()
    strict.load_state_dict(model.state_dict())
    strict.use_test_config(override_config(model.config, chosen).test)
    exported = load_exported(file, settings(*chosen))
    (found,), (expected,) = exported.predict(image), strict.predict(image)
    assert_same([found], [expected])
    (loose,) = load_exported(file, settings(*chosen[:2])).predict(image)
    assert int((found.labels == 1).sum()) < int((loose.labels == 1).sum())


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_masks_are_pytorchs(tmp_path: Path, runtime: RuntimeName) -> None:
    torch.manual_seed(0)
    model = detector(model={"mask": True}, mask={"channels": 8}, test={"max_detections": 5}).eval()
    export_detector(model, tmp_path / "masks.onnx")
    exported = load_exported(tmp_path / "masks.onnx", runtime=runtime)
    assert exported.predicts_masks
    image = noise(64, 90)
    (found,), (expected,) = exported.predict(image), model.predict(image)
    assert_same([found], [expected])
    assert found.masks is not None and expected.masks is not None and found.masks.size_hw == (64, 90)
    ours, theirs = found.masks.decode(), expected.masks.decode()
    assert (ours != theirs).float().mean() < 1e-3 and theirs.any()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_int8_finds_nearly_the_same(model: Detector, int8: Path, photos: Path, runtime: RuntimeName) -> None:
    exported = load_exported(int8, runtime=runtime)
    images = sorted(photos.iterdir())[:3]
    for found, expected in zip(exported.predict(images), model.predict(images), strict=True):
        overlaps = pairwise_iou(expected.boxes[:5], found.boxes) * (expected.labels[:5, None] == found.labels)
        assert (overlaps.amax(dim=1) > 0.5).float().mean() >= 0.6


def test_int8_is_small_and_keeps_the_predictors(file: Path, int8: Path) -> None:
    assert int8.stat().st_size < file.stat().st_size / 3
    weights = {entry.name: entry.data_type for entry in onnx.load(int8).graph.initializer}
    exact = {name for name in weights if any(name.endswith(f"{part}.weight") for part in PREDICTORS)}
    assert len(exact) == 4 and {weights[name] for name in exact} == {onnx.TensorProto.FLOAT}
    assert weights["detector.trunk.conv1.weight_quantized"] == onnx.TensorProto.INT8
    about, before = read_onnx(int8).metadata, read_onnx(file).metadata
    assert about == {**before, "arithmetic": "int8"}


@pytest.mark.skipif(not HAS_OPENVINO, reason="openvino is not installed")
def test_openvino_computes_all_but_the_predictors_in_int8(int8: Path) -> None:
    import openvino

    graph = openvino.Core().compile_model(int8, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).get_runtime_model()
    about = [operation.get_rt_info() for operation in graph.get_ordered_ops()]
    layers = [each["runtimePrecision"].value for each in about if each["layerType"].value == "Convolution"]
    assert len(layers) == 23 and layers.count("f32") == 2  # the RPN's two predictors


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_command_writes_the_same_labels(
    model: Detector, file: Path, photos: Path, tmp_path: Path, runtime: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    common = ["predict", str(photos / "[012].png"), "--format", "coco", "--score-threshold", "0.02"]
    exported = [*common, "--weights", str(file), "--runtime", runtime, "--output", str(tmp_path / "exported")]
    assert main(exported) == 0
    assert f"weights: {file}, run by " in capsys.readouterr().out
    monkeypatch.setattr("detection.cli.drawing.load", lambda weights, adapt, device: adapted(model, adapt))
    assert main([*common, "--output", str(tmp_path / "own"), "train.precision=fp32"]) == 0
    ours, theirs = (json.loads((tmp_path / name / "annotations.json").read_text()) for name in ("exported", "own"))
    assert ours["images"] == theirs["images"] and ours["categories"] == theirs["categories"]
    assert len(theirs["annotations"]) == len(ours["annotations"]) > 0
    for mine, other in zip(ours["annotations"], theirs["annotations"], strict=True):
        assert mine["category_id"] == other["category_id"] and mine["bbox"] == pytest.approx(other["bbox"], abs=0.02)


def adapted(model: Detector, adapt) -> Detector:
    copy = detector().eval()
    copy.load_state_dict(model.state_dict())
    copy.config = adapt(model.config)
    copy.use_test_config(copy.config.test)
    return copy


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((), "below 0.01"),
        (("test.score_threshold={cat: 0.02, dog: 0.001}",), "test.score_threshold=0.001 of dog is below 0.01"),
        (("test.nms_threshold=0.7",), "test.nms_threshold=0.7 cannot be chosen for .*detector.onnx, whose graph has 0.3"),
        (("test.flip=true",), "test.flip=True cannot be chosen"),
        (("train.precision=bf16",), "onnxruntime computes in fp32"),
    ],
)
def test_settings_that_a_graph_cannot_follow(file: Path, overrides: tuple[str, ...], message: str) -> None:
    chosen = overrides or ("test.score_threshold=0.005",)
    with pytest.raises(ConfigError, match=message):
        load_exported(file, settings(*chosen))


@pytest.mark.skipif(not HAS_OPENVINO, reason="openvino is not installed")
def test_openvino_computes_in_bf16_where_asked(model: Detector, file: Path) -> None:
    image = noise(64, 96)
    (exact,), (rounded,) = (
        load_exported(file, settings(f"train.precision={precision}"), runtime="openvino").predict(image)
        for precision in ("fp32", "bf16")
    )
    assert_same([exact], model.predict(image))
    difference = float((rounded.scores[:5] - exact.scores[:5]).abs().max())
    if has_native_bf16(torch.device("cpu")):
        assert 1e-5 < difference < 0.1
    else:
        assert difference == 0  # OpenVINO stays in float32


def test_what_is_no_exported_detector(file: Path, int8: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "short.onnx").write_bytes(file.read_bytes()[:1000])
    (tmp_path / "text.onnx").write_text("no graph")
    other = onnx.load(file)
    del other.metadata_props[:]
    onnx.save(other, tmp_path / "foreign.onnx")
    onnx.helper.set_model_props(other, {"format": "resdet", "kind": "backbone"})
    onnx.save(other, tmp_path / "backbone.onnx")
    onnx.helper.set_model_props(other, {"format": "resdet", "kind": "detector", "class_names": "[1"})
    onnx.save(other, tmp_path / "damaged.onnx")
    for name, message in {
        "absent": "cannot read .*absent.onnx: No such file",
        "short": "is no ONNX file, or is cut short",
        "text": "is no ONNX file, or is cut short",
        "foreign": "is not a graph that `resdet export` wrote",
        "backbone": "holds a backbone, not a detector",
        "damaged": "does not say its class_names",
    }.items():
        with pytest.raises(CheckpointError, match=message):
            load_exported(tmp_path / f"{name}.onnx")
    with pytest.raises(CheckpointError, match="is in int8 already"):
        quantise_detector(int8, tmp_path / "twice.onnx", photos)
    with pytest.raises(DatasetError, match="give at least one image"):
        quantise_detector(file, tmp_path / "x.onnx", [])
    with pytest.raises(DatasetError, match="absent.jpg"):
        quantise_detector(file, tmp_path / "x.onnx", [photos / "0.png", "absent.jpg"])
    with pytest.raises(ConfigError, match=r"only \.onnx files are written in int8"):
        export_int8(detector(), tmp_path / "x.pt2", photos)
    assert not list(tmp_path.glob("x.*")) and not (tmp_path / "twice.onnx").exists()


def test_without_the_packages(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = runtimes.importlib.util.find_spec
    absent = {"openvino": "openvino", "onnxruntime": "export"}
    monkeypatch.setattr(runtimes.importlib.util, "find_spec", lambda name: None if name in absent else find_spec(name))
    for runtime, (package, extra) in zip(("openvino", "onnx"), absent.items(), strict=True):
        with pytest.raises(ConfigError, match=rf"{package} must be installed: pip install 'resdet\[{extra}\]'"):
            load_exported(file, runtime=runtime)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "best.pt", "--runtime", "onnx"], "give --weights FILE.onnx, not 'best.pt'"),
        (["--runtime", "openvino"], "--runtime openvino runs what `resdet export` writes: give --weights FILE.onnx"),
        (["--weights", "detector.onnx"], "detector.onnx is an exported graph: say what runs it, --runtime onnx"),
        (["--weights", "absent.onnx", "--runtime", "onnx"], "cannot read absent.onnx"),
        (["--runtime", "tensorrt"], "--runtime"),
    ],
)
def test_mistakes_take_one_line(arguments: list[str], message: str, photos: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["predict", str(photos), "--format", "coco", *arguments]) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ") and text.count("\n") == 1 and message in text


def test_an_exported_detector_is_evaluated_as_any_other(file: Path) -> None:
    exported = load_exported(file)
    assert isinstance(exported, ExportedDetector) and exported.class_names == ("cat", "dog")
    assert exported.config.test.shorter_side == 64 and exported.config.train.precision == "fp32"
    assert isinstance(exported.config, Config) and exported.device.type == "cpu"
