"""Tensors of numbers that never change, one for each device: a copy to a GPU makes the host wait, so each is made once."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


def constant(values: tuple[float, ...], device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor (n,) of these numbers, the same one each time. Not to be written to."""
    # What is made while a graph is traced belongs to that graph.
    return _make(values, device, dtype) if torch.compiler.is_compiling() else _kept(values, device, dtype)


def forget() -> None:
    """Make each anew from now on."""
    _kept.cache_clear()


def _make(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    # Made for a prediction it may take part in a training step later, which inference tensors cannot.
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)


_kept = lru_cache(maxsize=256)(_make)
