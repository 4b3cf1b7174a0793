"""thresholds.yaml: the score threshold of each class, for `--score-threshold`."""

from __future__ import annotations

from pathlib import Path

from detection.evaluation.thresholds import best_thresholds, write_thresholds
from detection.report.reported import Analysis

THRESHOLDS_FILE = "thresholds.yaml"


def write_best_thresholds(analysis: Analysis, folder: Path) -> None:
    """Write the thresholds with the best F1 into a report's folder. Raises OSError."""
    write_thresholds(folder / THRESHOLDS_FILE, best_thresholds(analysis.matches), analysis.reported.label)
