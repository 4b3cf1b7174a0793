"""Whatever the autocast of the network: what is done with its boxes, scores and losses is done in float32."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from backbones.base import C4Head, C4Trunk
from detection import Detector, Ensemble
from detection.modeling.anchors import grid_anchors
from detection.modeling.boxes import decode_boxes, encode_boxes, pairwise_iou
from detection.modeling.roi_align import roi_align
from detection.modeling.roi_max_pool import roi_max_pool
from detection.modeling.rpn import RpnOutput
from detection.structures import Batch, Detections, Target
from tests.small_detector import detector, noise
from tests.test_architecture import ROOT

SIDE = 2000
SIZES = {"shorter_side": SIDE, "longer_side": 2600}
STRATEGIES: dict[str, dict[str, Any]] = {
    "plain": {},
    "refinement": {"refinement_passes": 2},
    "mean of the passes": {"refinement_passes": 2, "refinement": "average", "refine_scores": [0.05, 0.8]},
    "voting": {"voting": True},
    "voting above the threshold": {"voting": True, "voting_candidates": "above_threshold", "score_threshold": 0.2},
    "scales": {"scales": [1600, 2000, 2400], "scale_area": 900},
    "scales after conv5": {"scales": [1600, 2000], "scale_merge": "conv5"},
    "flip": {"flip": True},
    "everything": {"refinement_passes": 1, "voting": True, "scales": [1600, 2000], "flip": True},
}


class FixedTrunk(C4Trunk):
    """Features of the right size; the heads below do not look at them."""

    def __init__(self, trunk: Any) -> None:
        super().__init__()
        self.channels, self.stride, self.preprocessing = trunk.channels, trunk.stride, trunk.preprocessing

    def forward(self, images: Tensor) -> Tensor:
        return images.new_zeros(len(images), 8, -(-images.shape[2] // 16), -(-images.shape[3] // 16))


class FixedHead(C4Head):
    """Vectors whose values do not matter."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, pooled_features: Tensor) -> Tensor:
        return pooled_features.new_zeros(len(pooled_features), self.channels)


def fixed(seed: int, *shape: int) -> Tensor:
    """The same float32 numbers at each call, whatever the precision."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def fixed_network(seed: int = 0, **sections: dict[str, Any]) -> Detector:
    """A detector whose network gives fixed outputs for images of 2000 pixels and more: all else is arithmetic."""
    test = {**SIZES, **sections.pop("test", {})}
    rpn = {"anchor_sizes": [600, 1200], "post_nms_test": 60, "post_nms_train": 60, "pre_nms_test": 500}
    model = detector(test=test, rpn=rpn, **sections)
    model.add_module("trunk", FixedTrunk(model.trunk))
    head, proposer = model.roi_head, model.rpn
    head.conv5 = FixedHead(head.conv5.channels)

    def propose(features: tuple[Tensor, ...]) -> RpnOutput:
        found = grid(proposer, features)
        logits, deltas = fixed(seed, len(features[0]), len(found)), fixed(seed + 1, len(features[0]), len(found), 4) * 0.3
        return RpnOutput(logits, deltas.requires_grad_(), found, (len(found),))

    def classify(vectors: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        count = len(vectors)
        return fixed(seed + 2, count, head.num_classes + 1) * 2, fixed(seed + 3, count, head.num_classes, 4).requires_grad_()

    vars(proposer)["forward"], vars(head)["logits_and_deltas"] = propose, classify
    return model.eval()


def grid(proposer: Any, features: tuple[Tensor, ...]) -> Tensor:
    return grid_anchors(proposer.get_buffer("cell_anchors")[0], 16, (features[0].shape[2], features[0].shape[3]))


def bf16() -> Any:
    return torch.autocast("cpu", dtype=torch.bfloat16)


def in_both(compute: Callable[[], Any]) -> tuple[Any, Any]:
    torch.manual_seed(3)
    exact = compute()
    torch.manual_seed(3)
    with bf16():
        return exact, compute()


def assert_alike(exact: list[Detections], found: list[Detections]) -> None:
    for ours, expected in zip(found, exact, strict=True):
        assert len(ours) == len(expected) > 0 and ours.labels.tolist() == expected.labels.tolist()
        assert ours.boxes.dtype == ours.scores.dtype == torch.float32
        torch.testing.assert_close(ours.boxes, expected.boxes, rtol=0, atol=1e-3)
        torch.testing.assert_close(ours.scores, expected.scores, rtol=0, atol=1e-6)
    assert max(found.boxes.max() for found in exact) > 1900


IMAGE = torch.zeros((3, SIDE, 2200), dtype=torch.uint8)


@pytest.mark.parametrize("context", [False, True], ids=["alone", "context"])
@pytest.mark.parametrize("test", STRATEGIES.values(), ids=STRATEGIES)
def test_detections_of_large_coordinates_are_exact(test, context):
    model = fixed_network(roi={"context": context}, test=test)
    assert_alike(*in_both(lambda: model.predict([IMAGE])))


def test_detections_of_an_ensemble_are_exact():
    ensemble = Ensemble([fixed_network(test={"voting": True}), fixed_network(9, test={"shorter_side": 1500})])
    assert_alike(*in_both(lambda: ensemble.predict([IMAGE])))


def test_the_four_losses_are_exact():
    model = fixed_network()
    boxes = torch.tensor([[1500.3, 1200.7, 2100.9, 1900.1], [40.2, 300.6, 900.4, 1100.8]])
    batch = Batch(IMAGE[None], [(SIDE, 2200)], [Target(boxes, torch.tensor([0, 1]), torch.tensor([[0.0, 0, 500, 500]]))])
    exact, found = in_both(lambda: model.train()(batch))
    assert len(exact) == 4
    for name, loss in exact.items():
        assert found[name].dtype == torch.float32 and loss > 0
        torch.testing.assert_close(found[name], loss, rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("stride", [1, 2])
def test_pooling_and_geometry_are_exact(stride):
    features = fixed(1, 1, 4, 125, 140)
    rois = [torch.tensor([[1500.3, 1200.7, 2100.9, 1900.1], [1.2, 300.6, 1999.4, 1999.8]])]
    for compute in (
        lambda: roi_align(features, rois, 7, 1 / 16, 2, stride),
        lambda: roi_max_pool(features, rois, 7, 1 / 16, stride),
        lambda: decode_boxes(fixed(2, 2, 4), rois[0]),
        lambda: encode_boxes(rois[0], rois[0].flip(0)),
        lambda: pairwise_iou(rois[0], rois[0] + 3.3),
    ):
        exact, found = in_both(compute)
        assert torch.equal(exact, found) and found.dtype == torch.float32


OURS = (str(ROOT / "detection"), str(ROOT / "backbones"))


class Watch(TorchDispatchMode):
    """Notes which functions of this library have a result in bf16."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[tuple[str, str]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        values = result if isinstance(result, tuple | list) else [result]
        if any(isinstance(value, Tensor) and value.dtype == torch.bfloat16 for value in values):
            frame: FrameType | None = sys._getframe()
            # A comprehension is a frame of its own up to Python 3.11.
            while frame is not None and (
                not frame.f_code.co_filename.startswith(OURS) or frame.f_code.co_name in ("<listcomp>", "<genexpr>")
            ):
                frame = frame.f_back
            if frame is not None:
                self.found.add((Path(frame.f_code.co_filename).name, frame.f_code.co_name))
        return result


# Where features are made, moved and pooled, and the layers that end the network.
NETWORK = {
    ("rpn.py", "_predict"),
    ("rpn.py", "at_anchors"),
    ("rpn.py", "neighbourhoods_of"),
    ("roi_head.py", "logits_and_deltas"),
    ("roi_head.py", "context_per_roi"),
    ("views.py", "extract"),
    ("views.py", "_of_regions"),
    ("levels.py", "pool_at_chosen"),
    ("roi_align.py", "roi_align"),
    ("roi_align.py", "_weighted_sums"),
    *((file, None) for file in ("blocks.py", "convolution.py", "norm.py", "resnet.py", "roi_max_pool.py")),
}


@contextmanager
def watched() -> Iterator[None]:
    with bf16(), Watch() as watch:
        yield
    others = {each for each in watch.found if each not in NETWORK and (each[0], None) not in NETWORK}
    assert watch.found and not others, others


@pytest.mark.parametrize("pooling", ["max", "align"])
def test_nothing_but_the_network_computes_in_bf16(pooling):
    everything = {"refinement_passes": 1, "voting": True, "scales": [48, 64], "scale_area": 24, "flip": True}
    for test in ({}, everything):
        model = detector(roi={"context": True, "pooling": pooling}, test=test).eval()
        with watched():
            model.predict([noise(64, 80)])
    target = Target(torch.tensor([[5.0, 5, 40, 50]]), torch.tensor([1]), torch.zeros(0, 4))
    with watched():
        losses = model.train()(Batch(noise(64, 80)[None], [(64, 80)], [target]))
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
