"""What a set of weights expects of an image: channel order, mean and standard deviation, in units of 0..255."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from backbones.constants import constant
from backbones.errors import shorten

ChannelOrder = Literal["rgb", "bgr"]


@dataclass(frozen=True)
class Preprocessing:
    """How images are normalised for a set of weights, with which it is stored: (pixel - mean) / std for each channel.

    `mean` and `std` are in units of 0..255, in the order of `channel_order`. Raises ValueError for values out of range.
    """

    channel_order: ChannelOrder = "rgb"
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)

    def __post_init__(self) -> None:
        if self.channel_order not in get_args(ChannelOrder):
            raise ValueError(f"channel_order must be 'rgb' or 'bgr', got {shorten(self.channel_order)}")
        _check_triple("mean", self.mean, -_LARGEST, _LARGEST)
        _check_triple("std", self.std, 1 / _LARGEST, _LARGEST)

    def normalize(self, images: Tensor) -> Tensor:
        """RGB in 0..255, uint8 or float32, (N, 3, H, W) or (3, H, W) -> float32 in the weights' order and scale."""
        mean, std = (constant(values, images.device).view(3, 1, 1) for values in (self.mean, self.std))
        if self.channel_order == "bgr":
            images = images.flip(-3)
        return images.to(torch.float32).sub(mean).div_(std)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint or JSON; `from_dict` reads them back."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Preprocessing:
        """The inverse of `to_dict`. Raises ValueError on missing, unknown or ill-typed values."""
        if not isinstance(values, dict) or set(values) != {"channel_order", "mean", "std"}:
            raise ValueError(f"preprocessing must hold channel_order, mean and std, got {shorten(values)}")
        return Preprocessing(values["channel_order"], _triple("mean", values["mean"]), _triple("std", values["std"]))


def _triple(name: str, values: Any) -> tuple[float, float, float]:
    if not isinstance(values, list | tuple) or len(values) != 3:
        raise ValueError(f"{name} must be three numbers, got {shorten(values)}")
    _check_triple(name, values, -_LARGEST, _LARGEST)
    return float(values[0]), float(values[1]), float(values[2])


# Beyond it, and below its inverse for a divisor, the pixels could leave the range of float32.
_LARGEST = 1e6


def _check_triple(name: str, values: Any, lowest: float, largest: float) -> None:
    """Raise ValueError unless these are three numbers within the bounds; NaN is within none, True is no number."""
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == len(values) == 3 and all(lowest <= value <= largest for value in numbers):
        return
    if name == "std" and len(numbers) == 3 and any(value <= 0 for value in numbers):
        raise ValueError(f"std must be positive, got {shorten(values)}")
    raise ValueError(f"{name} must be three finite numbers from {lowest:g} to {largest:g}, got {shorten(values)}")


# torchvision's ImageNet constants, which it states for pixels in 0..1.
IMAGENET_PREPROCESSING = Preprocessing()
