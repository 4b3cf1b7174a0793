"""Where networks compute: the devices that people name, found or refused in one line, and copies to them."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from backbones.errors import printable, shorten
from detection.errors import ConfigError

DEVICES = "cpu, cuda, cuda:N, mps, xpu, xpu:N or auto"


def find_device(name: str | torch.device = "auto") -> torch.device:
    """The device of this name, after it has computed something; `auto` is the first CUDA GPU, or else the CPU.

    Others are never chosen, only named: no speed has been measured on them. Raises ConfigError for another word, and for a
    device that is not there or fails.
    """
    device = parse_device(name)
    _require_number(device)
    try:
        if int((torch.ones(2, device=device, dtype=torch.float32) * 2).sum()) != 4:
            raise RuntimeError("it computes 2 + 2 wrongly")
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(
            f"the device {device} cannot be used: {printable(reason)[:200]}; --device cpu computes anywhere"
        ) from None
    return device


def parse_device(name: str | torch.device) -> torch.device:
    """The device that a word names, which need not be there. Raises ConfigError for another word."""
    text = str(name)
    if text == "auto":
        text = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"(cpu|mps|(cuda|xpu)(:\d{1,3})?)", text, re.ASCII):
        raise ConfigError(f"the device must be {DEVICES}, got {shorten(text)}")
    return torch.device(text)


def uses_cuda() -> bool:
    """Whether this process has computed on a CUDA GPU. What computes on the CPU leaves the GPU beside it alone."""
    return torch.cuda.is_initialized()


def _require_number(device: torch.device) -> None:
    counted = {"cuda": torch.cuda.device_count, "xpu": torch.xpu.device_count}.get(device.type)
    if counted is not None and (device.index or 0) >= counted():
        raise ConfigError(f"the device {device} is not there: torch finds {counted()} of {device.type} here; use --device cpu")


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """The tensor on a device. The host does not wait for a copy to a CUDA GPU.

    On others it does: on Apple's, memory of the host may be used again before it has been copied.
    """
    return tensor.to(device, non_blocking=torch.device(device).type == "cuda")
