"""Which classes the annotations of an image know: all, or those of its source's `known_classes`. K classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from detection.config.class_lists import check_known_classes
from detection.data.classes import ClassMap, list_counts
from detection.data.faults import Faults
from detection.structures import Record


def with_known_classes(
    records: list[Record], known: Sequence[str] | None, where: str, classes: ClassMap, faults: Faults
) -> list[Record]:
    """The records of the source `where`, which knows only the classes `known` (None: all), besides what its reader found out.

    Records share their masks. Objects of other classes stay, and are told. Raises ConfigError for a name that is no class.
    """
    check_known_classes(known, f"known_classes of {where}", classes.names)
    if known is None or set(known) == set(classes.names):
        return records
    mask = torch.tensor([name in set(known) for name in classes.names], dtype=torch.bool, device="cpu")
    told = describe_unknown_objects(records, mask, where, classes.names)
    if told is not None:
        faults.inform(told)
    both: dict[int, Tensor] = {}  # by the identity of the reader's masks, which `records` keep alive
    return [replace(record, known=_both(record.known, mask, both)) for record in records]


def _both(own: Tensor | None, mask: Tensor, both: dict[int, Tensor]) -> Tensor:
    if own is None:
        return mask
    if id(own) not in both:
        both[id(own)] = own & mask
    return both[id(own)]


def describe_unknown_objects(records: Sequence[Record], known: Tensor, where: str, class_names: Sequence[str]) -> str | None:
    """How many objects of which classes are annotated though their source does not list these; None without any."""
    labels = torch.cat([torch.zeros(0, dtype=torch.long, device="cpu"), *(record.labels for record in records)])
    counts = torch.bincount(labels[~known[labels]], minlength=len(class_names)).tolist()
    found = {name: count for name, count in zip(class_names, counts, strict=True) if count}
    if not found:
        return None
    return (
        f"{where} has objects of classes that are not among its known_classes: {list_counts(found)}; list these, too, "
        "if all of their objects are annotated"
    )


def describe_known(records: Sequence[Record]) -> str | None:
    """How many images know how many of the classes, the commonest numbers by name; None where all know all."""
    masks = {id(record.known): record.known for record in records if record.known is not None}
    num_known = {key: int(mask.sum()) for key, mask in masks.items()}
    counts = Counter(num_known[id(record.known)] for record in records if record.known is not None)
    if not counts:
        return None
    num_classes = len(next(iter(masks.values())))
    parts = [f"{images} images know {known} of {num_classes} classes" for known, images in counts.most_common(3)]
    others = sum(images for _, images in counts.most_common()[3:])
    more = f", {others} another number" if others else ""
    return f"{', '.join(parts)}{more}; objects of the other classes may be there, not annotated"
