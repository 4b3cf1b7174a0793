"""Images that are held out of the training images: which they are, and the file that keeps it.

The choice is a function of the images' names, classes and groups and of a seed, not of the order in which they are listed.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backbones.errors import printable, shorten
from detection.config import SPLITS, HeldOut, SplitName
from detection.config.class_lists import list_names
from detection.data.faults import Faults
from detection.errors import DatasetError
from detection.files import read_json, write_json
from detection.structures import ImageId, Record

SPLIT_FILE = "split.json"
"""In the folder of a run: the images that it is trained on, and those that are held out."""

_NO_OBJECT = -1  # stands beside the labels for images without objects, which are spread as those of a class are


@dataclass(frozen=True)
class ImageSplit:
    """Which image is in which part, by the ids of the images."""

    parts: Mapping[SplitName, Sequence[ImageId]]  # test may be missing
    asked: Mapping[str, object]  # fraction, seed and group_by, from which it was made; empty for one made by other means

    @classmethod
    def of(cls, parts: Mapping[SplitName, Sequence[Record]], asked: Mapping[str, object]) -> ImageSplit:
        """The split that puts records into the parts in which they are."""
        return cls({part: [record.image_id for record in records] for part, records in parts.items()}, asked)


@dataclass(frozen=True)
class SplitImage:
    """What of an image matters when it is put into a part."""

    group: str  # images of one group stay together; a name of its own for an image that belongs to none
    labels: frozenset[int]


def split_images(images: Sequence[SplitImage], fractions: Sequence[float], seed: int) -> list[int]:
    """The part of each image, 0 (training) and up, of which part p gets about `fractions[p]` of all images and of each class.

    Iterative stratification (Sechidis et al. 2011): rare classes first. A class has an image in part 0 before it has one
    elsewhere, and no part is empty. Raises DatasetError where there are fewer groups than parts.
    """
    sizes = Counter(image.group for image in images)
    if len(sizes) < len(fractions):
        raise DatasetError(
            f"{len(images)} images in {len(sizes)} groups that stay together cannot be divided into {len(fractions)} parts"
        )
    placing = _Placing(images, fractions)
    order = sorted(sizes, key=lambda group: (-sizes[group], hashlib.sha256(f"{seed}\n{group}".encode()).digest()))
    placing.place_all(order)
    placing.fill_empty(order)
    return [placing.part_of[image.group] for image in images]


class _Placing:
    """Groups of images on their way into parts."""

    def __init__(self, images: Sequence[SplitImage], fractions: Sequence[float]) -> None:
        self.counts: dict[str, Counter[int]] = defaultdict(Counter)  # group -> label -> images that have it
        self.sizes: Counter[str] = Counter()
        for image in images:
            self.counts[image.group].update(image.labels or {_NO_OBJECT})
            self.sizes[image.group] += 1
        self.left = _total(self.counts.values())
        self.wanted = [fraction * len(images) for fraction in fractions]  # images that each part has yet to get
        self.wanted_of = {label: [fraction * count for fraction in fractions] for label, count in self.left.items()}
        self.learnt: set[int] = {_NO_OBJECT}  # labels that part 0 has
        self.part_of: dict[str, int] = {}

    def place_all(self, order: Sequence[str]) -> None:
        groups_of: dict[int, list[str]] = defaultdict(list)
        for group in order:
            for label in self.counts[group]:
                groups_of[label].append(group)
        rarest = [(count, label) for label, count in self.left.items()]
        heapq.heapify(rarest)
        while rarest:
            count, label = heapq.heappop(rarest)
            if count != self.left[label]:  # it has become rarer since
                if self.left[label]:
                    heapq.heappush(rarest, (self.left[label], label))
                continue
            for group in groups_of[label]:
                if group not in self.part_of:
                    self.place(group, self.choose(group, label))

    def choose(self, group: str, label: int) -> int:
        """The part that lacks most images of a label, of those that have room."""
        if not self.learnt.issuperset(self.counts[group]):
            return 0
        parts = range(len(self.wanted))
        with_room = [part for part in parts if self.wanted[part] >= self.sizes[group] / 2]
        return max(with_room or parts, key=lambda part: (self.wanted_of[label][part], self.wanted[part], -part))

    def place(self, group: str, part: int) -> None:
        self.part_of[group] = part
        self.wanted[part] -= self.sizes[group]
        for label, count in self.counts[group].items():
            self.wanted_of[label][part] -= count
            self.left[label] -= count
        if part == 0:
            self.learnt.update(self.counts[group])

    def fill_empty(self, order: Sequence[str]) -> None:
        """Give each part that is empty the smallest group that can be spared elsewhere."""
        for part in set(range(len(self.wanted))) - set(self.part_of.values()):
            groups_in = Counter(self.part_of.values())
            spare = [group for group in reversed(order) if groups_in[self.part_of[group]] > 1]
            images_in = _total(self.counts[group] for group in order if self.part_of[group] == 0)
            keeps = [group for group in spare if all(images_in[each] > n for each, n in self.counts[group].items())]
            self.part_of[(keeps or spare)[0]] = part


def _total(counts: Iterable[Counter[int]]) -> Counter[int]:
    total: Counter[int] = Counter()
    for each in counts:
        total.update(each)
    return total


def divide_records(
    records: Sequence[Record], groups: Sequence[str | None], fractions: Mapping[SplitName, float], seed: int
) -> dict[SplitName, list[Record]]:
    """The records of each part, in their order. `groups`: where an image belongs to others, the name that they share."""
    images = [
        SplitImage(f"image {record.image_id!r}" if group is None else f"group {group}", frozenset(record.labels.tolist()))
        for record, group in zip(records, groups, strict=True)
    ]
    chosen = split_images(images, list(fractions.values()), seed)
    return {
        part: [record for record, its in zip(records, chosen, strict=True) if its == number]
        for number, part in enumerate(fractions)
    }


def part_fractions(val: float, test: float = 0.0) -> dict[SplitName, float]:
    """The share of each part, training first; without test where that is 0."""
    fractions: dict[SplitName, float] = {"train": 1 - val - test, "val": val, "test": test}
    return {part: fraction for part, fraction in fractions.items() if part != "test" or fraction}


def settings_of(held_out: HeldOut) -> dict[str, object]:
    """What a config asks for, as `ImageSplit.asked`."""
    return {"fraction": held_out.fraction, "seed": held_out.seed, "group_by": held_out.group_by}


def select_records(records: Sequence[Record], split: ImageSplit, file: Path, faults: Faults) -> dict[SplitName, list[Record]]:
    """The records of each part of a split that was read from a file; images that it does not list are left out, and said.

    Raises DatasetError where a part has none of them.
    """
    part_of = {image_id: part for part, ids in split.parts.items() for image_id in ids}
    selected: dict[SplitName, list[Record]] = {part: [] for part in split.parts}
    for record in records:
        if record.image_id in part_of:
            selected[part_of[record.image_id]].append(record)
    where, num_found = printable(str(file)), sum(map(len, selected.values()))
    if num_found < len(records):
        faults.inform(
            f"{len(records) - num_found} images of the data are not in {where}, and in no part: a new split would have them"
        )
    if num_found < len(part_of):
        faults.inform(f"{len(part_of) - num_found} images of {where} are no longer in the data")
    empty = [part for part, found in selected.items() if not found]
    if empty:
        raise DatasetError(f"no image of '{empty[0]}' in {where} is in the data: is it the split of other data?")
    return selected


def describe_uneven(parts: Mapping[SplitName, Sequence[Record]], class_names: Sequence[str]) -> list[str]:
    """Which classes have objects in a split, but none in one of its parts, a line a part."""
    labels = {part: {label for record in records for label in record.labels.tolist()} for part, records in parts.items()}
    every: set[int] = set().union(*labels.values())
    lacking = {part: [printable(class_names[label]) for label in sorted(every - found)] for part, found in labels.items()}
    return [f"the part '{part}' of the split has no object of {list_names(names)}" for part, names in lacking.items() if names]


def write_split(file: Path, split: ImageSplit) -> None:
    """Write the ids of each part as JSON. Raises OSError, an old file intact."""
    ids: dict[str, object] = {part: list(split.parts[part]) for part in split.parts}
    write_json(file, {"asked": dict(split.asked), **ids})


def read_split(file: Path) -> ImageSplit:
    """A split as `write_split` writes it, or made by hand: lists `train`, `val` and, if wanted, `test`. Raises DatasetError."""
    content = read_json(file, once=SPLITS)
    if not isinstance(content, dict) or not {"train", "val"} <= content.keys():
        raise DatasetError(f"{file} is no split: it must hold the lists 'train' and 'val' of ids of images")
    parts = {part: _ids(content[part], f"{file}: '{part}'") for part in SPLITS if content.get(part) or part != "test"}
    counts = Counter(image_id for ids in parts.values() for image_id in ids)
    twice = next((image_id for image_id, count in counts.items() if count > 1), None)
    if twice is not None:
        raise DatasetError(f"{file} names the image {shorten(twice)} twice: each is in one part, once")
    asked = content.get("asked")
    return ImageSplit(parts, asked if isinstance(asked, dict) else {})


def _ids(value: Any, where: str) -> list[ImageId]:
    """Ids of images: whole numbers or texts."""
    if not isinstance(value, list):
        raise DatasetError(f"{where} must be a list of ids of images, found {shorten(value)}")
    if not value:
        raise DatasetError(f"{where} is empty: name at least one image")
    odd = next((each for each in value if type(each) not in (int, str)), None)
    if odd is not None:
        raise DatasetError(f"{where}: an id is a whole number or a text, found {shorten(odd)}")
    return value
