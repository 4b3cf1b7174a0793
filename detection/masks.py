"""Instance masks of one image as run lengths (RLE), COCO's form: a few hundred bytes each, where a bitmap has H x W; those of
annotation files' polygons as polygons, until their pixels are asked for.

N masks of one image of H x W pixels. pycocotools rasterises, measures and compares; its C code trusts what it is given and
crashes on some of it, so whatever comes from a file is looked at here first. Boxes: xyxy pixels, continuous.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from pycocotools import mask as mask_api
from torch import Tensor

from backbones.errors import shorten
from detection.errors import DatasetError
from detection.polygons import is_packed, pack_polygons, rasterise_polygons, read_polygons, unpack_polygons

MAX_MASK_PIXELS = 2**28
"""Of an image with masks: pycocotools takes 4 bytes for each where it unites or encodes them. Cut larger images into tiles."""

_MAX_DIGITS = 6  # of a run in COCO's text, five bits each: enough for differences of runs up to MAX_MASK_PIXELS

Part = tuple[slice, slice]
"""Rows and columns of an image."""

_Ints = npt.NDArray[np.int64]


class Rle(TypedDict):
    """One mask as pycocotools takes it: lengths of runs, background and object in turn, column by column from the top left."""

    size: list[int]  # height, width
    counts: bytes  # the lengths as COCO's text


@dataclass(frozen=True)
class Masks:
    """N masks of one image. No mask is a valid value. They are plain data of the CPU, whatever device the boxes are on.

    A hundred objects in an image of 800 x 1333 pixels take less than 150 kB; as bitmaps 107 MB.
    """

    size_hw: tuple[int, int]  # of the image
    counts: tuple[bytes, ...] = ()  # N: each as in Rle, or polygons as `pack_polygons` gives them

    @classmethod
    def of(cls, rles: Sequence[Rle], size_hw: tuple[int, int]) -> Masks:
        """What `rasterise` gave of one image. Raises DatasetError for a mask of another size."""
        other = next((rle["size"] for rle in rles if tuple(rle["size"]) != tuple(size_hw)), None)
        if other is not None:
            raise DatasetError(f"a mask of {_text(other)} px cannot be one of an image of {_text(size_hw)}")
        return cls((size_hw[0], size_hw[1]), tuple(rle["counts"] for rle in rles))

    @classmethod
    def from_bitmaps(cls, bitmaps: Tensor) -> Masks:
        """(N, H, W) bool -> N masks. Raises ValueError for another shape or type, DatasetError for a size beyond the limits."""
        if bitmaps.ndim != 3 or bitmaps.dtype != torch.bool:
            raise ValueError(f"bitmaps must be (N, H, W) bool, got {tuple(bitmaps.shape)} {bitmaps.dtype}")
        height, width = _checked_size(bitmaps.shape[1:])
        if not len(bitmaps):
            return cls((height, width))
        # (H, W, N) as Fortran keeps it is (N, W, H) as torch does.
        columns = bitmaps.cpu().permute(0, 2, 1).contiguous().numpy().view(np.uint8)
        return cls.of(mask_api.encode(columns.transpose(2, 1, 0)), (height, width))

    @staticmethod
    def empty(size_hw: tuple[int, int]) -> bytes:
        """A mask without a pixel, as in `counts`: what an object has whose mask is not known."""
        return _encoded([math.prod(size_hw)], size_hw)["counts"]

    @property
    def rles(self) -> list[Rle]:
        """N masks as pycocotools takes them. Polygons are rasterised, each time: see `rasterised`."""
        return [_as_rle(counts, self.size_hw) for counts in self.counts]

    def rasterised(self) -> Masks:
        """The same N masks, all as run lengths."""
        return Masks(self.size_hw, tuple(rle["counts"] for rle in self.rles)) if any(map(is_packed, self.counts)) else self

    @property
    def known(self) -> Tensor:
        """(N,) bool: those that have a pixel, or are polygons, most of which have some: nothing is rasterised."""
        runs = [mask for mask in self.counts if not is_packed(mask)]
        areas = iter(Masks(self.size_hw, tuple(runs)).areas.tolist())
        known = [is_packed(mask) or next(areas) > 0 for mask in self.counts]
        return torch.tensor(known, dtype=torch.bool, device="cpu")

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, index: Tensor | slice) -> Masks:
        """A selection, as of a tensor's rows: a slice, (N,) bool, or (M,) whole numbers."""
        if isinstance(index, slice):
            return Masks(self.size_hw, self.counts[index])
        rows = torch.arange(len(self), device="cpu")[index.cpu()].reshape(-1)
        return Masks(self.size_hw, tuple(self.counts[row] for row in rows.tolist()))

    def as_json(self) -> list[dict[str, Any]]:
        """N masks as COCO's files have them: `segmentation` of a result."""
        return [{"size": rle["size"], "counts": rle["counts"].decode("ascii")} for rle in self.rles]

    @property
    def areas(self) -> Tensor:
        """(N,) int64, in pixels."""
        return torch.from_numpy(rle_areas(self.rles))

    def boxes(self) -> Tensor:
        """(N, 4) float32 xyxy: the smallest box around each mask; four zeros around one without a pixel."""
        xywh = np.asarray(mask_api.toBbox(self.rles), dtype=np.float32) if self.counts else np.zeros((0, 4), np.float32)
        return torch.from_numpy(np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1))

    def decode(self) -> Tensor:
        """(N, H, W) bool: a byte for each pixel of each mask."""
        if not self.counts:
            return torch.zeros((0, *self.size_hw), dtype=torch.bool, device="cpu")
        bitmaps = np.ascontiguousarray(mask_api.decode(self.rles).transpose(2, 0, 1))
        return torch.from_numpy(bitmaps.view(np.bool_))

    def decode_part(self, row: int, part: Part) -> npt.NDArray[np.bool_]:
        """(h, w) of one mask: what a part (y, x), two slices, of the image shows of it."""
        bitmap = mask_api.decode(_as_rle(self.counts[row], self.size_hw))
        return np.ascontiguousarray(bitmap[part]).view(np.bool_)

    def union(self) -> Masks:
        """One mask: the pixels that are in any of them, none for no mask."""
        united = mask_api.merge(self.rles) if self.counts else Rle(size=list(self.size_hw), counts=Masks.empty(self.size_hw))
        return Masks.of([united], self.size_hw)

    def without(self, others: Masks) -> Masks:
        """N masks: of each the pixels that are in none of the others. Raises DatasetError for masks of another size."""
        _require_one_size(self, others)
        runs = _runs(others.union().counts[0])
        assert runs is not None, "pycocotools wrote it"
        # A run of no length at the beginning makes background of objects and the other way round.
        outside = _encoded([0, *runs.tolist()], self.size_hw)
        return Masks.of([mask_api.merge([rle, outside], intersect=True) for rle in self.rles], self.size_hw)


def rle_areas(rles: Iterable[Rle]) -> npt.NDArray[np.int64]:
    """(N,) in pixels, also of masks of different images."""
    # One by one: given a list, pycocotools keeps its length in a byte, which above 255 is an error with NumPy 2.
    return np.array([mask_api.area(rle) for rle in rles], dtype=np.int64)


def mask_iou(masks_a: Masks, masks_b: Masks, crowd_b: Tensor | None = None) -> Tensor:
    """IoU of every pair: A and B masks of one image -> (A, B) float64. Masks without a pixel score 0.

    `crowd_b`: (B,) bool; with a crowd it is the share of mask A that lies in it, as in COCO. Raises DatasetError for masks of
    different images."""
    _require_one_size(masks_a, masks_b)
    if not len(masks_a) or not len(masks_b):
        return torch.zeros((len(masks_a), len(masks_b)), dtype=torch.float64, device="cpu")
    crowd = [0] * len(masks_b) if crowd_b is None else crowd_b.int().tolist()
    return torch.from_numpy(np.ascontiguousarray(mask_api.iou(masks_a.rles, masks_b.rles, crowd)))


def rasterise(segmentation: Any, size_hw: tuple[int, int]) -> Rle:
    """A mask as a JSON file has it -> run lengths for an image of (height, width) pixels. Takes and raises as `compact`."""
    return _as_rle(compact(segmentation, size_hw), size_hw)


def compact(segmentation: Any, size_hw: tuple[int, int]) -> bytes:
    """A mask as a JSON file has it -> as `Masks` of an image of (height, width) pixels keeps it: polygons are not rasterised.

    COCO's three forms: polygons, a list of lists [x1, y1, x2, y2, ...] in continuous pixels, whose insides are united and may
    reach out of the image; run lengths {"size": [height, width], "counts": [...]} as numbers; and the same as COCO's text.
    Raises DatasetError that says what is wrong and the value; the caller knows where it stands.
    """
    size = _checked_size(size_hw)
    if isinstance(segmentation, list):
        return pack_polygons(read_polygons(segmentation))
    if not isinstance(segmentation, dict):
        raise DatasetError(
            f"a mask must be a list of polygons or an object with size and counts, found {shorten(segmentation)}"
        )
    found = segmentation.get("size")
    if not isinstance(found, list | tuple) or list(found) != list(size):
        raise DatasetError(f"a mask's 'size' must be that of its image, {list(size)} (height, width), found {shorten(found)}")
    return _from_counts(segmentation.get("counts"), size)["counts"]


def _as_rle(mask: bytes, size_hw: tuple[int, int]) -> Rle:
    counts = rasterise_polygons(unpack_polygons(mask), size_hw) if is_packed(mask) else mask
    return Rle(size=list(size_hw), counts=counts)


def _require_one_size(masks_a: Masks, masks_b: Masks) -> None:
    if masks_a.size_hw != masks_b.size_hw:
        raise DatasetError(f"masks of {_text(masks_a.size_hw)} and of {_text(masks_b.size_hw)} px are not of one image")


def _checked_size(size_hw: Sequence[int]) -> tuple[int, int]:
    height, width = size_hw
    if height < 1 or width < 1 or height * width > MAX_MASK_PIXELS:
        limit = f"{MAX_MASK_PIXELS / 1e6:.0f} million pixels"
        raise DatasetError(f"an image with masks must have at least one pixel and at most {limit}, found {_text(size_hw)}")
    return height, width


def _text(size_hw: Sequence[int]) -> str:
    return f"{shorten(size_hw[0])} x {shorten(size_hw[1])}"


def _from_counts(counts: Any, size: tuple[int, int]) -> Rle:
    if isinstance(counts, list):
        if not all(type(run) is int and run >= 0 for run in counts):
            raise DatasetError(f"a mask's 'counts' must be whole numbers from 0 on, found {shorten(counts)}")
        _require_sum(sum(counts), size)
        return _encoded(counts, size)
    text = counts.encode("ascii", "replace") if isinstance(counts, str) else counts
    runs = _runs(text) if isinstance(text, bytes) else None
    if runs is None:
        raise DatasetError(f"a mask's 'counts' must be a list of run lengths or COCO's text for one, found {shorten(counts)}")
    # A run of more than all pixels first: the sum of many such ones may be too large for 64 bits.
    _require_sum(max(int(runs.max()), int(runs.sum())), size)
    return Rle(size=list(size), counts=text) if runs[1:].all() else _encoded(runs.tolist(), size)


def _require_sum(pixels: int, size: tuple[int, int]) -> None:
    if pixels != math.prod(size):
        raise DatasetError(f"a mask's 'counts' stand for {shorten(pixels)} pixels; its image has {_text(size)}")


def _encoded(counts: Sequence[int], size: tuple[int, int]) -> Rle:
    """Run lengths as COCO's text. Runs of no length, which some programs write, are left out: they mislead pycocotools."""
    runs: list[int] = [0]
    for number, run in enumerate(counts):
        if run and number % 2 == len(runs) % 2:
            runs.append(run)
        else:
            runs[-1] += run
    encoded: Rle = mask_api.frPyObjects({"size": list(size), "counts": runs}, *size)
    return encoded


def _runs(text: bytes) -> _Ints | None:
    """The run lengths that COCO's text stands for; None where it is no such text.

    A character has five bits of a number, the lowest first, and a sixth that says whether more follow. From the fourth
    number on they are differences from the number before the last.
    """
    digits = np.frombuffer(text, dtype=np.uint8) - np.uint8(48)  # characters below "0" become large numbers
    if not len(digits) or digits.max() > 63 or digits[-1] > 31:
        return None
    ends = np.flatnonzero(digits < 32)
    starts = np.zeros_like(ends)
    starts[1:] = ends[:-1] + 1
    lengths = ends - starts + 1
    if lengths.max() > _MAX_DIGITS:
        return None
    places = np.arange(len(digits)) - np.repeat(starts, lengths)
    runs: _Ints = np.add.reduceat((digits & 31).astype(np.int64) << 5 * places, starts)
    runs -= (digits[ends] >= 16).astype(np.int64) << 5 * lengths  # the highest bit is the sign
    runs[1::2], runs[2::2] = runs[1::2].cumsum(), runs[2::2].cumsum()
    return runs if runs.min() >= 0 else None
