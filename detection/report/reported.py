"""What a report is made of: a detector's detections on a data set, and what is found out about them once for all sections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from detection.config import MAX_PIXELS
from detection.data.catalog import Dataset
from detection.engine.run_curves import RunCurves
from detection.evaluation.breakdown import Losses, divide_losses
from detection.evaluation.confusion import Confusion, confuse
from detection.evaluation.errors import FOREGROUND, Errors, find_errors
from detection.evaluation.lost_ap import LostAp, divided_lost_ap, lost_ap
from detection.evaluation.matches import Matches, match
from detection.evaluation.tide import Tide, tide
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
    class_ap: Mapping[str, Mapping[str, float]]  # "AP", "voc_area", "voc07", "mask_AP", ... -> class name -> AP
    latency: Latency | None = None  # None where only the detections are known
    run: RunCurves | None = None  # what the run logged, if it is one
    max_pixels: int = MAX_PIXELS  # of an image's file that is read, as `data.max_pixels` has it

    @property
    def class_names(self) -> tuple[str, ...]:
        """The K class names in the order of the labels."""
        return self.dataset.class_names


@dataclass(frozen=True)
class Analysis:
    """A reported detector, and the facts that sections share, each computed once; rows are those of `matches`."""

    reported: ReportedDetector
    matches: Matches = field(repr=False)
    errors: Errors = field(repr=False)
    confusion: Confusion = field(repr=False)

    @cached_property
    def lost_ap(self) -> LostAp:
        """What the mean AP at IoU 0.5 would gain if an error alone were put right."""
        return lost_ap(self.matches, self.matches.at(FOREGROUND))

    @cached_property
    def divided_lost_ap(self) -> LostAp:
        """All that the mean AP at IoU 0.5 lacks to 1, divided among the errors."""
        return divided_lost_ap(self.matches, self.matches.at(FOREGROUND))

    @cached_property
    def losses(self) -> Losses:
        """`divided_lost_ap` with the kind, the class and the size of each error."""
        return divide_losses(self.matches, self.errors, self.divided_lost_ap)

    @cached_property
    def tide(self) -> Tide:
        """What putting all errors of a kind right would gain."""
        return tide(self.matches)


def analyse(reported: ReportedDetector) -> Analysis:
    """Match the detections with the objects, at COCO's ten IoU thresholds, and say what each is."""
    matches = match(reported.dataset.records, reported.detections, reported.class_names)
    return Analysis(reported, matches, find_errors(matches), confuse(matches))
