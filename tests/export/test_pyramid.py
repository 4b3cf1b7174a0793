"""An exported detector with a feature pyramid computes what PyTorch computes, at odd sizes and in padded batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from backbones import registry
from detection import Detector
from detection.export import export_detector
from detection.export import exporter as exporting
from detection.export.graph import DetectorGraph, best_of_each_map
from detection.modeling.rpn import best_of_maps
from detection.structures import Batch, pad_images
from docs.examples.plugin import tinynet
from tests.export.test_exporter import assert_same, by_image, detections_of_steps, run_onnx, run_program
from tests.small_detector import noise, pyramid

Run = Callable[..., list[torch.Tensor]]


@pytest.fixture(scope="module")
def model() -> Detector:
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.BACKBONES, "tinynet", tinynet.build)
        network = pyramid(
            model={"backbone": "tinynet"},
            rpn={"pre_nms_test": 60},
            roi={"context": True},
            test={"shorter_side": 128, "longer_side": 200, "max_detections": 20},
        )
    return network.eval()


@pytest.fixture(scope="module", params=[".onnx", ".pt2"])
def run(request: pytest.FixtureRequest, model: Detector, module_path: Path) -> Run:
    """The exported detector as a function."""
    if torch.__version__ < exporting.OLDEST_TORCH:
        pytest.skip(f"exporting needs torch {exporting.OLDEST_TORCH} or newer")
    for package in ("onnxscript", "onnxruntime") if request.param == ".onnx" else ():
        pytest.importorskip(package, reason=f"{package} is not installed")
    file = module_path / f"detector{request.param}"
    assert "20 of 20 detections agree" in export_detector(model, file)
    return lambda *inputs: (run_onnx if request.param == ".onnx" else run_program)(file, *inputs)


def test_odd_sizes(run: Run, model: Detector) -> None:
    images = [noise(131, 197) for _ in range(2)]
    expected = detections_of_steps(model, Batch(torch.stack(images), [(131, 197)] * 2))
    assert_same(by_image(run(torch.stack(images), torch.tensor([[131, 197]] * 2)), 2), expected)


def test_a_padded_batch_with_an_image_without_detections(run: Run, model: Detector) -> None:
    sizes_hw = [(128, 161), (150, 90), (3, 3)]
    padded = pad_images([noise(*size_hw) for size_hw in sizes_hw])
    expected = detections_of_steps(model, Batch(padded, sizes_hw))
    assert [len(detections) for detections in expected] == [20, 20, 0]
    padded[1, :, :, 90:] = 77  # what is in the padding has no effect
    assert_same(by_image(run(padded, torch.tensor(sizes_hw)), 3), expected)


@torch.no_grad()
def test_the_graph_itself(model: Detector) -> None:
    """Also with regions of all sizes, of which the random weights propose few, with max pooling, and refined."""
    images = torch.stack([noise(140, 190)] * 2)
    graph = DetectorGraph(model)
    features = graph.extract(images, torch.tensor([[140, 190]] * 2))
    for ours, expected in zip(features, model.extract(Batch(images, [(140, 190)] * 2)), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
    sides = torch.tensor([0.0, 5, 111, 112, 300, 448, 900])
    regions = torch.stack([torch.zeros(7), torch.zeros(7), sides, sides], dim=1).expand(2, -1, -1)
    for pooling in ("align", "max"):
        config = model.roi_head.config.model_copy(update={"pooling": pooling})
        for head in (model.roi_head, graph.detector.roi_head):
            head.config = config
        torch.testing.assert_close(
            graph.pool(features, regions), model.roi_head.pool(features, list(regions)), rtol=1e-4, atol=1e-4
        )
    model.roi_head.config = model.config.roi


def test_the_best_of_each_map() -> None:
    logits = torch.randn(2, 30)
    scores, places = best_of_each_map(logits, (20, 8, 2), 5)
    assert scores.shape == places.shape == (2, 3, 5)
    for row in range(2):
        expected, levels = best_of_maps(logits[row], (20, 8, 2), 5)
        there = scores[row] > -torch.inf
        assert places[row][there].tolist() == expected.tolist() and levels is not None
        torch.testing.assert_close(scores[row][there], logits[row, expected])
        assert int((~there).sum()) == 3 and int(places.max()) < 30
