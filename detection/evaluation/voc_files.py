"""Pascal VOC's average precision of detection files: a folder of the development kit against comp4_det_SPLIT_CLASS.txt."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from detection.evaluation.detection_files import find_voc_detections, read_voc_detections
from detection.evaluation.devkit import find_year, read_devkit, sort_classes
from detection.evaluation.metrics import VocMetric
from detection.evaluation.voc import ClassDetections, VocResult, evaluate_voc_classes
from detection.structures import Record


@dataclass(frozen=True)
class VocEvaluation:
    """Ground truth and detections, ready to be compared. Only classes with an entry in `detections` are evaluated."""

    records: Sequence[Record]
    class_names: Sequence[str]  # what the records' labels mean
    detections: Mapping[str, ClassDetections]
    year: str | None = None  # of the challenge, if the data are one's
    masks: Mapping[str, VocResult] = field(default_factory=dict)  # AP^r by VOC_MASK_IOUS' keys, of what has masks

    @property
    def classes_without_file(self) -> list[str]:
        """Classes that occur in the annotations, but for which there is no detection file."""
        return [name for name in self.class_names if name not in self.detections]

    @property
    def default_metric(self) -> VocMetric:
        """The metric of the year's challenge: 11-point for 2007, the area under the curve from 2010 on."""
        return "voc07" if self.year == "2007" else "area"

    def evaluate(self, iou_threshold: float = 0.5, metric: VocMetric | None = None) -> VocResult:
        """AP by class and their mean, which is NaN where there is no object to find; by default with the year's own metric."""
        return evaluate_voc_classes(
            self.records, self.detections, self.class_names, iou_threshold, metric or self.default_metric
        )


def read_voc_files(devkit: Path, detections: Path, year: str | None = None, split: str = "test") -> VocEvaluation:
    """A devkit's annotations (`devkit` holds VOC<year>/, or Annotations/ itself) and a folder's detection files.

    Raises DatasetError naming the file and line of what cannot be used.
    """
    folder = find_year(devkit, year)
    files = find_voc_detections(detections, split)
    annotated = read_devkit(folder, split)
    by_class = {name: read_voc_detections(file, annotated.records) for name, file in files.items()}
    # Labels are positions in `class_names`: classes that only the detections have come last.
    names = [*annotated.class_names, *sort_classes(set(files) - set(annotated.class_names))]
    return VocEvaluation(annotated.records, names, by_class, year or _year_of(folder))


def evaluate_voc_files(
    devkit: Path,
    detections: Path,
    year: str | None = None,
    split: str = "test",
    iou_threshold: float = 0.5,
    metric: VocMetric | None = None,
) -> VocResult:
    """AP of a folder of detection files, as the development kit computes it. Raises DatasetError for what cannot be used."""
    return read_voc_files(devkit, detections, year, split).evaluate(iou_threshold, metric)


def _year_of(folder: Path) -> str | None:
    """The year in the name of a folder VOC<year>."""
    name = Path(os.path.realpath(folder)).name
    return name[3:] if name.startswith("VOC") and name[3:].isdigit() else None
