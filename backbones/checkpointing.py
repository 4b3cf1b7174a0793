"""Activation checkpointing: less memory for one more forward pass, without a second update of BatchNorm's statistics."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from backbones.norm import TrainableNorm


def checkpointed(blocks: nn.Sequential, x: Tensor) -> Tensor:
    """`blocks(x)`, with the same gradients and statistics. The blocks must have nothing random in them.

    Only the input of every segment of sqrt(len(blocks)) blocks is kept; the backward pass computes one segment after another
    again.
    """
    length = max(1, math.isqrt(len(blocks)))
    for start in range(0, len(blocks), length):
        x = _checkpointed_segment(blocks[start : start + length], x)
    return x


def _checkpointed_segment(segment: nn.Sequential, x: Tensor) -> Tensor:
    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), fixed_running_statistics(segment)

    return checkpoint(segment, x, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)


@contextmanager
def fixed_running_statistics(module: nn.Module) -> Iterator[None]:
    """Inside, BatchNorms in training mode normalise as usual, but do not update their moving averages and step counts."""
    norms = [norm for norm in module.modules() if isinstance(norm, TrainableNorm)]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    try:
        for norm in norms:
            # Not track_running_stats: autograd would then save fewer tensors than it did the first time, which is refused.
            norm.momentum, norm.num_batches_tracked = 0.0, None
        yield
    finally:
        for norm, (momentum, steps) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, steps
