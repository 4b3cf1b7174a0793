"""NMS: against torchvision's, and without importing it."""

import subprocess
import sys

import pytest
import torch
from torchvision import ops

from detection.modeling import nms as module
from detection.modeling.nms import batched_nms, nms

WITHOUT_TORCHVISION = """
import sys, numpy as np, torch
from detection import Config, build_detector
detector = build_detector(Config(model={"backbone": "resnet18"}, data={"classes": ["cat", "dog"]}, test={"shorter_side": 64}))
found, = detector.predict([np.zeros((48, 64, 3), np.uint8)])
print(sorted(name for name in ("torchvision", "torch._dynamo") if name in sys.modules))
import torchvision  # later, it finds its library loaded
box = torch.tensor([[0.0, 0, 9, 9]])
print(torchvision.ops.nms(box, torch.ones(1), 0.5).tolist(), torchvision.ops.roi_align(torch.ones(1, 1, 9, 9), [box], 1).item())
"""
ELSEWHERE = """
import importlib.util, sys
find, importlib.util.find_spec = importlib.util.find_spec, lambda name: None if name == "torchvision" else find(name)
import detection.modeling.nms, torch
print("torchvision" in sys.modules, detection.modeling.nms.nms(torch.ones(1, 4), torch.ones(1), 0.5).tolist())
"""


def random_boxes(number: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    corners = torch.rand(number, 2) * 300
    boxes = torch.cat([corners, corners + 1 + torch.rand(number, 2) * 80], dim=1)
    return boxes, torch.rand(number), torch.randint(7, (number,))


@pytest.mark.parametrize("number", [0, 1, 2, 300, module.MAX_BOXES_IN_ONE_NMS, module.MAX_BOXES_IN_ONE_NMS + 1, 2500])
def test_the_same_as_torchvision(number):
    boxes, scores, labels = random_boxes(number)
    assert torch.equal(nms(boxes, scores, 0.3), ops.nms(boxes, scores, 0.3))
    kept = batched_nms(boxes, scores, labels, 0.3)
    assert kept.dtype == torch.int64 and torch.equal(kept, ops.batched_nms(boxes, scores, labels, 0.3))


def test_one_box_of_each_class_lives_and_the_better_one():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 10], [50, 50, 60, 60]])
    kept = batched_nms(boxes, torch.tensor([0.5, 0.9, 0.7, 0.6]), torch.tensor([1, 1, 0, 1]), 0.5)
    assert kept.tolist() == [1, 2, 3]


def said_by(program: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_prediction_does_not_wait_for_the_import_of_torchvision():
    assert said_by(WITHOUT_TORCHVISION) == ["[]", "[0] 1.0"]


def test_a_library_that_is_elsewhere_is_left_to_torchvision():
    assert said_by(ELSEWHERE) == ["True [0]"]
