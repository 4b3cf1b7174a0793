"""The paper's table of improvements (Table 9): each added to those before it, what it finds and what it costs (appendix B).

Rows share what they have in common: a network's feature maps and proposals are computed once an image, whatever the row.
Only for the clock does every row work alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from statistics import median

import numpy as np
import torch

from detection.config import TestConfig
from detection.data.loader import test_loader
from detection.engine.precision import autocast, resolve_precision
from detection.errors import ConfigError
from detection.inference.detector import Detector, detect, evaluating, to_array
from detection.inference.views import View
from detection.structures import Detections, ImageId, Record

PAPER_SCALES = (200, 400, 600, 800, 1000)
PAPER_SHORTER_SIDE = 600


@dataclass(frozen=True)
class Member:
    """One network of a row: its place among the detectors, and the settings it works under."""

    index: int
    test: TestConfig


@dataclass(frozen=True)
class Row:
    """One line of the table. Two rows are equal where they compute the same, whatever their names."""

    name: str = field(compare=False)
    members: tuple[Member, ...]
    flip: bool = False

    @property
    def alone(self) -> list[Row]:
        """A row for each member by itself."""
        return [Row(self.name, (member,), self.flip) for member in self.members]


@dataclass(frozen=True)
class Plan:
    """The rows that the detectors at hand allow, and a sentence for each that they do not."""

    rows: tuple[Row, ...]
    left_out: tuple[str, ...]

    @property
    def measured(self) -> list[Row]:
        """All that has to be computed, each once: the rows, and an ensemble's members by themselves."""
        return list(dict.fromkeys([*self.rows, *(single for row in self.rows for single in row.alone)]))


def plan_rows(detectors: Sequence[Detector]) -> Plan:
    """The table's rows. Detectors with and without context may come in any order; the first of each kind stands for it.

    Raises ConfigError if there is none without context, the baseline.
    """
    plain = [index for index, detector in enumerate(detectors) if not detector.config.roi.context]
    contextual = [index for index, detector in enumerate(detectors) if detector.config.roi.context]
    if not plain:
        raise ConfigError(
            f"the baseline needs a checkpoint trained without context, and all {len(detectors)} given have roi.context=true: "
            "add one with roi.context=false to --weights"
        )
    full = contextual or plain

    def row(name: str, indices: Sequence[int], settings: Callable[[TestConfig], TestConfig], flip: bool = False) -> Row:
        return Row(name, tuple(Member(index, settings(detectors[index].config.test)) for index in indices), flip)

    rows = [row("baseline", plain[:1], baseline), row("+ box refinement", plain[:1], refined)]
    left_out = []
    if contextual:
        rows.append(row("+ context", contextual[:1], refined))
    else:
        left_out.append("+ context: no checkpoint was trained with roi.context=true")
    rows.append(row("+ multi-scale testing", full[:1], multi_scale))
    if len(full) > 1:
        rows.append(row("+ ensemble", full, multi_scale))
    else:
        left_out.append(f"+ ensemble: there is only one checkpoint {'with' if contextual else 'without'} context")
    if detectors[full[0]].config.test.flip:
        rows.append(row("+ flip, one network", full[:1], multi_scale, flip=True))
    return Plan(tuple(rows), tuple(left_out))


def baseline(test: TestConfig) -> TestConfig:
    """The settings with all improvements switched off."""
    return test.model_copy(update={"refinement_passes": 0, "voting": False, "scales": (), "flip": False})


def refined(test: TestConfig) -> TestConfig:
    """The baseline with box refinement and voting, in as many passes as the settings ask for, at least the paper's one."""
    return baseline(test).model_copy(update={"refinement_passes": max(test.refinement_passes, 1), "voting": True})


def multi_scale(test: TestConfig) -> TestConfig:
    """The same at the settings' scales; where they have none, at the paper's, in proportion to `shorter_side`."""
    proportional = {max(round(scale * test.shorter_side / PAPER_SHORTER_SIDE), 1) for scale in PAPER_SCALES}
    return refined(test).model_copy(update={"scales": test.scales or tuple(sorted(proportional))})


def predict_rows(
    detectors: Sequence[Detector],
    rows: Sequence[Row],
    records: Sequence[Record],
    *,
    workers: int = 2,
    report: Callable[[int], None] | None = None,
) -> dict[Row, dict[ImageId, Detections]]:
    """What each row finds in each record's image, in its own pixels, on the CPU. An image is read once for all rows.

    The first detector's config decides the precision. `report` hears how many images are done. Raises DatasetError for
    an image that cannot be read.
    """
    device = detectors[0].device
    precision = resolve_precision(detectors[0].config.train.precision, device)
    found: dict[Row, dict[ImageId, Detections]] = {row: {} for row in rows}
    for done, ((record,), (image,)) in enumerate(test_loader(records, workers=workers), start=1):
        with autocast(device, precision):
            results = detect_rows(detectors, rows, to_array(image))
        for row, detections in zip(rows, results, strict=True):
            found[row][record.image_id] = detections.to("cpu")
        if report is not None:
            report(done)
    return found


def time_rows(
    detectors: Sequence[Detector],
    rows: Sequence[Row],
    records: Sequence[Record],
    *,
    report: Callable[[int], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Row, float]:
    """Seconds that each row takes for an image when it works alone: from pixels in memory to detections, median of the records.

    Image by image all rows have their turn, so that a busy moment of the machine meets them alike. An image of a new shape
    is run untimed first: the libraries prepare for it once. Raises DatasetError for an image that cannot be read.
    """
    device = detectors[0].device
    precision = resolve_precision(detectors[0].config.train.precision, device)

    def timed(row: Row, array: np.ndarray) -> float:
        started = _synchronised(device, clock)
        with autocast(device, precision):
            detect_rows(detectors, [row], array)
        return _synchronised(device, clock) - started

    seconds: dict[Row, list[float]] = {row: [] for row in rows}
    seen: set[tuple[int, ...]] = set()
    for done, (_, (image,)) in enumerate(test_loader(records), start=1):
        array = to_array(image)
        if array.shape not in seen:
            seen.add(array.shape)
            for row in rows:
                timed(row, array)
        for row in rows:
            seconds[row].append(timed(row, array))
        if report is not None:
            report(done)
    return {row: median(values) for row, values in seconds.items()}


@torch.inference_mode()
def detect_rows(detectors: Sequence[Detector], rows: Sequence[Row], array: np.ndarray) -> list[Detections]:
    """What each row finds in one image (H, W, 3): each exactly what a detector or ensemble of its settings predicts."""
    views = shared_views(detectors, array)
    with evaluating(detectors):
        return [detect(views(row))[0] for row in rows]


def shared_views(detectors: Sequence[Detector], array: np.ndarray) -> Callable[[Row], list[View]]:
    """A function from a row to its views of one image; they share feature maps, proposals and, at equal settings, context."""

    @cache
    def image(index: int, mirrored: bool) -> View:
        return View(detectors[index], [array], mirrored=mirrored)

    @cache
    def view(member: Member, mirrored: bool) -> View:
        return image(member.index, mirrored).under(member.test)

    def views(row: Row) -> list[View]:
        sides = (False, True) if row.flip else (False,)
        return [view(member, mirrored) for mirrored in sides for member in row.members]

    return views


def _synchronised(device: torch.device, clock: Callable[[], float]) -> float:
    """The time at which the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock()
