"""Modes that threads share, torch's defaults that a program has changed, and processes that were forked."""

import copy
import subprocess
import sys
import threading
import time

import pytest
import torch
from torch import nn

from backbones import build_backbone
from backbones.modes import evaluating, own_defaults
from tests.test_architecture import ROOT


def network() -> nn.Sequential:
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Sequential(nn.Dropout()))
    net[2].eval()
    return net


def modes(net: nn.Module) -> list[bool]:
    return [module.training for module in net.modules()]


def test_every_module_gets_its_own_mode_back():
    net = network()
    before = modes(net)
    with evaluating([net, net]):
        assert not any(modes(net))
        with evaluating([net]):
            pass
        assert not any(modes(net))  # the outer block is not over
    assert modes(net) == before and True in before and False in before
    with pytest.raises(ZeroDivisionError), evaluating([net]):
        _ = 1 / 0
    assert modes(net) == before


def test_networks_may_share_modules_and_be_copied_meanwhile():
    net = network()
    other = nn.Sequential(net[1])
    with evaluating([net]):
        with evaluating([other]):
            pass
        assert not any(modes(net))
        assert not any(modes(copy.deepcopy(net)))
    assert net[1].training


def test_many_threads_see_evaluation_mode_all_the_time():
    net, seen, start = network(), [], threading.Barrier(8)
    before = modes(net)

    def use() -> None:
        start.wait()
        for _ in range(200):
            with evaluating([net]):
                seen.append(any(modes(net)))
                time.sleep(0)
                seen.append(any(modes(net)))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 3200 and not any(seen) and modes(net) == before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_own_defaults_are_float32_on_the_cpu(dtype):
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"), torch.inference_mode(), own_defaults():
            made = [
                torch.zeros(2), torch.ones(2), torch.empty(2), torch.rand(2), torch.randn(2), torch.eye(2),
                torch.linspace(0, 1, 3), torch.tensor([0.1]), torch.tensor(0.1), torch.as_tensor([0.1, 2]),
                torch.full((2,), 0.5), torch.arange(0.0, 2, 0.5),
            ]  # fmt: skip
            whole = [torch.tensor([1]), torch.arange(3), torch.full((2,), 7), torch.zeros(2, dtype=torch.long)]
            kept = torch.as_tensor(torch.zeros(1, dtype=torch.float64))
            assert not made[0].is_inference()
        assert torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(each.dtype == torch.float32 and each.device.type == "cpu" for each in made)
    assert all(each.dtype == torch.int64 and each.device.type == "cpu" for each in whole) and kept.dtype == torch.float64
    assert torch.equal(made[7], torch.tensor([0.1]))


def test_own_defaults_compute_gradients_where_asked():
    with torch.inference_mode(), own_defaults(grad=True):
        (torch.ones(1, requires_grad=True) * 2).backward()
    with torch.no_grad(), own_defaults(grad=True):
        (torch.ones(1, requires_grad=True) * 2).backward()


@pytest.mark.parametrize("name", ["resnet18", "cifar_resnet20", "vgg16", "torchvision/resnet18"])
def test_a_backbone_is_the_same_whatever_the_defaults(name):
    def build() -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        return build_backbone(name, norm="frozen_bn" if name == "resnet18" else "bn").state_dict()

    expected = build()
    for settings in (torch.device("meta"), torch.inference_mode()):
        torch.set_default_dtype(torch.bfloat16)
        try:
            with settings:
                found = build()
        finally:
            torch.set_default_dtype(torch.float32)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert found[key].dtype == value.dtype and torch.equal(found[key], value), key


FORKED = """
import logging, os, signal, sys, torch
from tests.small_detector import detector, noise

logging.basicConfig(stream=sys.stdout, format="%(message)s")
torch.set_num_threads(4)
model, image = detector(test={"shorter_side": 300, "longer_side": 400}), noise(300, 300)
expected = model.predict([image])[0]
child = os.fork()
if child == 0:
    signal.alarm(60)
    found = [model.predict([image])[0] for _ in range(2)]
    close = all(torch.allclose(each.boxes, expected.boxes, atol=1e-2) for each in found)
    print("close" if close else "different", torch.get_num_threads(), flush=True)
    os._exit(0)
print("child", os.waitpid(child, 0)[1], "parent", torch.get_num_threads())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_a_forked_process_predicts_with_one_thread_and_says_so():
    result = subprocess.run(
        [sys.executable, "-c", FORKED], cwd=ROOT, env=None, capture_output=True, text=True, timeout=180, check=False
    )
    lines = result.stdout.splitlines()
    assert result.returncode == 0, result.stderr
    assert lines[-1] == "child 0 parent 4" and lines[-2] == "close 1", lines
    assert [line for line in lines if "was forked" in line and "spawn" in line] == lines[:1]
