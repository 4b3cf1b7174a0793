"""The numbers of a report's first screen as a file, report.json, for programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from detection.evaluation.tide import Fix
from detection.files import write_json
from detection.report.finding import main_finding
from detection.report.folder import MARK, REPORT_FILE
from detection.report.reported import Analysis


@dataclass(frozen=True)
class Counts:
    """How much a report is about."""

    images: int
    objects: int  # to find
    ignored_objects: int  # crowd and difficult
    detections: int

    @classmethod
    def of(cls, analysis: Analysis) -> Counts:
        """Those of a report; detections as they were given, also beyond the best 100 of an image and a class."""
        ignored = analysis.matches.objects.ignored
        found = sum(map(len, analysis.reported.detections.values()))
        return cls(analysis.matches.num_images, int((~ignored).sum()), int(ignored.sum()), found)


def write_numbers(analysis: Analysis, folder: Path) -> None:
    """Write report.json. Raises OSError.

    Metrics are those of METRICS, null where there was nothing to measure; `error_gains` is what the AP at IoU 0.5 would gain if
    all errors of a kind were put right (TIDE's dAP), in [0, 1].
    """
    reported = analysis.reported
    content = {
        **MARK,
        "label": reported.label,
        **asdict(Counts.of(analysis)),
        "latency": None if reported.latency is None else asdict(reported.latency),
        "finding": main_finding(analysis),
        "error_gains": {fix.name.lower(): gain for fix, gain in zip(Fix, analysis.tide.gains.tolist(), strict=True)},
        "metrics": {key: value if value >= 0 else None for key, value in reported.metrics.items()},
        "class_ap": {key: dict(values) for key, values in reported.class_ap.items()},
    }
    write_json(folder / REPORT_FILE, content)
