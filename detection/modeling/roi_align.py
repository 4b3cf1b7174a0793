"""RoIAlign as one sparse matrix product.

Each cell of a RoI is a weighted mean of a few features, the same ones in every channel: cells = M . features, where M is a
sparse matrix and a feature is the row of its C channels. The bilinear weights of a cell are the product of weights along the
two axes. The gradient is the transposed product. Both read whole rows, so the time is that of moving memory, in any type.

N images, R RoIs of all of them, S x S cells, C channels, H x W features; each cell is the mean of K samples along each axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def roi_align(
    features: Tensor,
    rois: Sequence[Tensor],
    output_size: int,
    spatial_scale: float,
    sampling_ratio: int = 0,
    cell_stride: int = 1,
) -> Tensor:
    """RoIAlign with aligned corners: (N, C, H, W) and N x (P, 4) pixels -> (R, C, S, S), channels last in memory.

    `spatial_scale` is features / pixels. `sampling_ratio` is K; 0 takes as many samples as a cell has features, rounded up. Of
    the `output_size` cells along each axis S are computed: each `cell_stride`-th one from the first. Equal to torchvision's op
    with `aligned=True`; differentiable in the features.
    """
    channels, height, width = features.shape[1:]
    # Half a pixel less: feature i is the value at the centre of pixel i, that is at i + 0.5.
    boxes = torch.cat(list(rois)) * spatial_scale - 0.5
    rows = axis_weights(boxes[:, 1], boxes[:, 3], output_size, height, sampling_ratio)[:, ::cell_stride]  # (R, S, H)
    columns = axis_weights(boxes[:, 0], boxes[:, 2], output_size, width, sampling_ratio)[:, ::cell_stride]  # (R, S, W)
    counts = torch.tensor([len(image_rois) for image_rois in rois], device=features.device)
    first_rows = torch.arange(len(rois), device=features.device).repeat_interleave(counts) * height  # of each RoI's image
    pixels = features.permute(0, 2, 3, 1).reshape(-1, channels)  # (N * H * W, C)
    weights, numbers, starts = sparse_weights(rows, columns, first_rows)
    cells = _WeightedSums.apply(pixels, weights, numbers, starts)
    return cells.view(len(boxes), rows.shape[1], columns.shape[1], channels).permute(0, 3, 1, 2)


def sparse_weights(rows: Tensor, columns: Tensor, first_rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(R, S, H), (R, S, W) and (R,) -> the sparse matrix of all cells, row by row: weights, features and first entries.

    The entries of cell i are numbers starts[i]..starts[i + 1] of the first two.
    """
    width = columns.shape[2]
    row_weights, row_numbers = _band(rows)
    column_weights, column_numbers = _band(columns)
    weights = row_weights[:, :, None, :, None] * column_weights[:, None, :, None, :]  # (R, S, S, band, band)
    row_numbers = (row_numbers + first_rows[:, None, None]) * width
    features = row_numbers[:, :, None, :, None] + column_numbers[:, None, :, None, :]
    used = weights != 0
    starts = F.pad(used.flatten(3).sum(dim=3).flatten().cumsum(0), (1, 0))
    kept = used.flatten().nonzero().squeeze(1)  # found once, which is most of the work
    return weights.flatten().take(kept), features.flatten().take(kept), starts


def _band(weights: Tensor) -> tuple[Tensor, Tensor]:
    """(R, S, extent) -> (R, S, band) weights and their places: the narrowest band that holds all that are not zero."""
    used = weights != 0
    first = used.int().argmax(dim=2, keepdim=True)
    last = weights.shape[2] - 1 - used.flip(2).int().argmax(dim=2, keepdim=True)
    # Where nothing is used, first is 0 and last the end; such cells must not widen the band.
    spans = (last - first + 1).masked_fill(~used.any(dim=2, keepdim=True), 1)
    band = int(spans.max()) if spans.numel() else 1
    places = first + torch.arange(band, device=weights.device)
    inside = places < weights.shape[2]
    places = places.clamp(max=weights.shape[2] - 1)
    return weights.gather(2, places) * inside, places


class _WeightedSums(torch.autograd.Function):
    """The product of a sparse matrix, in rows, with a dense one: an embedding bag that is fast in both directions."""

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, weights: Tensor, features: Tensor, starts: Tensor) -> Tensor:
        """(pixels, C) -> (cells, C)."""
        ctx.save_for_backward(weights, features, starts)
        ctx.num_pixels = len(pixels)
        return _weighted_sums(pixels, weights, features, starts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        """(cells, C) -> (pixels, C)."""
        weights, features, starts = ctx.saved_tensors
        weights, cells, starts = _transposed(weights, features, starts, ctx.num_pixels)
        return _weighted_sums(gradient, weights, cells, starts), None, None, None


def _weighted_sums(rows: Tensor, weights: Tensor, numbers: Tensor, starts: Tensor) -> Tensor:
    return F.embedding_bag(
        numbers, rows.contiguous(), starts, mode="sum", per_sample_weights=weights.to(rows.dtype), include_last_offset=True
    )


def _transposed(weights: Tensor, columns: Tensor, starts: Tensor, num_columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """The matrix column by column: weights, rows and first entries."""
    rows = torch.arange(len(starts) - 1, device=starts.device).repeat_interleave(starts.diff())
    order = columns.argsort(stable=True)
    counts = torch.bincount(columns, minlength=num_columns)
    return weights[order], rows[order], F.pad(counts.cumsum(0), (1, 0))


def axis_weights(start: Tensor, end: Tensor, size: int, extent: int, sampling_ratio: int) -> Tensor:
    """Weights of `extent` features in the cells of each RoI, along one axis: (R,) and (R,) -> (R, size, extent).

    A sample between two features takes both linearly; up to one feature beyond the border it takes the border's, and
    farther out nothing.
    """
    cell = (end - start) / size
    counts = torch.ceil(cell).clamp(min=1) if sampling_ratio == 0 else torch.full_like(cell, sampling_ratio)
    most = int(counts.max().item()) if sampling_ratio == 0 and len(counts) else max(sampling_ratio, 1)
    sample = torch.arange(most, device=start.device, dtype=start.dtype)
    cells = torch.arange(size, device=start.device)
    # (R, S, K): the middle of each of the K equal parts of each cell.
    offsets = cells[None, :, None] + (sample[None, None] + 0.5) / counts[:, None, None]
    positions = start[:, None, None] + offsets * cell[:, None, None]
    used = (sample < counts[:, None, None]) & (positions >= -1) & (positions <= extent)
    positions = positions.clamp(0, extent - 1)
    features = torch.arange(extent, device=start.device)
    hats = (1 - (positions[..., None] - features).abs()).clamp(min=0)  # (R, S, K, extent)
    return (hats * used[..., None]).sum(dim=2) / counts[:, None, None]
