"""Images of a checked data set that show the same, in one split or in two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from detection.config import SplitName
from detection.data.check import CheckedSplit
from detection.data.fingerprints import find_near_duplicates
from detection.structures import Record


@dataclass(frozen=True)
class DuplicateImages:
    """Two or more images that show the same."""

    members: tuple[tuple[SplitName, Record], ...]
    equal: bool  # pixel by pixel; otherwise resized, recompressed or mirrored

    @property
    def splits(self) -> tuple[SplitName, ...]:
        """The splits in which they are."""
        return tuple(dict.fromkeys(split for split, _ in self.members))


def find_duplicate_images(splits: Sequence[CheckedSplit]) -> list[DuplicateImages]:
    """The groups of images that show the same, those in several splits first. Unreadable images are in none."""
    images = [(split.name, record) for split in splits for record in split.records]
    prints = [each for split in splits for each in split.prints]
    groups = [
        DuplicateImages(tuple(images[place] for place in found.members), found.equal) for found in find_near_duplicates(prints)
    ]
    return sorted(groups, key=lambda group: -len(group.splits))


def describe_duplicate_images(groups: Sequence[DuplicateImages]) -> list[str]:
    """A line for each split with images that show the same, and for each two that share some."""
    lines = []
    pairs = sorted({pair for group in groups for pair in combinations(group.splits, 2)})
    for first, second in pairs:
        shared = [group for group in groups if {first, second} <= set(group.splits)]
        counts = Counter(split for group in shared for split, _ in group.members)
        files = [next(record.file for split, record in shared[0].members if split == name) for name in (first, second)]
        lines.append(
            f"{counts[second]} images of {second} show the same as {counts[first]} of {first}, so {second} measures too well: "
            f"e.g. {files[0]} and {files[1]}"
        )
    for name in dict.fromkeys(split for group in groups for split, _ in group.members):
        within = [[record.file for split, record in group.members if split == name] for group in groups]
        repeated = [files for files in within if len(files) > 1]
        if repeated:
            more = sum(len(files) - 1 for files in repeated)
            lines.append(f"{name}: {more} images show the same as another, e.g. {repeated[0][0]} and {repeated[0][1]}")
    return lines
