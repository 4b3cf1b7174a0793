"""Where the lost AP is: by kind of error, class, size and crowding of objects. D detections, G objects, K classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detection.evaluation.errors import BACKGROUND, ErrorKind, Errors, best_repairs, kinds_of_all, repaired_object
from detection.evaluation.lost_ap import LostAp
from detection.evaluation.matches import NONE, Matches, overlaps, values_at
from detection.evaluation.tide import MAIN_FIXES, Fix
from detection.evaluation.voc import Bools, Floats, Ints

SIZES = ("small", "medium", "large")
"""COCO's sizes, by area in pixels: below 32 x 32, below 96 x 96, and from there on."""
SIZE_LIMITS: Floats = np.array([32.0**2, 96.0**2])

CROWDING = ("apart", "below 0.1", "0.1 to 0.3", "0.3 and more")
"""By the greatest IoU with another object of the same class in the image: apart are those that overlap none."""
CROWDING_LIMITS: Floats = np.array([np.nextafter(0.0, 1.0), 0.1, 0.3])


@dataclass(frozen=True)
class Losses:
    """All the AP that is lost, error by error: D detections, then G objects. The costs add up to 1 - AP.

    An object that was not found counts for the localisation or class error that would find it if it were put right, and as
    missed only where there is none.
    """

    costs: Floats  # (D + G,) of the mean AP; 0 for what is no error
    fixes: Ints  # (D + G,) one of MAIN_FIXES
    labels: Ints  # (D + G,) the class whose AP is lost: of the false detection, or of the object
    sizes: Ints  # (D + G,) number in SIZES, of the detection's box or of the object
    true_labels: Ints  # (D + G,) with class errors: the class of the object; else NONE
    detected_labels: Ints  # (D + G,) with class errors: the class that was detected; else NONE


@dataclass(frozen=True)
class Breakdown:
    """Objects, and the AP lost at them, of each class in B bins."""

    bins: tuple[str, ...]  # B
    num_objects: Ints  # (K, B) to find
    num_found: Ints  # (K, B) at any score
    lost_missing: Floats  # (K, B) of the mean AP, by objects that were not found
    lost_false: Floats  # (K, B) of the mean AP, by false detections


def divide_losses(matches: Matches, errors: Errors, divided: LostAp) -> Losses:
    """`divided`: the lost AP at IoU 0.5, as `divided_lost_ap` has it."""
    labels, objects = matches.detections.labels, matches.objects
    kinds = kinds_of_all(matches)
    wrong = kinds == ErrorKind.CLASS
    target = repaired_object(matches, kinds)
    repair = best_repairs(target, matches.detections.scores, len(objects))
    repaired = ~errors.missed & (repair != NONE)
    of_object, said = values_at(kinds, repair), values_at(labels, repair)
    wrong_object = repaired & (of_object == ErrorKind.CLASS)
    return Losses(
        np.concatenate([divided.detections, divided.objects]),
        np.concatenate(
            [np.where(kinds == ErrorKind.CORRECT, Fix.MISSED, kinds - 1), np.where(repaired, of_object - 1, Fix.MISSED)]
        ),
        np.concatenate([labels, objects.labels]),
        np.concatenate([detection_sizes(matches), sizes_of(objects.areas)]),
        np.concatenate(
            [np.where(wrong, values_at(objects.labels, target), NONE), np.where(wrong_object, objects.labels, NONE)]
        ),
        np.concatenate([np.where(wrong, labels, NONE), np.where(wrong_object, said, NONE)]),
    )


def losses_by_kind(losses: Losses, num_classes: int) -> Floats:
    """(K, 6): the AP that each class loses by each of MAIN_FIXES. Their sum is 1 - AP."""
    cells = losses.labels * len(MAIN_FIXES) + losses.fixes
    shape = num_classes, len(MAIN_FIXES)
    sums: Floats = np.bincount(cells, losses.costs, num_classes * len(MAIN_FIXES)).astype(np.float64).reshape(shape)
    return sums


def break_down_by_size(matches: Matches, row: int, divided: LostAp) -> Breakdown:
    """By SIZES, of objects as annotated and of false detections by their boxes."""
    return _break_down(matches, row, divided, SIZES, sizes_of(matches.objects.areas), detection_sizes(matches))


def break_down_by_crowding(matches: Matches, row: int, divided: LostAp) -> Breakdown:
    """By CROWDING; false detections are those near an object of their class, and as crowded as that."""
    crowded = np.searchsorted(CROWDING_LIMITS, neighbour_iou(matches), side="right")
    near = matches.best_same_iou >= BACKGROUND
    return _break_down(matches, row, divided, CROWDING, crowded, np.where(near, values_at(crowded, matches.best_same), NONE))


def neighbour_iou(matches: Matches) -> Floats:
    """(G,) the greatest IoU of each object to find with another one of its class in its image; 0 without one."""
    objects, greatest = matches.objects, np.zeros(len(matches.objects))
    (rows,) = np.nonzero(~objects.ignored)
    order = rows[np.lexsort((objects.labels[rows], objects.images[rows]))]
    starts = np.flatnonzero(np.diff(objects.images[order], prepend=NONE) | np.diff(objects.labels[order], prepend=NONE))
    for group in np.split(order, starts[1:]):
        if len(group) > 1:
            iou = overlaps(objects.boxes[group], objects.boxes[group], np.zeros(len(group), dtype=bool))
            np.fill_diagonal(iou, 0.0)
            greatest[group] = iou.max(axis=1)
    return greatest


def sizes_of(areas: Floats) -> Ints:
    """Areas in square pixels -> numbers in SIZES."""
    sizes: Ints = np.searchsorted(SIZE_LIMITS, areas, side="right")
    return sizes


def detection_sizes(matches: Matches) -> Ints:
    """(D,) numbers in SIZES, by the areas of the boxes."""
    boxes = matches.detections.boxes
    return sizes_of((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))


def _break_down(
    matches: Matches, row: int, divided: LostAp, bins: tuple[str, ...], object_bins: Ints, detection_bins: Ints
) -> Breakdown:
    """A bin of NONE is no bin."""
    shape = len(matches.class_names), len(bins)
    there, found = ~matches.objects.ignored, matches.detection_of(row) != NONE
    in_objects = matches.objects.labels, object_bins
    in_detections = matches.detections.labels, detection_bins
    return Breakdown(
        bins,
        _table(shape, *in_objects, there, there).astype(np.int64),
        _table(shape, *in_objects, found, found).astype(np.int64),
        _table(shape, *in_objects, divided.objects, there),
        _table(shape, *in_detections, divided.detections, detection_bins != NONE),
    )


def _table(shape: tuple[int, int], rows: Ints, columns: Ints, values: Floats | Bools, which: Bools) -> Floats:
    """The sums of the chosen values in the cells of a table."""
    cells = rows[which] * shape[1] + columns[which]
    sums: Floats = np.bincount(cells, values[which], shape[0] * shape[1]).astype(np.float64).reshape(shape)
    return sums
