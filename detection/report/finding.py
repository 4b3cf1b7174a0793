"""The sentence that says what is wrong with a detector: where most of its lost AP is. K classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from backbones.errors import shorten
from detection.evaluation.breakdown import SIZES, Losses, sizes_of
from detection.evaluation.matches import Matches
from detection.evaluation.tide import MAIN_FIXES, Fix
from detection.evaluation.voc import Floats
from detection.report.reported import Analysis

MOST_CLASSES = 3
"""How many classes the sentence names."""
WORTH = 1.5
"""A narrower statement is preferred unless a wider one has more than so much more of the lost AP."""
CONCENTRATED = 1.25
"""A part is worth naming if it has so much more of a kind's losses than of the objects."""

PHRASES = {
    Fix.CLASS: "{size}objects detected as another class",
    Fix.LOCALISATION: "inexact boxes of {size}objects{classes}",
    Fix.BOTH: "both wrong class and inexact box in {size}detections{classes}",
    Fix.DUPLICATE: "duplicate detections of {size}objects{classes}",
    Fix.BACKGROUND: "{size}false positives{classes} on background",
    Fix.MISSED: "missed {size}objects{classes}",
}


@dataclass(frozen=True)
class Finding:
    """A part of the lost AP: errors of one kind, maybe of one size, of some classes or of two that are confused."""

    share: float  # of the lost AP, in [0, 1]
    fix: Fix  # the kind
    size: int | None = None  # number in SIZES
    labels: tuple[int, ...] = ()  # at most MOST_CLASSES, the one that loses most first; () for any
    confused: tuple[int, int] | None = None  # the class that is there, and the one that is detected more often in its place
    num_narrowings: int = 0

    @property
    def worth(self) -> float:
        """By which findings are compared; equal ones in spite of rounding."""
        return round(self.share * WORTH**self.num_narrowings, 9)


def main_finding(analysis: Analysis) -> str:
    """One sentence: which errors are most of the AP at IoU 0.5 that is lost. Names of classes are quoted and printable.

    All that the (uninterpolated) AP lacks to 1 is divided among the errors, so that shares add up to 100 %. Every kind of error
    is a candidate, and every part of it: those of one size, those of the one to three classes that lose most by them, both, and
    of class errors those of the pair of classes that is confused most. A candidate that is narrower by one such step is
    preferred unless the wider one has 1.5 times its share. A step counts if the part has 1.25 times more of the wider one's
    losses than of the objects, each class weighing the same: that one class of two has half of the losses says nothing.
    Behind a whole kind stands, in brackets, the narrower statement of it that is best, if half of the kind is in it.
    """
    names, matches = analysis.reported.class_names, analysis.matches
    if not matches.num_objects.any():
        return "These images have no objects to find, so there is no AP to lose."
    if not len(matches.detections):
        return "Nothing was detected: all AP is lost."
    finding = find_concentration(analysis)
    if finding is None:
        return "No AP is lost: every object was found, and before any false positive."
    part = _part_of(finding, _candidates(analysis.losses, _weights(matches)))
    detail = f" ({_what(part, names)}: {_percent(part.share)})" if part else ""
    return f"{_percent(finding.share)} of the lost AP comes from {_what(finding, names)}{detail}."


def find_concentration(analysis: Analysis) -> Finding | None:
    """What `main_finding` says; None where no AP is lost, or there is none to lose."""
    losses = analysis.losses
    if losses.costs.sum() < 1e-9:
        return None
    return max(_candidates(losses, _weights(analysis.matches)), key=lambda finding: finding.worth)


def _part_of(finding: Finding, candidates: Iterator[Finding]) -> Finding | None:
    """The best of the narrower findings of the same kind in which half of a finding is; None for one that is narrow itself."""
    if finding.num_narrowings or finding.confused:
        return None
    parts = [each for each in candidates if each.fix is finding.fix and each.num_narrowings and 2 * each.share >= finding.share]
    return max(parts, key=lambda part: part.worth, default=None)


def _weights(matches: Matches) -> Floats:
    """(sizes, K): the part of the mean AP that the objects of each size and class are. The sum is 1."""
    present = matches.num_objects > 0
    counted = ~matches.objects.ignored
    labels, sizes = matches.objects.labels[counted], sizes_of(matches.objects.areas[counted])
    weights = np.zeros((len(SIZES), len(present)))
    np.add.at(weights, (sizes, labels), 1 / (matches.num_objects[labels] * present.sum()))
    return weights


def _candidates(losses: Losses, weights: Floats) -> Iterator[Finding]:
    num_classes = weights.shape[1]
    costs = np.zeros((len(MAIN_FIXES), *weights.shape))
    np.add.at(costs, (losses.fixes, losses.sizes, losses.labels), losses.costs)
    costs /= losses.costs.sum()
    # First, since of equals the first is said: of two classes alone, all class errors are the confusion of the two.
    yield from _confusions(losses, int((weights.sum(axis=0) > 0).sum()), num_classes)
    for fix in MAIN_FIXES:
        whole = Finding(float(costs[fix].sum()), fix)
        yield whole
        yield from _of_classes(whole, costs[fix].sum(axis=0), weights.sum(axis=0))
        for size in np.flatnonzero(weights.any(axis=1)).tolist():
            part = Finding(float(costs[fix, size].sum()), fix, size)
            if _is_concentrated(part.share, whole.share, float(weights[size].sum())):
                part = Finding(part.share, fix, size, num_narrowings=1)
                yield part
                yield from _of_classes(part, costs[fix, size], weights[size] / weights[size].sum())


def _of_classes(wider: Finding, costs: Floats, weights: Floats) -> Iterator[Finding]:
    """The one to three classes with the greatest costs, where they stand out; costs and weights, (K,) each."""
    order = np.argsort(-costs, kind="stable")[:MOST_CLASSES]
    for count in range(1, len(order) + 1):
        chosen = order[:count]
        share = float(costs[chosen].sum())
        if costs[chosen[-1]] > 0 and _is_concentrated(share, wider.share, float(weights[chosen].sum())):
            yield Finding(share, wider.fix, wider.size, tuple(chosen.tolist()), num_narrowings=wider.num_narrowings + 1)


def _confusions(losses: Losses, num_present: int, num_classes: int) -> Iterator[Finding]:
    """The pair of classes, in either order, whose confusion costs most: two steps narrower where there are others."""
    (rows,) = np.nonzero((losses.true_labels >= 0) & (losses.costs > 0))
    if not len(rows):
        return
    true, said = losses.true_labels[rows], losses.detected_labels[rows]
    pairs, places = np.unique(np.minimum(true, said) * num_classes + np.maximum(true, said), return_inverse=True)
    costs = np.bincount(places, losses.costs[rows])
    best = int(costs.argmax())
    low, high = divmod(int(pairs[best]), num_classes)
    of_low = losses.costs[rows[(places == best) & (true == low)]].sum()
    confused = (low, high) if 2 * of_low >= costs[best] else (high, low)
    share = float(costs[best] / losses.costs.sum())
    yield Finding(share, Fix.CLASS, confused=confused, num_narrowings=2 if num_present > 2 else 0)


def _is_concentrated(part: float, whole: float, weight: float) -> bool:
    """Whether a part of the objects, by its weight, has more than its part of the losses."""
    return part > CONCENTRATED * weight * whole


def _what(finding: Finding, names: tuple[str, ...]) -> str:
    if finding.confused:
        true, said = (_quoted(names[label]) for label in finding.confused)
        return f"confusion of {true} with {said}"
    size = "" if finding.size is None else f"{SIZES[finding.size]} "
    if finding.fix is Fix.CLASS and finding.labels:
        listed = _listed([_quoted(names[label]) for label in finding.labels])
        return f"confusion of {listed} with other classes" + (f" at {size}objects" if size else "")
    if finding.fix is Fix.LOCALISATION and not size and not finding.labels:
        return "inexact boxes"
    return PHRASES[finding.fix].format(size=size, classes=_of(finding.labels, names))


def _of(labels: tuple[int, ...], names: tuple[str, ...]) -> str:
    if not labels:
        return ""
    return f" of class{'es' if len(labels) > 1 else ''} {_listed([_quoted(names[label]) for label in labels])}"


def _listed(words: list[str]) -> str:
    return " and ".join([*([", ".join(words[:-1])] if len(words) > 1 else []), words[-1]])


def _quoted(name: str) -> str:
    """A name in quotes, at most about 60 characters."""
    return shorten(name if len(name) <= 60 else name[:57] + "...")


def _percent(share: float) -> str:
    """To whole per cents; 100 is said of all alone."""
    return f"{min(100 * share, 99 if share < 1 - 1e-9 else 100):.0f} %"
