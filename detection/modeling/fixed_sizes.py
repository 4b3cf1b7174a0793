"""Selections whose sizes only the data decide, on a GPU: its sizes are asked for rarely, as each answer makes the host wait.

Masks say which rows count, and where rows must go, the numbers of all images are asked for at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from detection.errors import CheckpointError


def places_of(mask: Tensor, count: int) -> Tensor:
    """Where a mask (P,) is true, ascending: (count,) int64. `count` is how often that is, known already."""
    if mask.device.type == "cpu":
        return mask.nonzero().squeeze(1)
    # `nonzero` would ask the device for the count again.
    return mask.int().sort(descending=True, stable=True).indices[:count]


def are_finite(values: Sequence[Tensor]) -> Tensor:
    """Whether a network's outputs hold neither NaN nor infinity, with which comparisons would find nothing: () bool."""
    return torch.stack([each.isfinite().all() for each in values]).all()


def all_of_them(flags: Iterable[Tensor | None]) -> Tensor | None:
    """Whether all flags () are true that are there, on the device of the first; None where there is none."""
    found = [flag for flag in flags if flag is not None]
    return torch.stack([flag.to(found[0].device) for flag in found]).all() if found else None


def require_finite(values: Sequence[Tensor]) -> None:
    """Raise CheckpointError where a network's outputs hold NaN or infinity."""
    counts_of_finite([], are_finite(values))


def counts_of_finite(counts: Sequence[Tensor], finite: Tensor | None) -> list[int]:
    """The counts, each (), as numbers; a GPU is waited for once. Raises CheckpointError where `finite`, (), is false."""
    asked = list(counts) if finite is None else [*counts, finite.long()]
    numbers: list[int] = torch.stack(asked).tolist() if asked else []
    if finite is None:
        return numbers
    if not numbers.pop():
        raise CheckpointError(
            "the network's outputs are not finite: its weights are damaged or their training diverged; use another checkpoint"
        )
    return numbers


def masked_smooth_l1(found: Tensor, wanted: Tensor, mask: Tensor, beta: float) -> Tensor:
    """Smooth L1, summed over the rows (..., 4) where the mask (...) is true; what is wanted elsewhere may be NaN."""
    wanted = torch.where(mask[..., None], wanted, found.detach())
    return F.smooth_l1_loss(found, wanted, beta=beta, reduction="sum")
