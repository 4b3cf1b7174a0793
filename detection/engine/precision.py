"""The precision of a run: fp32, or bf16 autocast where the hardware has it."""

from __future__ import annotations

import logging
import platform
from contextlib import AbstractContextManager

import torch

from detection.config import Precision

logger = logging.getLogger(__name__)


def resolve_precision(precision: Precision, device: torch.device | str) -> torch.dtype | None:
    """The autocast dtype of a run on `device`; None is fp32.

    `auto` takes bf16 where the hardware computes in it. An explicit `bf16` is obeyed everywhere, with a warning where it
    is emulated and therefore slow.
    """
    device = torch.device(device)
    native = has_native_bf16(device)
    if precision == "bf16" and not native:
        logger.warning("precision bf16: this %s has no bf16 arithmetic; expect it to be slower than fp32", device.type)
    return torch.bfloat16 if precision == "bf16" or (precision == "auto" and native) else None


def has_native_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 in hardware: recent CUDA GPUs, x86 with AVX512-BF16 or AMX, ARM with bf16."""
    if device.type == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
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
