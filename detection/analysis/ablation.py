"""The rows of the paper's table of improvements (Table 9, appendix B), each improvement added to those above it.

Rows share what they have in common: a network's feature maps and proposals are computed once per image for all rows. Only
where time is measured does each row work by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from statistics import median

import numpy as np
import torch

from backbones.modes import evaluating
from detection.config import TestConfig
from detection.data.loader import test_loader
from detection.engine.precision import autocast, resolve_precision
from detection.errors import ConfigError
from detection.inference.detector import Detector, detect_in_views
from detection.inference.images import to_array
from detection.inference.views import View
from detection.structures import Detections, ImageId, Record

PAPER_SCALES = (200, 400, 600, 800, 1000)
PAPER_SHORTER_SIDE = 600


@dataclass(frozen=True)
class AblationMember:
    """One network of a row: its position among the detectors, and the settings that it works under."""

    index: int
    test: TestConfig


@dataclass(frozen=True)
class AblationRow:
    """One line of the table. Two rows are equal where they compute the same, whatever their names."""

    name: str = field(compare=False)
    members: tuple[AblationMember, ...]
    flip: bool = False

    @property
    def single_networks(self) -> list[AblationRow]:
        """A row for each member by itself."""
        return [AblationRow(self.name, (member,), self.flip) for member in self.members]


@dataclass(frozen=True)
class AblationPlan:
    """The rows that the detectors at hand allow, and a sentence for each row that they do not allow."""

    rows: tuple[AblationRow, ...]
    left_out: tuple[str, ...]

    @property
    def rows_and_members(self) -> list[AblationRow]:
        """All that has to be computed, each once: the rows, and each network of an ensemble by itself."""
        return list(dict.fromkeys([*self.rows, *(single for row in self.rows for single in row.single_networks)]))

    @property
    def scales(self) -> tuple[int, ...]:
        """Shorter sides of multi-scale testing, of its first network."""
        for row in self.rows:
            if row.members[0].test.scales:
                return row.members[0].test.scales
        return ()


def plan_rows(detectors: Sequence[Detector]) -> AblationPlan:
    """The table's rows. Detectors with and without context may come in any order.

    The first detector of each kind is the single network; all with context make the ensemble, or all without if none has
    it. Raises ConfigError if there is no detector without context, which is the baseline.
    """
    plain = [index for index, detector in enumerate(detectors) if not detector.config.roi.context]
    contextual = [index for index, detector in enumerate(detectors) if detector.config.roi.context]
    if not plain:
        raise ConfigError(
            f"the baseline needs a checkpoint trained without context, and all {len(detectors)} given have roi.context=true: "
            "add one that was trained with roi.context=false"
        )
    best = contextual or plain

    def row(name: str, indices: Sequence[int], settings: Callable[[TestConfig], TestConfig], flip: bool = False) -> AblationRow:
        members = tuple(AblationMember(index, settings(detectors[index].config.test)) for index in indices)
        return AblationRow(name, members, flip)

    rows = [row("baseline", plain[:1], baseline_settings), row("+ box refinement", plain[:1], refinement_settings)]
    left_out = []
    if contextual:
        rows.append(row("+ context", contextual[:1], refinement_settings))
    else:
        left_out.append("+ context: no checkpoint was trained with roi.context=true")
    rows.append(row("+ multi-scale testing", best[:1], multi_scale_settings))
    if len(best) > 1:
        rows.append(row("+ ensemble", best, multi_scale_settings))
    else:
        left_out.append(f"+ ensemble: there is only one checkpoint {'with' if contextual else 'without'} context")
    if detectors[best[0]].config.test.flip:
        rows.append(row("+ flip, one network", best[:1], multi_scale_settings, flip=True))
    return AblationPlan(tuple(rows), tuple(left_out))


def baseline_settings(test: TestConfig) -> TestConfig:
    """These settings with all improvements switched off."""
    return test.model_copy(update={"refinement_passes": 0, "voting": False, "scales": (), "flip": False, "tile": 0})


def refinement_settings(test: TestConfig) -> TestConfig:
    """The baseline with box refinement and voting, in as many passes as the settings ask for, at least the paper's one."""
    passes = max(test.refinement_passes, 1)
    return baseline_settings(test).model_copy(update={"refinement_passes": passes, "voting": True})


def multi_scale_settings(test: TestConfig) -> TestConfig:
    """Refinement and voting at the settings' scales, or at the paper's in proportion to `shorter_side` if they have none."""
    proportional = {max(round(scale * test.shorter_side / PAPER_SHORTER_SIDE), 1) for scale in PAPER_SCALES}
    return refinement_settings(test).model_copy(update={"scales": test.scales or tuple(sorted(proportional))})


def predict_rows(
    detectors: Sequence[Detector],
    rows: Sequence[AblationRow],
    records: Sequence[Record],
    *,
    workers: int = 2,
    report: Callable[[int], None] | None = None,
) -> dict[AblationRow, dict[ImageId, Detections]]:
    """Each row's detections by image, boxes in the image's own pixels, on the CPU. An image is read once for all rows.

    The first detector's config decides the precision. `report` is called with the number of images done. Raises DatasetError
    for an image that cannot be read.
    """
    device = detectors[0].device
    precision = resolve_precision(detectors[0].config.train.precision, device)
    found: dict[AblationRow, dict[ImageId, Detections]] = {row: {} for row in rows}
    data = detectors[0].config.data
    images = test_loader(records, workers=workers, max_pixels=data.max_pixels, timeout=data.loader_timeout)
    for done, ((record,), (image,)) in enumerate(images, start=1):
        with autocast(device, precision):
            results = detect_rows(detectors, rows, to_array(image))
        for row, detections in zip(rows, results, strict=True):
            found[row][record.image_id] = detections.to("cpu")
        if report is not None:
            report(done)
    return found


def time_rows(
    detectors: Sequence[Detector],
    rows: Sequence[AblationRow],
    records: Sequence[Record],
    *,
    report: Callable[[int], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[AblationRow, float]:
    """Seconds per image of each row by itself, from pixels in memory to detections: the median over the records.

    All rows run on one image before any runs on the next, so that a busy moment of the machine meets them alike. The first
    image of each shape is run once untimed before: the libraries prepare for a shape once. Raises DatasetError for an image
    that cannot be read.
    """
    device = detectors[0].device
    precision = resolve_precision(detectors[0].config.train.precision, device)

    def timed(row: AblationRow, array: np.ndarray) -> float:
        started = _synchronised(device, clock)
        with autocast(device, precision):
            detect_rows(detectors, [row], array)
        return _synchronised(device, clock) - started

    seconds: dict[AblationRow, list[float]] = {row: [] for row in rows}
    known_shapes: set[tuple[int, ...]] = set()
    images = test_loader(records, max_pixels=detectors[0].config.data.max_pixels)
    for done, (_, (image,)) in enumerate(images, start=1):
        array = to_array(image)
        if array.shape not in known_shapes:
            known_shapes.add(array.shape)
            for row in rows:
                timed(row, array)
        for row in rows:
            seconds[row].append(timed(row, array))
        if report is not None:
            report(done)
    return {row: median(values) for row, values in seconds.items()}


@torch.inference_mode()
def detect_rows(detectors: Sequence[Detector], rows: Sequence[AblationRow], array: np.ndarray) -> list[Detections]:
    """Each row's detections in one image (H, W, 3) uint8: exactly what a detector or ensemble with its settings predicts."""
    views = shared_views(detectors, array)
    with evaluating(detectors):
        return [detect_in_views(views(row))[0] for row in rows]


def shared_views(detectors: Sequence[Detector], array: np.ndarray) -> Callable[[AblationRow], list[View]]:
    """A function from a row to its views of one image. Views share feature maps, proposals and, at equal settings, context."""

    @cache
    def plain_view(index: int, mirrored: bool) -> View:
        return View(detectors[index], [array], mirrored=mirrored)

    @cache
    def view(member: AblationMember, mirrored: bool) -> View:
        return plain_view(member.index, mirrored).with_settings(member.test)

    def views(row: AblationRow) -> list[View]:
        sides = (False, True) if row.flip else (False,)
        return [view(member, mirrored) for mirrored in sides for member in row.members]

    return views


def _synchronised(device: torch.device, clock: Callable[[], float]) -> float:
    """The time after the device has finished all work that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock()
