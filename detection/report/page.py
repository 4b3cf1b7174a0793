"""The report of one detector: a folder with index.html, which opens without a server or a network, and its pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from detection.files import plain_json, write_whole
from detection.html import render_page
from detection.report.exports.coco import write_coco
from detection.report.exports.errors_csv import write_errors
from detection.report.exports.thresholds_yaml import write_best_thresholds
from detection.report.folder import INDEX, begin_report, require_report_folder
from detection.report.numbers import write_numbers
from detection.report.reported import Analysis, ReportedDetector, analyse
from detection.report.sections import confusion, curves, errors, pictures, summary, thresholds


@dataclass(frozen=True)
class Section:
    """A part of the page: `report/NAME.html` and `report/NAME.js` show what `build` makes, a dataclass of plain data."""

    name: str
    title: str
    build: Callable[[Analysis], Any]


@dataclass(frozen=True)
class SectionWithFiles:
    """A section that writes files, too: `build` takes the report's folder beside the analysis."""

    name: str
    title: str
    build: Callable[[Analysis, Path], Any]


SECTIONS: tuple[Section | SectionWithFiles, ...] = (
    Section("summary", "Summary", summary.build),
    Section("errors", "Where the AP goes", errors.build),
    Section("thresholds", "Thresholds", thresholds.build),
    Section("confusion", "Confusion matrix", confusion.build),
    Section("curves", "Precision and recall", curves.build),
    SectionWithFiles("pictures", "Images", pictures.build),
)

FILES: tuple[Callable[[Analysis, Path], None], ...] = (write_numbers, write_coco, write_errors, write_best_thresholds)
"""What writes files of a report's folder beside the page."""


@dataclass(frozen=True)
class ShownSection:
    """A section and its data, as the template takes them."""

    name: str
    title: str
    data: dict[str, Any]


@dataclass(frozen=True)
class ReportPage:
    """All that the template `report/report.html` shows."""

    title: str
    sections: list[ShownSection]


def write_report(reported: ReportedDetector, folder: Path) -> Path:
    """Write the report into a folder, which is made; returns its index.html, which is written last.

    Raises DatasetError where the folder holds something and is no report's; OSError.
    """
    require_report_folder(folder)
    return write_analysis(analyse(reported), folder)


def write_analysis(analysis: Analysis, folder: Path) -> Path:
    """`write_report` of what was analysed already."""
    begin_report(folder)
    for write in FILES:
        write(analysis, folder)
    sections = [_shown(each, analysis, folder) for each in SECTIONS]
    index = folder / INDEX
    write_whole(index, render_page("report/report.html", ReportPage(analysis.reported.label, sections)))
    return index


def _shown(section: Section | SectionWithFiles, analysis: Analysis, folder: Path) -> ShownSection:
    data = section.build(analysis) if isinstance(section, Section) else section.build(analysis, folder)
    return ShownSection(section.name, section.title, plain_json(asdict(data)))
