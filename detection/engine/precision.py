"""The precision of a run: fp32, or bf16 or fp16 autocast where the hardware has it; the scale of fp16's losses."""

from __future__ import annotations

import logging
import platform
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from detection.config import Precision, TrainConfig
from detection.errors import TrainingError

logger = logging.getLogger(__name__)

AUTOCAST_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
LEAST_SCALE = 2.0**-10
"""Of fp16's losses: gradients that overflow at a lower one are not too large, but no numbers."""


def resolve_precision(precision: Precision, device: torch.device | str) -> torch.dtype | None:
    """The autocast dtype of a run on `device`; None is fp32.

    `auto` takes bf16 where the hardware computes in it, or else fp16 where an NVIDIA GPU does. What is named is obeyed
    everywhere, with a warning where it is emulated and therefore slow.
    """
    device = torch.device(device)
    native = {"bf16": has_native_bf16(device), "fp16": has_native_fp16(device)}
    if precision == "auto":
        # An Apple GPU keeps to fp32, unless it is told otherwise: what fp16 does to a detector there has not been measured.
        precision = "bf16" if native["bf16"] else "fp16" if native["fp16"] and device.type == "cuda" else "fp32"
    elif precision != "fp32" and not native[precision]:
        logger.warning(
            "precision %s: this %s has no %s arithmetic; expect it to be slower than fp32", precision, device.type, precision
        )
    return AUTOCAST_TYPES.get(precision)


def describe_precision(dtype: torch.dtype | None) -> str:
    """A phrase for the log."""
    return "fp32" if dtype is None else "bf16 autocast" if dtype is torch.bfloat16 else "fp16 autocast"


def has_native_fp16(device: torch.device) -> bool:
    """Whether a GPU multiplies fp16 faster than fp32: NVIDIA's from compute capability 7.0 on, Apple's. No CPU counts."""
    if device.type == "cuda":
        return torch.cuda.is_available() and torch.cuda.get_device_capability(device) >= (7, 0)
    return device.type == "mps"


def has_native_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 in hardware: recent CUDA GPUs, x86 with AVX512-BF16 or AMX, ARM with bf16."""
    if device.type == "cuda":
        # torch.cuda.is_bf16_supported asks the current GPU, which need not be this one; AMD's answer as CUDA's.
        return torch.cuda.is_available() and torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        # oneDNN also says yes where it only emulates bf16 (plain AVX512): the instruction sets decide. On ARM it knows.
        return _onednn_takes_bf16() and (_x86_multiplies_bf16() or platform.machine().lower() in ("aarch64", "arm64"))
    return False


# Both ask through private names that differ between versions of torch; what is absent counts as no.
def _onednn_takes_bf16() -> bool:
    operator = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None) if torch.backends.mkldnn.is_available() else None
    return operator is not None and bool(operator())


def _x86_multiplies_bf16() -> bool:
    return any(getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[None]:
    """The context of a forward pass."""
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def build_scaler(device: torch.device, dtype: torch.dtype | None) -> torch.amp.GradScaler:
    """What multiplies fp16's losses, so that small gradients do not vanish; with another dtype it changes nothing."""
    return torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)


def overflowed(scaler: torch.amp.GradScaler, gradient_norm: Tensor) -> bool:
    """Whether a step is to be left out, since its scaled gradients were too large for fp16; false in other precisions."""
    return scaler.is_enabled() and not bool(gradient_norm.isfinite())


def require_scale(scaler: torch.amp.GradScaler, step: int, config: TrainConfig) -> None:
    """Raise TrainingError where steps have overflowed so often that it is not the scale. `step` counts from 1."""
    if scaler.is_enabled() and scaler.get_scale() < LEAST_SCALE:
        raise TrainingError(
            f"step {step}: the gradients are not finite in fp16, whatever the losses are multiplied by. Set "
            f"{config.key}.precision to bf16 or fp32, or lower {config.key}.learning_rate"
        )
