"""An exported detector's masks, and the settings of torchvision's detectors, are what PyTorch computes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from backbones import registry
from detection import Detector
from detection.export import export_detector
from detection.export import exporter as exporting
from detection.export.agreement import Agreement, both, compare_masks, masks_of
from detection.export.exporter import exportable_detector
from detection.export.graph import DetectorGraph
from detection.inference.pasting import paste_masks
from detection.structures import Batch, Detections, pad_images
from docs.examples.plugin import tinynet
from tests.export.test_exporter import assert_same, by_image, detections_of_steps, run_onnx
from tests.inference.test_pasting import by_grid, random_boxes
from tests.small_detector import detector, noise, pyramid

PAGE = Path(__file__).parents[2] / "docs" / "export.md"
SIZES = [(128, 161), (150, 90), (3, 3)]  # of a padded batch, whose last image shows nothing
# What torchvision's detectors need, and what decides about layers and anchors.
SHARED: dict[str, dict[str, Any]] = {
    "mask": {"channels": 8},
    "roi": {"aligned": False, "unused_outputs": 2},
    "test": {"shorter_side": 128, "longer_side": 200, "max_detections": 20, "min_size": 6},
}
OF_PYRAMID: dict[str, dict[str, Any]] = {
    "mask": {"channels": 8, "pool_size": 4, "convs": 2},
    "fpn": {"channels": 16, "head_channels": 32, "head_convs": 1, "head_fcs": 1, "norm": "bn"},
    "rpn": {"convs": 2, "round_anchors": True, "pre_nms_test": 60},
}


@pytest.fixture(scope="module", params=["c4", "pyramid"])
def model(request: pytest.FixtureRequest) -> Detector:
    torch.manual_seed(0)
    build, own = (detector, {}) if request.param == "c4" else (pyramid, OF_PYRAMID)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.BACKBONES, "tinynet", tinynet.build)
        network = build(model={"backbone": "tinynet", "mask": True}, **{**SHARED, **own})
    assert network.roi_head.mask_head is not None
    nn.init.normal_(network.roi_head.mask_head.predictor.weight, std=5.0)  # far from one half
    return network.eval()


@torch.no_grad()
def masks_of_steps(model: Detector, batch: Batch, found: list[Detections]) -> list[Tensor]:
    return model.segment(model.extract(batch), [each.boxes for each in found], [each.labels for each in found])


def assert_as_the_steps(outputs: list[Tensor], model: Detector, batch: Batch) -> None:
    found = by_image(outputs[:4], len(batch))
    assert_same(found, detections_of_steps(model, batch))
    expected = torch.cat(masks_of_steps(model, batch, found))
    assert outputs[4].dtype == torch.float32 and len(expected) == 40 and float(expected.max() - expected.min()) > 0.02
    torch.testing.assert_close(outputs[4], expected, rtol=0, atol=1e-5)


def padded_batch() -> Batch:
    return Batch(pad_images([noise(*size_hw) for size_hw in SIZES]), SIZES)


@torch.no_grad()
def test_the_graph_itself(model: Detector) -> None:
    batch = padded_batch()
    assert [len(each) for each in detections_of_steps(model, batch)] == [20, 20, 0]
    assert_as_the_steps(list(DetectorGraph(model)(batch.images, torch.tensor(SIZES))), model, batch)


@torch.no_grad()
def test_regions_are_pooled_as_roi_aligned_says(model: Detector) -> None:
    graph, sides = DetectorGraph(model), torch.tensor([2.0, 5, 111, 112, 300, 448])
    features = model.extract(Batch(noise(131, 197)[None], [(131, 197)]))
    regions = torch.stack([torch.ones(6), torch.zeros(6), sides + 1, sides], dim=1)
    pooled = []
    for aligned in (True, False):
        for head in (graph.detector.roi_head, model.roi_head):
            head.config = model.config.roi.model_copy(update={"aligned": aligned})
        pooled.append(graph.pool(features, regions[None]))
        torch.testing.assert_close(pooled[-1], model.roi_head.pool(features, [regions]), rtol=1e-4, atol=1e-5)
    aligned_cells, other_cells = pooled
    assert not torch.allclose(aligned_cells, other_cells, atol=1e-3)


@torch.no_grad()
def test_small_detections_are_left_out_before_nms(model: Detector) -> None:
    graph, limits = DetectorGraph(model), torch.tensor([[100.0, 100, 100, 100]])
    boxes = torch.tensor([[0.0, 0, 5.9, 20], [0, 0, 6, 20], [97, 0, 120, 20]])[None, :, None].expand(-1, -1, 2, -1)
    scores = torch.tensor([[[0.9, 0.0], [0.8, 0.0], [0.7, 0.0]]])
    found = graph.select(scores, boxes, limits)
    assert [output.tolist() for output in found] == [[[0.0, 0, 6, 20]], [pytest.approx(0.8)], [0], [0]]


@pytest.fixture(scope="module")
def onnx_file(model: Detector, module_path: Path) -> Path:
    if torch.__version__ < exporting.OLDEST_TORCH:
        pytest.skip(f"exporting needs torch {exporting.OLDEST_TORCH} or newer")
    for package in ("onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    file = module_path / "detector.onnx"
    assert re.search("20 of 20 detections agree .*, 20 of 20 masks agree to ", export_detector(model, file))
    return file


def test_onnx(onnx_file: Path, model: Detector) -> None:
    batch = padded_batch()
    assert_as_the_steps(run_onnx(onnx_file, batch.images, torch.tensor(SIZES)), model, batch)


def test_onnx_without_any_detection(onnx_file: Path) -> None:
    boxes, *_, masks = run_onnx(onnx_file, noise(128, 128)[None], torch.tensor([[2, 60]]))
    assert boxes.shape == (0, 4) and masks.shape[0] == 0 and masks.shape[1] == masks.shape[2] > 1


def test_what_the_file_tells(model: Detector) -> None:
    exportable = exportable_detector(model)
    assert exportable.output_names == ("boxes", "scores", "labels", "image_index", "masks")
    assert exportable.metadata["pasting"] == "grid" and exportable.metadata["resizing"] == "opencv"
    boxes_alone = exportable_detector(detector())
    assert boxes_alone.output_names[-1] == "image_index" and "pasting" not in boxes_alone.metadata


@torch.no_grad()
def test_other_masks_are_noticed(model: Detector) -> None:
    exportable = exportable_detector(model)
    *found, masks = DetectorGraph(model)(*exportable.inputs(exportable.image))
    assert exportable.compare([*found, masks]).close_enough
    wrong = exportable.compare([*found, masks.mT])
    assert not wrong.close_enough and "20 of 20 detections agree" in wrong.sentence and " of 20 masks agree" in wrong.sentence
    nothing = [output[:0] for output in (*found, masks)]
    assert exportable.compare(nothing) == exportable.compare(nothing[:4])


def test_masks_are_those_of_an_evaluated_network(model: Detector) -> None:
    image, boxes, labels = noise(128, 140)[None], torch.tensor([[3.0, 5, 90, 60]]), torch.tensor([1])
    expected = masks_of(model, image, boxes, labels)
    model.train()
    torch.testing.assert_close(masks_of(model, image, boxes, labels), expected, rtol=0, atol=0)
    assert model.training
    model.eval()


def test_compare_masks() -> None:
    masks = torch.rand(60, 4, 4)
    assert compare_masks(masks + 0.0005, masks).sentence == "60 of 60 masks agree to 0.0005"
    one_off, two_off = masks.clone(), masks.clone()
    one_off[0, 1, 2] += 0.1
    two_off[:2, 3, 3] += 0.1
    assert compare_masks(one_off, masks).close_enough and not compare_masks(two_off, masks).close_enough
    assert compare_masks(masks + 1, masks) == Agreement(False, "0 of 60 masks agree")
    assert not compare_masks(torch.full_like(masks, torch.nan), masks).close_enough
    assert compare_masks(masks[:, :2], masks) == Agreement(False, "masks are (60, 2, 4), PyTorch's (60, 4, 4)")
    assert both(Agreement(True, "one"), Agreement(False, "two")) == Agreement(False, "one, two")
    assert both(Agreement(True, "one"), Agreement(True, "two")).close_enough


def test_the_documented_pasting_is_that_of_predict() -> None:
    (block,) = (text for text in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "def paste(" in text)
    names: dict[str, Any] = {}
    exec(block, names)
    generator = torch.Generator().manual_seed(1)
    for height, width, cells in ((40, 60, 7), (9, 5, 28), (30, 1, 1)):
        masks, boxes = torch.rand(20, cells, cells, generator=generator), random_boxes(generator, 20, height, width)
        pictures = [names["paste"](*each, height, width) for each in zip(masks.numpy(), boxes.numpy(), strict=True)]
        differ = torch.from_numpy(np.stack(pictures)) != paste_masks(masks, boxes, (height, width)).decode()
        at_threshold = (by_grid(masks, boxes, height, width) - 0.5).abs() <= 1e-4
        assert not (differ & ~at_threshold).any()
        assert any(picture.any() for picture in pictures)
