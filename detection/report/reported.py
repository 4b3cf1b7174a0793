"""What a report is made of: a detector's detections on a data set, and what is found out about them once for all sections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from detection.config import MAX_PIXELS
from detection.data.catalog import Dataset
from detection.engine.run_curves import RunCurves
from detection.evaluation.confusion import Confusion, confuse
from detection.evaluation.errors import Errors, find_errors
from detection.evaluation.matches import Matches, match
from detection.structures import DetectionsByImage


@dataclass(frozen=True)
class Latency:
    """How long an image took, from pixels to detections, without reading the file."""

    seconds_per_image: float
    device: str  # for people: "CPU, 2 threads", "NVIDIA H200"


@dataclass(frozen=True)
class ReportedDetector:
    """A detector's detections on a data set, and what is known beside them."""

    label: str  # the run's folder, the checkpoint or the file of detections
    dataset: Dataset
    detections: DetectionsByImage
    metrics: Mapping[str, float]  # by the keys of METRICS
    class_ap: Mapping[str, Mapping[str, float]]  # "AP", "voc_area" and "voc07" -> class name -> AP
    latency: Latency | None = None  # None where only the detections are known
    run: RunCurves | None = None  # what the run logged, if it is one
    max_pixels: int = MAX_PIXELS  # of an image's file that is read, as `data.max_pixels` has it

    @property
    def class_names(self) -> tuple[str, ...]:
        """The K class names in the order of the labels."""
        return self.dataset.class_names


@dataclass(frozen=True)
class Analysis:
    """A reported detector, and the facts that sections share; rows of `errors` and `confusion` are those of `matches`."""

    reported: ReportedDetector
    matches: Matches = field(repr=False)
    errors: Errors = field(repr=False)
    confusion: Confusion = field(repr=False)


def analyse(reported: ReportedDetector) -> Analysis:
    """Match the detections with the objects, at COCO's ten IoU thresholds, and say what each is."""
    matches = match(reported.dataset.records, reported.detections, reported.class_names)
    return Analysis(reported, matches, find_errors(matches), confuse(matches))
