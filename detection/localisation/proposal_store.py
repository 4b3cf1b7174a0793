"""Proposals of many images on disk: what the RPN predicts for each training image's class, for the R-CNN to learn from.

FOLDER/proposals.json says what they were made of. FOLDER/00000.safetensors, ... hold the next SHARD_IMAGES images each:
`boxes` (P, 4) uint16, fractions of the image's width and height in units of 1/65535; `scores` (P,) float16; `ends` (n,) int64,
the end of each image's rows. A shard is written whole or not at all, so those that are missing can be made at any time.

N images, P proposals.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.numpy
import torch
from torch import Tensor

from backbones.errors import printable, shorten
from detection.errors import DatasetError
from detection.files import open_regular, read_json, remove_leftovers, write_json, write_whole

if TYPE_CHECKING:
    from detection.localisation.images import LocImages

INDEX = "proposals.json"
SHARD_IMAGES = 512
SCALE = 65535
_MAX_HEADER = 1 << 16  # bytes; a shard's own has less than a thousand
_BOX_BYTES = 8


@dataclass(frozen=True)
class ProposalSource:
    """What proposals were made of; others replace none of them."""

    weights: str  # a hash of the RPNs' parameters
    images: str  # a hash of the images' ids, sizes and classes, in their order
    num_images: int
    settings: Mapping[str, Any]  # of the config, by dotted keys

    @property
    def digest(self) -> str:
        """A hash of all of it, which each shard holds."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def digest_of_images(images: LocImages) -> str:
    """A hash of which images are meant, in which order, and of which classes."""
    found = hashlib.sha256("\n".join([*images.class_names, ""]).encode())
    found.update(b"\n".join(images.ids.tolist()))
    for numbers in (images.sizes_hw, images.labels):
        found.update(np.ascontiguousarray(numbers, dtype="<i8").tobytes())
    return found.hexdigest()


def shard_file(folder: Path, number: int) -> Path:
    """Where a shard lies."""
    return folder / f"{number:05d}.safetensors"


def shard_images(number: int, num_images: int) -> range:
    """The images of a shard."""
    return range(number * SHARD_IMAGES, min((number + 1) * SHARD_IMAGES, num_images))


def num_shards(num_images: int) -> int:
    """How many shards hold that many images."""
    return -(-num_images // SHARD_IMAGES)


@dataclass(frozen=True)
class StoredProposals:
    """The proposals of N images. Each image's are read from the disk when they are asked for, so this is small and pickles."""

    folder: Path
    sizes_hw: np.ndarray  # (N, 2)
    ends: np.ndarray  # (N,) int64: the end of the image's rows in its shard
    offsets: np.ndarray  # (number of shards, 2) int64: where boxes and scores begin in each file, in bytes

    @classmethod
    def open(cls, folder: Path, images: LocImages) -> StoredProposals:
        """The proposals in a folder, which must be of these images, all of them.

        Raises DatasetError: no such folder, proposals of other images, a shard that is missing, damaged or of another run.
        """
        source = read_source(folder)
        if source.images != digest_of_images(images) or source.num_images != len(images):
            raise DatasetError(
                f"{printable(str(folder))} holds proposals of {source.num_images} images, which are not the {len(images)} of "
                f"data.train: the list, the annotations or the order has changed; remove the folder, and it is made again"
            )
        shards = []
        for number in range(num_shards(len(images))):
            try:
                shards.append(_read_shard(folder, number, source))
            except DatasetError as error:
                raise DatasetError(f"{error}; go on with the run (--resume), which makes it again") from None
        ends = np.concatenate([np.zeros(0, np.int64), *(shard.ends for shard in shards)])
        return cls(
            folder, np.asarray(images.sizes_hw), ends, np.array([shard.offsets for shard in shards], np.int64).reshape(-1, 2)
        )

    def __len__(self) -> int:
        return len(self.ends)

    def boxes(self, index: int) -> Tensor:
        """(P, 4) float32 xyxy pixels of the image, the best first. Raises DatasetError where they cannot be read."""
        shard, start, count = self._place(index)
        fractions = self._read(shard, "<u2", int(self.offsets[shard, 0]) + start * _BOX_BYTES, 4 * count).reshape(-1, 4)
        return decode_boxes(fractions, self.sizes_hw[index])

    def scores(self, index: int) -> Tensor:
        """(P,) float32, descending. Raises DatasetError where they cannot be read."""
        shard, start, count = self._place(index)
        values = self._read(shard, "<f2", int(self.offsets[shard, 1]) + start * 2, count)
        return torch.from_numpy(values.astype(np.float32))

    def _place(self, index: int) -> tuple[int, int, int]:
        """Shard, first row and number of rows of an image."""
        shard, place = divmod(index, SHARD_IMAGES)
        start = int(self.ends[index - 1]) if place else 0
        return shard, start, int(self.ends[index]) - start

    def _read(self, shard: int, kind: str, offset: int, count: int) -> np.ndarray:
        # No memory map: one for each shard in each loader process could be more open files than the system allows.
        file = shard_file(self.folder, shard)
        try:
            found: np.ndarray = np.fromfile(file, kind, count, offset=offset)
        except OSError as error:
            raise DatasetError(f"cannot read the proposals in {printable(str(file))}: {error.strerror}") from None
        if len(found) < count:
            raise DatasetError(f"{printable(str(file))} was cut short while it was in use: go on with the run (--resume)")
        return found


def encode_boxes(boxes: np.ndarray, size_hw: np.ndarray) -> np.ndarray:
    """(P, 4) xyxy pixels within the image -> (P, 4) uint16. No coordinate moves by more than 1/65535 of its side."""
    sides = np.array([size_hw[1], size_hw[0]] * 2, np.float64)
    return np.clip(np.rint(boxes / sides * SCALE), 0, SCALE).astype(np.uint16)


def decode_boxes(fractions: np.ndarray, size_hw: np.ndarray) -> Tensor:
    """The inverse of `encode_boxes`, as float32."""
    sides = np.array([size_hw[1], size_hw[0]] * 2, np.float64)
    return torch.from_numpy((fractions * (sides / SCALE)).astype(np.float32))


def begin_store(folder: Path, source: ProposalSource) -> list[int]:
    """Begin a folder of proposals, or go on with one of the same source; returns the numbers of the shards to make.

    A shard that is damaged, or of other proposals, is among them. Raises DatasetError where the folder is of another source,
    naming what differs; OSError where it cannot be written.
    """
    if (folder / INDEX).exists():
        _require_same_source(folder, read_source(folder), source)
    else:
        write_json(folder / INDEX, {"format": 1, **asdict(source)})
    return [number for number in range(num_shards(source.num_images)) if not _is_whole(folder, number, source)]


def write_shard(
    folder: Path, number: int, source: ProposalSource, proposals: Sequence[tuple[Tensor, Tensor]], sizes_hw: np.ndarray
) -> None:
    """Write the boxes (P, 4) and scores (P,) of each of a shard's images, whose sizes are (n, 2). Raises OSError."""
    boxes = [encode_boxes(found.double().numpy(), size) for (found, _), size in zip(proposals, sizes_hw, strict=True)]
    scores = [found.numpy().astype(np.float16) for _, found in proposals]
    tensors = {
        "boxes": np.concatenate([np.zeros((0, 4), np.uint16), *boxes]),
        "scores": np.concatenate([np.zeros(0, np.float16), *scores]),
        "ends": np.cumsum([len(found) for found in boxes], dtype=np.int64),
    }
    file = shard_file(folder, number)
    remove_leftovers(file)
    write_whole(file, safetensors.numpy.save(tensors, {"shard": _mark(source, number)}))


def _mark(source: ProposalSource, number: int) -> str:
    """What a shard says of itself: one text, since several would be written in any order, and equal shards differ."""
    return f"{number} of {source.digest}"


def read_source(folder: Path) -> ProposalSource:
    """What a folder's proposals were made of. Raises DatasetError."""
    file = folder / INDEX
    values = read_json(file, max_bytes=1 << 20)
    fields = {"weights": str, "images": str, "num_images": int, "settings": dict}
    if not isinstance(values, dict) or values.get("format") != 1:
        raise DatasetError(f"{printable(str(file))} is no list of proposals that this version reads: remove its folder")
    if any(type(values.get(name)) is not kind for name, kind in fields.items()):
        raise DatasetError(f"{printable(str(file))} is damaged: it needs {', '.join(fields)}; remove its folder")
    return ProposalSource(**{name: values[name] for name in fields})


def _require_same_source(folder: Path, found: ProposalSource, wanted: ProposalSource) -> None:
    where = f"{printable(str(folder))} holds proposals"
    fix = "remove the folder, and they are made again"
    if found.weights != wanted.weights:
        raise DatasetError(f"{where} of other weights than this run's RPN: {fix}")
    if found.images != wanted.images or found.num_images != wanted.num_images:
        raise DatasetError(f"{where} of other images than data.train's: {fix}")
    for key, value in wanted.settings.items():
        if found.settings.get(key) != value:
            raise DatasetError(f"{where} made with {key} {shorten(found.settings.get(key))}, not {shorten(value)}: {fix}")


@dataclass(frozen=True)
class _Shard:
    ends: np.ndarray  # (n,) int64
    offsets: tuple[int, int]  # of boxes and scores in the file, in bytes


def _is_whole(folder: Path, number: int, source: ProposalSource) -> bool:
    try:
        _read_shard(folder, number, source)
    except DatasetError:
        return False
    return True


def _read_shard(folder: Path, number: int, source: ProposalSource) -> _Shard:
    """Where a shard's numbers lie. Raises DatasetError: missing, damaged, or of another run."""
    file = shard_file(folder, number)
    if not file.is_file():
        raise DatasetError(f"{printable(str(folder))} lacks {file.name}")
    wanted = len(shard_images(number, source.num_images))
    try:
        with open_regular(file) as opened:
            length = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(min(length, _MAX_HEADER)))
            starts = {name: 8 + length + header[name]["data_offsets"][0] for name in ("boxes", "scores", "ends")}
            about = header["__metadata__"]
            opened.seek(starts["ends"])
            ends = np.frombuffer(opened.read(8 * wanted), np.int64)
            size = opened.seek(0, 2)
        is_whole = len(ends) == wanted and _fits(header, ends, size - 8 - length)
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError, RecursionError):
        is_whole = False
    if not is_whole:
        raise DatasetError(f"{printable(str(file))} is cut short or damaged")
    if about != {"shard": _mark(source, number)}:
        raise DatasetError(f"{printable(str(file))} is of another run than {INDEX} beside it")
    return _Shard(ends, (starts["boxes"], starts["scores"]))


def _fits(header: Mapping[str, Any], ends: np.ndarray, num_bytes: int) -> bool:
    """Whether the tensors have the shapes that `ends` asks for, and the file as many bytes."""
    total = int(ends[-1])
    expected = {
        "boxes": ("U16", [total, 4], _BOX_BYTES * total),
        "scores": ("F16", [total], 2 * total),
        "ends": ("I64", [len(ends)], 8 * len(ends)),
    }
    described = all(
        (header[name]["dtype"], header[name]["shape"]) == (kind, shape)
        and header[name]["data_offsets"][1] - header[name]["data_offsets"][0] == size
        for name, (kind, shape, size) in expected.items()
    )
    return (
        described and bool((np.diff(ends, prepend=0) >= 0).all()) and num_bytes == sum(size for *_, size in expected.values())
    )
