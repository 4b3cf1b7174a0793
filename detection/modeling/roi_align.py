"""RoIAlign as two matrix products.

Bilinear sampling on a grid is separable: the cells of a RoI are Wy . F . Wx^T, where row s of Wx holds the weights with
which the columns of the map enter the cells of grid column s. Both products run at the speed of the hardware's matrix
units, in bf16 too, and so does their gradient.

R RoIs, S x S cells, C channels, H x W features; each cell is the mean of K samples along each axis.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Elements of the intermediate (chunk of RoIs, S, W, C) that are alive at once: 64 MB of float32.
CHUNK_ELEMENTS = 1 << 24


def roi_align(features: Tensor, rois: Tensor, scale: float, size: int, sampling_ratio: int = 0) -> Tensor:
    """RoIAlign with aligned corners of one image: (C, H, W) and (R, 4) pixels -> (R, C, S, S), channels last in memory.

    `scale` is features / pixels. `sampling_ratio` is K; 0 takes as many samples as a cell has features, rounded up.
    Equal to torchvision's op with `aligned=True`; differentiable in the features.
    """
    _, height, width = features.shape
    # Half a pixel less: feature i is the value at the centre of pixel i, that is at i + 0.5.
    rois = rois * scale - 0.5
    rows = axis_weights(rois[:, 1], rois[:, 3], size, height, sampling_ratio).to(features.dtype)  # (R, S, H)
    columns = axis_weights(rois[:, 0], rois[:, 2], size, width, sampling_ratio).to(features.dtype)  # (R, S, W)
    pixels = features.permute(1, 2, 0)  # (H, W, C)
    chunk = max(CHUNK_ELEMENTS // (size * pixels[0].numel()), 1)
    pooled = [_two_products(pixels, *pair) for pair in zip(rows.split(chunk), columns.split(chunk), strict=True)]
    return torch.cat(pooled).permute(0, 3, 1, 2)


def _two_products(pixels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(H, W, C), (R, S, H) and (R, S, W) -> (R, S, S, C)."""
    height, width, channels = pixels.shape
    num_rois, size, _ = rows.shape
    lines = rows.reshape(-1, height) @ pixels.reshape(height, -1)  # (R * S, W * C)
    cells = columns.repeat_interleave(size, dim=0) @ lines.view(-1, width, channels)  # (R * S, S, C)
    return cells.view(num_rois, size, size, channels)


def axis_weights(start: Tensor, end: Tensor, size: int, extent: int, sampling_ratio: int) -> Tensor:
    """Weights of `extent` features in the S cells of each RoI, along one axis: (R,) and (R,) -> (R, S, extent).

    A sample between two features takes both linearly; up to one feature beyond the border it takes the border's, and
    farther out nothing.
    """
    cell = (end - start) / size
    counts = torch.ceil(cell).clamp(min=1) if sampling_ratio == 0 else torch.full_like(cell, sampling_ratio)
    most = int(counts.max().item()) if sampling_ratio == 0 and len(counts) else max(sampling_ratio, 1)
    sample = torch.arange(most, device=start.device)
    cells = torch.arange(size, device=start.device)
    # (R, S, K): the middle of each of the K equal parts of each cell.
    offsets = cells[None, :, None] + (sample[None, None] + 0.5) / counts[:, None, None]
    positions = start[:, None, None] + offsets * cell[:, None, None]
    used = (sample < counts[:, None, None]) & (positions >= -1) & (positions <= extent)
    positions = positions.clamp(0, extent - 1)
    features = torch.arange(extent, device=start.device)
    hats = (1 - (positions[..., None] - features).abs()).clamp(min=0)  # (R, S, K, extent)
    return (hats * used[..., None]).sum(dim=2) / counts[:, None, None]
