"""Devices by name: found, refused in one line, and copied to."""

from pathlib import Path

import pytest
import torch

from detection.cli.main import main
from detection.device import find_device, to_device
from detection.errors import ConfigError
from detection.inference.detector import load_detector
from tests.pretended_gpu import GPU, pretended_gpu


def test_the_cpu_is_there_and_auto_is_it_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device("cpu") == find_device(torch.device("cpu")) == find_device("auto") == torch.device("cpu")


def test_a_gpu_is_found_by_number_and_by_auto(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pretended_gpu():
        assert find_device("cuda:0") == GPU and find_device("auto") == find_device("cuda") == torch.device("cuda")
        with pytest.raises(ConfigError, match="cuda:1 is not there: torch finds 1 of cuda here"):
            find_device("cuda:1")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "", "CUDA", "meta"])
def test_other_words_are_refused(name):
    with pytest.raises(ConfigError, match="the device must be cpu, cuda, cuda:N, mps, xpu"):
        find_device(name)


@pytest.mark.parametrize(
    "error", [RuntimeError("driver too old\nand more"), AssertionError("not compiled"), NotImplementedError()]
)
def test_a_device_that_fails_is_one_line(monkeypatch, error):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch, "ones", fails)
    with pytest.raises(ConfigError, match=r"^the device cuda cannot be used: .+; --device cpu computes anywhere$") as found:
        find_device("cuda")
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    "command",
    [
        ["report", "absent"],
        ["eval-voc", "--weights", "absent.pt"],
        ["eval-coco", "--weights", "absent.pt"],
        ["ablation", "--weights", "absent.pt"],
        ["eval-ilsvrc", "det", "--weights", "absent.pt"],
    ],
)
def test_commands_refuse_a_device_before_any_weights_are_read(command, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert main([*command, "--device", "cuda:1"]) == 2
    error = capsys.readouterr().err
    assert "cuda:1 is not there" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [
        ["train", "resdet:quickstart"],
        ["train", "resdet:quickstart", "--pretrain", "resdet:quickstart_pretrain"],
        ["train", "resdet:voc_r50", "approach=alternating"],
        ["pretrain", "resdet:quickstart_pretrain"],
        ["train-loc", "resdet:ilsvrc_loc_r50"],
        ["quickstart"],
        ["export", "--weights", "absent.pt", "x.pt2"],
    ],
)
def test_commands_that_write_refuse_a_device_before_anything_is_there(command, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert main([*command, "--device", "cuda:1"]) == 2
    error = capsys.readouterr().err
    assert "cuda:1 is not there" in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_one_place_decides_whether_a_copy_is_waited_for():
    root = Path(__file__).parents[1]
    files = [file for folder in ("backbones", "detection", "tools") for file in (root / folder).rglob("*.py")]
    assert len(files) > 200
    assert [file.name for file in files if "non_blocking" in file.read_text(encoding="utf-8")] == ["device.py"]


def test_only_copies_to_cuda_do_not_wait(monkeypatch):
    seen = []
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device, *, non_blocking: seen.append((str(device), non_blocking)))
    for device in ("cpu", "mps", "xpu", "cuda", torch.device("cuda", 1)):
        to_device(torch.zeros(1), device)
    assert seen == [("cpu", False), ("mps", False), ("xpu", False), ("cuda", True), ("cuda:1", True)]


def test_a_detector_is_not_loaded_onto_what_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="the device must be"):
        load_detector(tmp_path / "absent.pt", device="gpu")
