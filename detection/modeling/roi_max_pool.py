"""RoI max pooling by tables of maxima (a sparse table in two dimensions).

A cell of a RoI is the maximum over a rectangle of features. Tables hold the maxima of all windows of 2^i x 2^j features. Four
windows of the largest size that fits cover a rectangle, so a cell reads four rows of C channels, however large it is.

P RoIs of an image, S x S cells, C channels, H x W features. A range of features is (first, end), the end not in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor

CHUNK = 2**17  # numbers at a time, so that what several passes read and write stays in the processor's cache


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
    """The maxima of rectangles of a map. For the gradient the place of each maximum is found with it, see `_place_keys`."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """(H, W, C) and the ranges (cells, 2) of both axes -> (cells, C)."""
        if not ctx.needs_input_grad[0]:
            return _fill(maps, rows, columns, [maps.dtype], lambda maxima: [maxima])[0]
        keys, read = _place_keys(maps)
        small = maps.shape[0] * maps.shape[1] < 2**15
        cells, places = _fill(keys, rows, columns, [maps.dtype, torch.int16 if small else torch.int32], read)
        ctx.shape = maps.shape
        ctx.save_for_backward(places)
        return cells

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """(cells, C) -> (H, W, C)."""
        height, width, channels = ctx.shape
        [places] = ctx.saved_tensors
        exact = torch.promote_types(gradient.dtype, torch.float32)
        # A row per channel: sums along rows are the fast ones. Column 0 is for the cells without features.
        total = torch.zeros((channels, 1 + height * width), dtype=exact, device=gradient.device)
        for part in _parts(len(places), channels):
            total.scatter_add_(1, places[part].t().contiguous().long(), gradient[part].to(exact).t().contiguous())
        return total[:, 1:].t().to(gradient.dtype).reshape(ctx.shape), None, None


def _place_keys(maps: Tensor) -> tuple[Tensor, Callable[[Tensor], list[Tensor]]]:
    """Integers in the order of the features (H, W, C), those that are equal in a channel from the last to the first: so the
    maximum of keys tells which feature it is. And a function from keys (n, C) to the features and their places, 1 + y W + x.

    A key's upper bits are the feature, the lower ones the place with all bits turned round.
    """
    height, width = maps.shape[:2]
    ranks, value_of = _ranks(maps)
    bits, kind = (16, torch.int32) if ranks.dtype == torch.int16 and height * width < 2**16 else (32, torch.int64)
    places = torch.arange(1, height * width + 1, dtype=kind, device=maps.device).view(height, width, 1)
    lower = 2**bits - 1
    keys = (ranks.to(kind) << bits) | (~places & lower)
    return keys, lambda chosen: [value_of(chosen >> bits), ~chosen & lower]


def _ranks(maps: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Integers in the order of the features, equal for equal ones, and the function from these integers to the features."""
    if maps.dtype == torch.float64:  # whose bits would leave none for a place
        values, ranks = maps.unique(return_inverse=True)
        return ranks, lambda chosen: values[chosen]
    kind = torch.int16 if maps.element_size() == 2 else torch.int32
    magnitude = torch.iinfo(kind).max  # all bits but the sign's: negative numbers have these turned round

    def turn(bits: Tensor) -> Tensor:
        return bits ^ ((bits >> (torch.iinfo(kind).bits - 1)) & magnitude)

    # The sum makes 0 of -0.
    return turn((maps + 0).view(kind)), lambda chosen: turn(chosen.to(kind)).view(maps.dtype)


def _fill(
    maps: Tensor, rows: Tensor, columns: Tensor, kinds: Sequence[torch.dtype], read: Callable[[Tensor], list[Tensor]]
) -> list[Tensor]:
    """What `read` makes of the maxima (n, C), as tensors (cells, C) of the types `kinds`; 0 where a cell has no feature."""
    filled = [torch.empty((len(rows), maps.shape[2]), dtype=kind, device=maps.device) for kind in kinds]
    for numbers, maxima in _maxima_by_part(maps, rows, columns):
        for whole, own in zip(filled, read(maxima), strict=True):
            whole.index_copy_(0, numbers, own.to(whole.dtype))
    empty = (rows[:, 1] <= rows[:, 0]) | (columns[:, 1] <= columns[:, 0])
    for whole in filled:
        whole[empty] = 0
    return filled


def _maxima_by_part(maps: Tensor, rows: Tensor, columns: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The maxima of the cells that have features, n cells at a time: (H, W, C) and ranges (cells, 2) -> their numbers (n,), and
    the maxima (n, C)."""
    # All tables are stacked in one matrix whose rows are features, so that one row number selects a window of any size.
    height, width, channels = maps.shape
    tall, wide = _largest_exponent(rows), _largest_exponent(columns)
    windows = _tables(maps, int(tall.max()) if len(tall) else 0, int(wide.max()) if len(wide) else 0)
    table = tall * (len(windows[0]) * height * width) + wide * (height * width)
    pixels = torch.cat([entry for line in windows for entry in line]).view(-1, channels)
    tops, bottoms = rows[:, 0], rows[:, 1] - 2**tall
    lefts, rights = columns[:, 0], columns[:, 1] - 2**wide
    has_features = (rows[:, 1] > rows[:, 0]) & (columns[:, 1] > columns[:, 0])
    # One window is all of a range whose length is a power of two: most cells need no four of them.
    for one_row, one_column in product((True, False), repeat=2):
        chosen = has_features & ((tops == bottoms) == one_row) & ((lefts == rights) == one_column)
        numbers = chosen.nonzero().squeeze(1)
        corners = [
            (table + y * width + x)[numbers]
            for y in ((tops,) if one_row else (tops, bottoms))
            for x in ((lefts,) if one_column else (lefts, rights))
        ]
        for part in _parts(len(numbers), channels):
            maxima = pixels[corners[0][part]]
            for corner in corners[1:]:
                torch.maximum(maxima, pixels[corner[part]], out=maxima)
            yield numbers[part], maxima


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


def _parts(count: int, channels: int) -> Iterator[slice]:
    """Rows of `channels` numbers, CHUNK numbers at a time."""
    step = max(CHUNK // channels, 1)
    return (slice(start, start + step) for start in range(0, count, step))
