"""The folder of a report: what may be replaced there, and a file by which it is known."""

from __future__ import annotations

from pathlib import Path

from backbones.errors import shorten
from detection.errors import DatasetError
from detection.files import is_file, read_json, write_json

INDEX = "index.html"
REPORT_FILE = "report.json"
"""The numbers of a report, and the mark of its folder: the first file that is written, as the page is the last."""

MARK = {"format": "resdet report", "version": 1}
"""The first keys of REPORT_FILE."""

_MAX_BYTES = 1 << 26


def begin_report(folder: Path) -> None:
    """Make the folder and mark it as a report's; the page of an older one goes, other files in it stay.

    A report that fails leaves no page, and can be written again. Raises DatasetError as `require_report_folder`; OSError.
    """
    require_report_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / REPORT_FILE, MARK)
    (folder / INDEX).unlink(missing_ok=True)


def require_report_folder(folder: Path) -> None:
    """Raise DatasetError if the folder holds something and is no report's: nobody's files are mixed with a report's."""
    if folder.is_dir() and any(folder.iterdir()) and not is_report(folder):
        raise DatasetError(f"{shorten(str(folder))} is not empty and holds no report (no {REPORT_FILE}): name another folder")


def is_report(folder: Path) -> bool:
    """Whether a report was written, or begun, in this folder."""
    if not is_file(folder / REPORT_FILE):
        return False
    try:
        content = read_json(folder / REPORT_FILE, max_bytes=_MAX_BYTES)
    except DatasetError:
        return False
    return isinstance(content, dict) and content.get("format") == MARK["format"]
