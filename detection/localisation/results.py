"""The table of the paper's appendix C, as far as it can be measured: one row per way of finding the boxes.

N images, C classes of each: the true one, and the classifier's best five where there is a classifier.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from detection.config import LocConfig
from detection.engine.distributed import World
from detection.errors import DatasetError
from detection.files import read_json, write_json
from detection.localisation.evaluate import (
    centre_view,
    gt_class_error,
    localise_together,
    measure_guesses,
    with_guesses,
)
from detection.localisation.images import LocImages
from detection.localisation.networks import LocRcnn, LocRpn

RESULTS = "results.json"

# The paper's own numbers, of ResNet-101 on the validation split: a classifier of theirs guesses the five classes.
RPN_CENTRE: Mapping[str, float] = {"gt_class_error": 0.133}
RPN_DENSE: Mapping[str, float] = {"gt_class_error": 0.117, "localisation_error": 0.144}
RCNN_DENSE: Mapping[str, float] = {"localisation_error": 0.106}
ENSEMBLE_DENSE: Mapping[str, float] = {"localisation_error": 0.089}
NOTHING: Mapping[str, float] = {}


@dataclass(frozen=True)
class LocRow:
    """Errors in [0, 1], NaN without an image to measure them on; those of five guesses are None without a classifier."""

    title: str
    gt_class_error: float  # of the box of the true class
    localisation_error: float | None = None  # with five guesses: none has the class and a box with IoU >= 0.5
    classification_error: float | None = None  # with five guesses: none has the class
    paper: Mapping[str, float] = field(default_factory=dict)  # what the paper reports for it, by the fields' names


def measure_rows(
    world: World,
    rpns: Sequence[LocRpn],
    rcnns: Sequence[LocRcnn],
    images: LocImages,
    config: LocConfig,
    guessed: Tensor | None,
) -> list[LocRow]:
    """The rows of the networks: the RPN on the centre view and, where `config.test` is dense, so; then with the R-CNN.

    `guessed` are the classifier's classes (N, 5). The processes share the images; all get all rows. Raises what
    `localise_images` raises.
    """
    classes = with_guesses(images, guessed)

    def located(how: LocConfig, some_rcnns: Sequence[LocRcnn]) -> tuple[Tensor, Tensor | None]:
        # Where there are fewer than five classes, the places of the missing ones are looked for in vain.
        found = localise_together(world, rpns, some_rcnns, images, how, classes.clamp(min=0))
        return found.rpn, found.rcnn

    name = "RPN" if len(rpns) == 1 else f"{len(rpns)} RPNs"
    is_dense = config.test.views == "dense"
    rpn, rcnn = located(config, rcnns)
    rows = []
    if is_dense:
        centre, _ = located(centre_view(config), ())
        rows.append(_row(f"{name}, centre view", images, classes, centre, RPN_CENTRE if len(rpns) == 1 else NOTHING))
    one = RPN_DENSE if is_dense else RPN_CENTRE
    rows.append(_row(f"{name}, {_describe(config)}", images, classes, rpn, one if len(rpns) == 1 else NOTHING))
    if rcnn is not None:
        title = f"{name} + {'R-CNN' if len(rcnns) == 1 else f'{len(rcnns)} R-CNNs'}, {_describe(config)}"
        reported = RCNN_DENSE if len(rpns) == len(rcnns) == 1 else ENSEMBLE_DENSE
        rows.append(_row(title, images, classes, rcnn, reported if is_dense else NOTHING))
    return rows


def baseline_rows(training: LocImages, images: LocImages, guessed: Tensor | None) -> list[LocRow]:
    """What is reached without looking: all of the image, and a box at its centre with the training boxes' mean size."""
    classes = with_guesses(images, guessed)
    rows = []
    for title, share in (("all of the image", np.ones(2)), ("centre box of mean size", mean_share(training))):
        boxes = centre_boxes(images, share)[:, None].expand(-1, classes.shape[1], 4)
        rows.append(_row(title, images, classes, boxes, NOTHING))
    return rows


def mean_share(images: LocImages) -> np.ndarray:
    """(2,): the mean height and width of the boxes, as shares of their images'."""
    sizes = np.repeat(images.sizes_hw, images.num_boxes, axis=0)
    sides = (images.boxes[:, 2:] - images.boxes[:, :2])[:, ::-1]
    shares: np.ndarray = (sides / sizes).mean(axis=0, dtype=np.float64)
    return shares


def centre_boxes(images: LocImages, share_hw: np.ndarray) -> Tensor:
    """(N, 4) float32: the box at each image's centre with these shares of its height and width."""
    width_height = torch.from_numpy(images.sizes_hw[:, ::-1].astype(np.float64))
    share = torch.from_numpy(share_hw[::-1].copy())
    return torch.cat([width_height * (1 - share) / 2, width_height * (1 + share) / 2], dim=1).float()


def _row(title: str, images: LocImages, classes: Tensor, boxes: Tensor, paper: Mapping[str, float]) -> LocRow:
    """Of boxes (N, C, 4) of the true class and then the guessed ones (N, C)."""
    error = gt_class_error(images, boxes[:, 0])
    if classes.shape[1] == 1:
        return LocRow(title, error, paper=paper)
    result = measure_guesses(images, classes[:, 1:], boxes[:, 1:])
    return LocRow(title, error, result.localisation_error[-1], result.classification_error[-1], paper)


def _describe(config: LocConfig) -> str:
    return "dense" if config.test.views == "dense" else "centre view"


def write_results(path: Path, rows: Sequence[LocRow], images: LocImages, config: LocConfig) -> None:
    """Write the rows with what they were measured on. Raises OSError."""
    about = {
        "images": len(images),
        "not_evaluated": int(images.unevaluated.sum()),
        "rows": [asdict(row) for row in rows],
        "config": config.model_dump(mode="json"),
    }
    write_json(path, about)


def read_rows(path: Path, config: LocConfig) -> list[LocRow] | None:
    """The rows that a run has written; None where there are none, or of another config."""
    try:
        found = read_json(path)
        if found["config"] != config.model_dump(mode="json"):
            return None
        return [LocRow(**row) for row in found["rows"]]
    except (DatasetError, LookupError, TypeError):
        return None
