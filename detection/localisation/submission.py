"""Trained localisers, from files, on the validation images: their errors, and the file that is submitted.

N images, K classes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detection.config import LocConfig
from detection.data.catalog import resolve_devkit, resolve_root
from detection.data.ilsvrc_devkit import read_classes
from detection.device import find_device
from detection.evaluation.ilsvrc import LocGuesses, LocResult
from detection.evaluation.ilsvrc_files import write_loc_guesses
from detection.localisation.checkpoints import load_rcnn, load_rpn
from detection.localisation.classes import guess_classes
from detection.localisation.evaluate import (
    gt_class_error,
    guesses_of,
    localise_images,
    measure_guesses,
    with_guesses,
)
from detection.localisation.images import LocImages, read_loc_images, val_id
from detection.weights.checkpoint import require_same_classes

logger = logging.getLogger(__name__)

ReportStage = Callable[[str, int, int], object]
"""Gets what is being done, the number of images that are done, and how many there are."""


@dataclass(frozen=True)
class LocEvaluation:
    """What localisers reach on a split. Without a classifier there are no guesses."""

    images: LocImages
    gt_class_error: float  # of all images, by the box of the true class, which is given
    guesses: LocGuesses | None = None  # labels in the order of the WNIDs
    errors: LocResult | None = None  # of the guesses

    def as_json(self) -> dict[str, object]:
        """Plain data; `guesses` as of a submitted file, whose `gt_class_error` is of the images with the right guess alone."""
        guessed = None if self.errors is None else self.errors.as_json()
        return {"images": len(self.images), "gt_class_error": self.gt_class_error, "guesses": guessed}


def evaluate_localiser(
    config: LocConfig,
    rpns: Sequence[Path],
    rcnns: Sequence[Path] = (),
    classifiers: Sequence[Path] = (),
    *,
    device: str = "auto",
    report: ReportStage = lambda action, done, total: None,
) -> LocEvaluation:
    """The errors on `data.val` of an RPN, or several as one, with R-CNNs or without, in the views of `config.test`.

    Each network is as its file records it. The best five classes of the classifiers are localised, and the true class of each
    image. The networks compute on `device`. Raises CheckpointError where files are of other classes than the data or do not fit
    together; ConfigError, DatasetError.
    """
    place = find_device(device)
    images = read_loc_images(config.data, config.data.val)
    rpn_models = [load_rpn(path).to(place) for path in rpns]
    rcnn_models = [load_rcnn(path).to(place) for path in rcnns]
    for path, model in zip([*rpns, *rcnns], [*rpn_models, *rcnn_models], strict=True):
        require_same_classes(model.class_names, images.class_names, path)
    guessed = guess_classes(classifiers, images, config, place, report=lambda done: report("classifying", done, len(images)))
    classes = with_guesses(images, guessed)
    found = localise_images(
        rpn_models,
        rcnn_models,
        images,
        config,
        classes.clamp(min=0),
        report=lambda done: report("localising", done, len(images)),
    ).final
    error = gt_class_error(images, found[:, 0])
    if guessed is None:
        return LocEvaluation(images, error)
    return LocEvaluation(images, error, guesses_of(guessed, found[:, 1:]), measure_guesses(images, guessed, found[:, 1:]))


def write_submission(file: Path, guesses: LocGuesses, images: LocImages, config: LocConfig) -> None:
    """Write the guesses with the development kit's class ids, a line per image of the split. Raises DatasetError, OSError.

    A split that is not val from its first image on, in the order of its numbers, is warned of: lines are told by their place.
    """
    kit = read_classes(resolve_devkit(config.data, resolve_root(config.data.root)) / "map_clsloc.txt").labels
    kit_labels = np.array([*(kit[name] for name in images.class_names), -1])  # the last: -1, no guess
    write_loc_guesses(file, LocGuesses(kit_labels[guesses.labels], guesses.boxes))
    other = next((place for place in range(len(images)) if images.id_of(place) != val_id(place)), None)
    if other is not None:
        logger.warning(
            "line %d of %s is of %s, where the evaluation expects %s: it takes a line per image of val, in the order of their "
            "numbers; write it of the whole list",
            other + 1,
            file,
            images.id_of(other),
            val_id(other),
        )
