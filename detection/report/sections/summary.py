"""The first screen: the numbers by which a detector is known, and how it was trained."""

from __future__ import annotations

from dataclasses import dataclass

from detection.evaluation.metrics import METRICS
from detection.report.reported import Analysis

HEADLINE = ("AP", "AP50", "AP75", "voc_area", "voc07")


@dataclass(frozen=True)
class SummaryData:
    """What `report/summary.html` shows."""

    numbers: list[tuple[str, float]]  # title, value


def build(analysis: Analysis) -> SummaryData:
    """The numbers."""
    metrics = analysis.reported.metrics
    return SummaryData([(METRICS[key].title, metrics[key]) for key in HEADLINE if key in metrics])
