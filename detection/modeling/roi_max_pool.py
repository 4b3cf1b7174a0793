"""RoI max pooling by tables of maxima (a sparse table in two dimensions).

A cell of a RoI is the maximum over a rectangle of features. Tables hold the maxima of all windows of 2^i x 2^j features. Four
windows of the largest size that fits cover a rectangle, so a cell reads four rows of C channels, however large it is.

P RoIs of an image, S x S cells, C channels, H x W features. A range of features is (first, end), the end not in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 2**12  # cells at a time, so that what several passes read and write stays in the processor's cache


def roi_max_pool(
    features: Tensor, rois: Sequence[Tensor], output_size: int, spatial_scale: float, cell_stride: int = 1
) -> Tensor:
    """Fast R-CNN's RoI max pooling: (N, C, H, W) and N x (P, 4) pixels -> (R, C, S, S), channels last in memory.

    `spatial_scale` is features / pixels. Of the `output_size` cells along each axis S are computed: each `cell_stride`-th one
    from the first. A cell without features is 0. Equal to torchvision's op, in its gradient too: of equal features the first
    gets it.
    """
    pooled = [_pool(maps, boxes * spatial_scale, output_size, cell_stride) for maps, boxes in zip(features, rois, strict=True)]
    return pooled[0] if len(pooled) == 1 else torch.cat(pooled)


def _pool(maps: Tensor, boxes: Tensor, size: int, cell_stride: int) -> Tensor:
    """One image's: (C, H, W) and (P, 4) in features -> (P, C, S, S)."""
    channels, height, width = maps.shape
    rows = cell_ranges(boxes[:, 1], boxes[:, 3], size, height)[:, ::cell_stride]
    columns = cell_ranges(boxes[:, 0], boxes[:, 2], size, width)[:, ::cell_stride]
    cell_rows, cell_columns = _rectangles(rows, columns)
    cells = _Maxima.apply(maps.permute(1, 2, 0), cell_rows, cell_columns)
    return cells.view(len(boxes), rows.shape[1], columns.shape[1], channels).permute(0, 3, 1, 2)


def cell_ranges(start: Tensor, end: Tensor, size: int, extent: int) -> Tensor:
    """The features of each cell along one axis: (P,) and (P,) -> (P, size, 2). Cells overlap where they share a feature."""
    first, last = _round(start), _round(end)
    cell = (last - first + 1).clamp(min=1) / size
    numbers = torch.arange(size, device=start.device)
    starts = (numbers * cell[:, None]).floor() + first[:, None]
    ends = ((numbers + 1) * cell[:, None]).ceil() + first[:, None]
    return torch.stack([starts, ends], dim=2).clamp(0, extent).long()


def _round(x: Tensor) -> Tensor:
    """Round as C does: halves away from zero."""
    return (x.abs() + 0.5).floor() * x.sign()


def _rectangles(rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Ranges (P, S, 2) of each axis -> those of all cells, each (P * S * S, 2)."""
    shape = (*rows.shape[:2], columns.shape[1], 2)
    return rows[:, :, None].expand(shape).flatten(0, 2), columns[:, None].expand(shape).flatten(0, 2)


class _Maxima(torch.autograd.Function):
    """The maxima of rectangles of a map."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """(H, W, C) and the ranges (cells, 2) of both axes -> (cells, C)."""
        cells = _maxima(maps, rows, columns)
        ctx.save_for_backward(maps, rows, columns, cells)
        return cells

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """(cells, C) -> (H, W, C)."""
        maps, rows, columns, cells = ctx.saved_tensors
        width, channels = maps.shape[1:]
        pixels = maps.reshape(-1, channels)
        exact = torch.promote_types(maps.dtype, torch.float32)
        total = torch.zeros(pixels.shape, dtype=exact, device=maps.device)
        for part in _chunks(len(cells)):
            maxima, left = cells[part], gradient[part].clone()  # what no feature has taken yet
            shares, takers = [], []
            for chosen, numbers in _features_by_position(rows[part], columns[part], width):
                here = left[chosen]
                shares.append(here * (pixels[numbers] == maxima[chosen]))
                takers.append(numbers)
                left[chosen] = here - shares[-1]
            if shares:  # else no cell of this part has a feature
                total += _sum_by_pixel(torch.cat(shares), torch.cat(takers), len(pixels))
        return total.to(gradient.dtype).view(maps.shape), None, None


def _maxima(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    # All tables are stacked in one matrix whose rows are features, so that one row number selects a window of any size.
    height, width, channels = maps.shape
    tall, wide = _largest_exponent(rows), _largest_exponent(columns)
    windows = _tables(maps, int(tall.max()) if len(tall) else 0, int(wide.max()) if len(wide) else 0)
    table = tall * (len(windows[0]) * height * width) + wide * (height * width)
    pixels = torch.cat([entry for line in windows for entry in line]).view(-1, channels)
    tops = rows[:, 0].clamp(max=height - 1), (rows[:, 1] - 2**tall).clamp(min=0)
    lefts = columns[:, 0].clamp(max=width - 1), (columns[:, 1] - 2**wide).clamp(min=0)
    corners = [table + top * width + left for top in tops for left in lefts]
    cells = maps.new_empty(len(rows), channels)
    for part in _chunks(len(cells)):
        maxima = pixels[corners[0][part]]
        for corner in corners[1:]:
            torch.maximum(maxima, pixels[corner[part]], out=maxima)
        cells[part] = maxima
    empty = (rows[:, 1] <= rows[:, 0]) | (columns[:, 1] <= columns[:, 0])
    cells[empty] = 0
    return cells


def _largest_exponent(ranges: Tensor) -> Tensor:
    """The largest i for which 2^i features fit in the range: (cells, 2) -> (cells,)."""
    return torch.frexp((ranges[:, 1] - ranges[:, 0]).clamp(min=1).float()).exponent.long() - 1


def _tables(maps: Tensor, tall: int, wide: int) -> list[list[Tensor]]:
    """Tables [i][j] that hold at (y, x) the maximum of the 2^i x 2^j features from there on. Windows that cross the border of
    the map hold any value; no cell reads them."""
    lines = [maps]
    for exponent in range(tall):
        lines.append(_double_windows(lines[-1], 2**exponent, 0))
    tables = [[line] for line in lines]
    for line in tables:
        for exponent in range(wide):
            line.append(_double_windows(line[-1], 2**exponent, 1))
    return tables


def _double_windows(table: Tensor, step: int, axis: int) -> Tensor:
    """From the maxima of windows of `step` features along an axis, those of windows of 2 * `step`."""
    rest = table.shape[axis] - step
    joined = torch.maximum(table.narrow(axis, 0, rest), table.narrow(axis, step, rest))
    return torch.cat([joined, table.narrow(axis, rest, step)], dim=axis)


def _features_by_position(rows: Tensor, columns: Tensor, width: int) -> Iterator[tuple[Tensor, Tensor]]:
    """For each position in a cell, row by row: the cells that have a feature there, and the features' numbers in the map."""
    tall, wide = rows[:, 1] - rows[:, 0], columns[:, 1] - columns[:, 0]
    first = rows[:, 0] * width + columns[:, 0]
    for down in range(int(tall.max())):
        for across in range(int(wide.max())):
            chosen = ((tall > down) & (wide > across)).nonzero().squeeze(1)
            if len(chosen):
                yield chosen, first[chosen] + (down * width + across)


def _sum_by_pixel(values: Tensor, numbers: Tensor, count: int) -> Tensor:
    """The sum of the rows that have the same number, for numbers 0..count - 1: (rows, C) and (rows,) -> (count, C)."""
    starts = F.pad(torch.bincount(numbers, minlength=count).cumsum(0), (1, 0))
    return F.embedding_bag(numbers.argsort(stable=True), values, starts, mode="sum", include_last_offset=True)


def _chunks(count: int) -> Iterator[slice]:
    return (slice(start, start + CHUNK) for start in range(0, count, CHUNK))
