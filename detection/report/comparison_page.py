"""The page of several detectors on the same images: a folder with index.html, and each one's full report.

Detectors are called A, B, C, ... on the page, whatever their labels are. A is the reference.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from detection.evaluation.comparison import LEAST_IMAGES, ClassDifference, Difference
from detection.evaluation.metrics import METRICS, RESAMPLED_METRICS
from detection.files import plain_json, write_json, write_whole
from detection.html import render_page, signed_text
from detection.report.compared import Compared, compare_matched, on_one_dataset
from detection.report.disagreement_pictures import DisagreementFigures, remove_pictures, write_disagreements
from detection.report.folder import INDEX, MARK, REPORT_FILE, begin_report, require_report_folder
from detection.report.overlaid_curves import OverlaidCurves, overlay_curves
from detection.report.page import write_analysis
from detection.report.reported import ReportedDetector, analyse

MAX_CLASSES = 10
"""Shown as bars: of those gained, and of those lost. The table has all."""
_SLUG_LENGTH = 40


@dataclass(frozen=True)
class ShownDetector:
    """A row of the overview."""

    name: str  # "A"
    label: str
    report: str  # the address of its own report
    metrics: list[float]  # in the order of RESAMPLED_METRICS


@dataclass(frozen=True)
class ShownDifference:
    """A row of numbers, and its interval as places on an axis: -1 its left end, 0 the middle, 1 its right end."""

    title: str
    difference: Difference
    places: tuple[float, float, float]  # low, value, high

    @property
    def verdict(self) -> str:
        """What a marked row is marked as."""
        return verdict(self.difference)


@dataclass(frozen=True)
class ShownRows:
    """Rows on one axis."""

    limit: float  # the axis reaches from minus to plus this
    rows: list[ShownDifference]


@dataclass(frozen=True)
class ClassTable:
    """All classes of a comparison, a column each."""

    labels: list[int]
    images: list[int]
    first: list[float]
    second: list[float]
    low: list[float]
    high: list[float]
    better: list[float]
    verdicts: list[str]


@dataclass(frozen=True)
class ShownComparison:
    """A detector beside the reference."""

    name: str
    label: str
    headline: str
    metrics: ShownRows
    classes: ShownRows
    num_classes: int
    table: ClassTable
    figures: DisagreementFigures


@dataclass(frozen=True)
class ComparisonPage:
    """All that the template `report/comparison.html` shows."""

    title: str
    metric_titles: list[str]
    detectors: list[ShownDetector]
    comparisons: list[ShownComparison]
    curves: list[OverlaidCurves]
    num_images: int
    num_classes: int
    resamples: int
    few_images: int  # with fewer, intervals say little
    data: dict[str, Any]  # what the script reads


def write_comparison(reported: Sequence[ReportedDetector], folder: Path, *, resamples: int = 1000, seed: int = 0) -> Path:
    """Write the page of two or more detectors into a folder, which is made, with a report of each; returns its index.html.

    The first is the reference. Raises DatasetError, naming both, where two have not the same images, classes and objects, and
    where the folder holds something and is no report's; nothing is written then. Raises OSError.
    """
    require_report_folder(folder)
    analyses = [analyse(each) for each in on_one_dataset(reported)]
    compared = compare_matched(
        [each.reported for each in analyses], [each.matches for each in analyses], resamples=resamples, seed=seed
    )
    begin_report(folder)
    remove_pictures(folder)
    page = _page(compared, folder, resamples)
    for analysis, shown in zip(analyses, page.detectors, strict=True):
        write_analysis(analysis, folder / Path(shown.report).parent)
    write_json(folder / REPORT_FILE, {**MARK, **compared.as_json()})
    index = folder / INDEX
    write_whole(index, render_page("report/comparison.html", page))
    return index


def folder_name(number: int, label: str) -> str:
    """A name for a report's folder that any file system takes, distinct for each number: "2-runs-mine"."""
    words = re.sub(r"[^A-Za-z0-9]+", "-", label).strip("-")
    return f"{number + 1}-{words[-_SLUG_LENGTH:].strip('-') or 'detector'}".lower()


def verdict(difference: Difference) -> str:
    """ "better" or "worse" where the interval excludes 0, else nothing."""
    if not difference.is_clear:
        return ""
    return "better" if difference.value > 0 else "worse"


def _page(compared: Compared, folder: Path, resamples: int) -> ComparisonPage:
    detectors = [_detector(compared, number) for number in range(len(compared.reported))]
    comparisons = [_comparison(compared, number, folder) for number in range(1, len(detectors))]
    names = compared.matches[0].class_names
    curves = overlay_curves([each.run for each in compared.reported])
    data = {
        "names": names,
        "detectors": [each.name for each in detectors],
        "tables": [asdict(each.table) for each in comparisons],
        "curves": [asdict(each) for each in curves],
    }
    return ComparisonPage(
        f"{detectors[1].label} vs. {detectors[0].label}" if len(detectors) == 2 else f"{len(detectors)} detectors compared",
        [METRICS[key].title for key in RESAMPLED_METRICS],
        detectors,
        comparisons,
        curves,
        compared.num_images,
        len(names),
        resamples,
        LEAST_IMAGES,
        plain_json(data),
    )


def _detector(compared: Compared, number: int) -> ShownDetector:
    label = compared.reported[number].label
    of_any = compared.comparisons[max(number - 1, 0)].metrics
    values = [of_any[key].second if number else of_any[key].first for key in RESAMPLED_METRICS]
    return ShownDetector(compared.names[number], label, f"{folder_name(number, label)}/{INDEX}", values)


def _comparison(compared: Compared, number: int, folder: Path) -> ShownComparison:
    comparison, names = compared.comparisons[number - 1], compared.matches[0].class_names
    pair = compared.names[0], compared.names[number]
    metrics = [(METRICS[key].title, comparison.metrics[key]) for key in RESAMPLED_METRICS]
    extremes = [*comparison.gained(MAX_CLASSES), *reversed(comparison.lost(MAX_CLASSES))]
    return ShownComparison(
        pair[1],
        compared.reported[number].label,
        headline(comparison.metrics["AP"], pair),
        _rows(metrics),
        _rows([(names[each.label], each.difference) for each in extremes]),
        len(comparison.classes),
        _table(comparison.classes),
        write_disagreements(compared, number, pair, folder),
    )


def headline(difference: Difference, names: tuple[str, str]) -> str:
    """The outcome in one sentence."""
    if math.isnan(difference.value):
        return "There are no objects to find: nothing can be compared."
    first, second = names
    value, low, high = map(signed_text, (difference.value, difference.low, difference.high))
    interval = f"{value}, 95 % interval {low} to {high}"
    if difference.is_clear:
        return f"{second} is {verdict(difference)} than {first}: AP {interval}."
    return f"The AP of {second} and {first} does not differ clearly: {interval}."


def _rows(pairs: Sequence[tuple[str, Difference]]) -> ShownRows:
    limit = axis_limit([end for _, each in pairs for end in (each.low, each.value, each.high)])
    rows = [
        ShownDifference(title, each, (each.low / limit, each.value / limit, each.high / limit))
        for title, each in pairs
        if not math.isnan(each.value)
    ]
    return ShownRows(limit, rows)


def axis_limit(values: Sequence[float]) -> float:
    """The smallest of 0.01, 0.02, 0.05, 0.1, ..., 1 that no value is beyond."""
    greatest = max((abs(value) for value in values if not math.isnan(value)), default=0.0)
    return next((limit for limit in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if greatest <= limit), 1.0)


def _table(classes: Sequence[ClassDifference]) -> ClassTable:
    differences = [each.difference for each in classes]
    return ClassTable(
        labels=[each.label for each in classes],
        images=[each.num_images for each in differences],
        first=[round(each.first, 4) for each in differences],
        second=[round(each.second, 4) for each in differences],
        low=[round(each.low, 4) for each in differences],
        high=[round(each.high, 4) for each in differences],
        better=[round(each.better, 4) for each in differences],
        verdicts=[verdict(each) for each in differences],
    )
