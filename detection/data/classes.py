"""Names of classes in the data -> labels: which are renamed, which are left out, and which are mistakes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from backbones.errors import printable, shorten
from detection.config import DataConfig
from detection.config.class_lists import list_names, resolve_classes
from detection.errors import DatasetError, did_you_mean


@dataclass(frozen=True)
class ClassMap:
    """What becomes of an object by the name of its class in the data."""

    names: tuple[str, ...]  # K, in the order of the labels
    rename: Mapping[str, str] = field(default_factory=dict)  # name in the data -> name of the class
    drop: frozenset[str] = frozenset()  # names in the data whose objects are left out
    others: Literal["refuse", "drop"] = "refuse"  # what is done about names that are in none of the above

    @classmethod
    def of(cls, data: DataConfig) -> ClassMap:
        """What a config asks for. Raises ConfigError where its classes have yet to be read from the data."""
        if data.drop == "others":
            return cls(data.class_names, data.rename, others="drop")
        return cls(data.class_names, data.rename, frozenset(data.drop))

    @classmethod
    def to(cls, classes: str | Sequence[str]) -> ClassMap:
        """Names as they are: a list of them, "voc", "coco" or "ilsvrc_det". Raises ConfigError."""
        return cls(resolve_classes(classes))

    @cached_property
    def labels(self) -> Mapping[str, int]:
        """The label 0..K-1 of each class."""
        return {name: label for label, name in enumerate(self.names)}

    def label(self, name: str, where: str) -> int | None:
        """The label 0..K-1 of a name in the data, or None where its objects are left out.

        Raises DatasetError, with `where`, for a name that is none of the classes.
        """
        if self.leaves_out(name):
            return None
        renamed = self.rename.get(name, name)
        if renamed not in self.labels:
            similar = did_you_mean(renamed, self.names)
            raise DatasetError(f"{where}: unknown class {shorten(renamed)}{similar} (data.classes: {list_names(self.names)})")
        return self.labels[renamed]

    def describe_unknown(self, names: Collection[str]) -> list[str]:
        """Which names of `data.rename` and `data.drop` are none of the data's, a line each, with the name that may be meant."""
        asked = [("data.rename", name) for name in self.rename] + [("data.drop", name) for name in sorted(self.drop)]
        return [
            f"{key} names {shorten(name)}, which no object has{did_you_mean(name, names)}"
            for key, name in asked
            if name not in names
        ]

    def leaves_out(self, name: str) -> bool:
        """Whether objects of this name in the data are left out."""
        return name in self.drop or (self.others == "drop" and self.rename.get(name, name) not in self.labels)


def describe_left_out(counts: Mapping[str, int]) -> str | None:
    """How many objects of which names are left out, the commonest ten by name; None without any."""
    if not counts:
        return None
    classes = "1 class" if len(counts) == 1 else f"{len(counts)} classes"
    return f"{sum(counts.values())} objects of {classes} are left out: {list_counts(counts)}"


def list_counts(counts: Mapping[str, int]) -> str:
    """Names with their numbers of objects, the commonest ten: "dog (12), cat (3)"."""
    commonest = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:10]
    names = ", ".join(f"{printable(name)} ({count})" for name, count in commonest)
    return f"{names} and {len(counts) - 10} more" if len(counts) > 10 else names
