"""Images on which two detectors disagree: objects that one finds and the other misses, and what each reports beside them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detection.evaluation.matches import NONE, Matches
from detection.evaluation.voc import Bools, Ints


@dataclass(frozen=True)
class Disagreement:
    """One image. Rows are those of the objects in `Matches`."""

    image: int  # position among the records
    gained: Ints  # objects that the second finds and the first misses
    lost: Ints  # objects that the first finds and the second misses
    false_positives: tuple[int, int]  # of the first, of the second

    @property
    def gain(self) -> int:
        """What the second does better here, in objects found and false positives avoided; negative where it does worse."""
        return len(self.gained) - len(self.lost) + self.false_positives[0] - self.false_positives[1]


def disagreements(
    first: Matches, second: Matches, thresholds: tuple[float, float], iou_threshold: float = 0.5
) -> list[Disagreement]:
    """The images on which the detectors differ: those with the greatest gain or loss first, of equals the image's position.

    Of each detector the detections count that score above its threshold. Both must be matched with the same records.
    """
    one, other = (
        _counted(matches, threshold, iou_threshold) for matches, threshold in zip((first, second), thresholds, strict=True)
    )
    differ = np.flatnonzero(one.found != other.found)
    gained = other.found[differ]
    images = np.unique(np.concatenate([first.objects.images[differ], np.flatnonzero(one.false != other.false)]))
    found = [
        Disagreement(
            int(image),
            differ[there & gained],
            differ[there & ~gained],
            (int(one.false[image]), int(other.false[image])),
        )
        for image in images
        for there in [first.objects.images[differ] == image]
    ]
    return sorted(found, key=lambda each: -abs(each.gain))


@dataclass(frozen=True)
class _Counted:
    """What a detector finds at its threshold."""

    found: Bools  # (G,)
    false: Ints  # (N,) false positives of each image


def _counted(matches: Matches, threshold: float, iou_threshold: float) -> _Counted:
    row = matches.at(iou_threshold)
    counted = matches.above(threshold)
    found_by = matches.detection_of(row)
    found = found_by != NONE
    found[found] = counted[found_by[found]]
    false = counted & ~matches.true_positives(row) & ~matches.ignored(row)
    return _Counted(found, np.bincount(matches.detections.images[false], minlength=matches.num_images))
