"""What is wrong with a detector: one page that says it, which opens in any browser without a network.

Of several detectors or files of detections: a page that compares them with the first, and a report of each.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from detection.cli.arguments import CommandParser, output_folder
from detection.cli.output import say
from detection.cli.reporting import add_source_arguments, load_sources, require_not_read, sources_of
from detection.errors import ConfigError
from detection.terminal import new_console

if TYPE_CHECKING:
    from rich.console import Console

    from detection.report.reported import ReportedDetector

DEFAULT_OUTPUT = Path("runs/report")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = CommandParser(description=__doc__)
    add_source_arguments(parser)
    parser.add_argument(
        "--output", type=output_folder, metavar="DIR", help=f"default: RUN/report for one run, else {DEFAULT_OUTPUT}"
    )
    parser.add_argument(
        "--export", choices=("fiftyone",), help="also write the images, objects and detections as a data set for FiftyOne"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Load, write the page, print its first lines."""
    options = build_parser().parse_intermixed_args(argv)
    if options.export is not None and len(sources_of(options)) > 1:
        raise ConfigError("--export goes with one source: name one, or leave it out")
    output = options.output or default_output(sources_of(options))

    require_not_read(options, output)

    from detection.report.folder import require_report_folder

    require_report_folder(output)
    reported = load_sources(options)
    console = new_console()
    if len(reported) == 1:
        write_one(reported[0], output, console, for_fiftyone=options.export == "fiftyone")
    else:
        from detection.report.comparison_page import write_comparison

        say(f"report: {write_comparison(reported, output)}", console)
    return 0


def default_output(names: Sequence[str]) -> Path:
    """`report` in the folder of the only run that is named, else DEFAULT_OUTPUT."""
    from detection.files import find_trained_weights

    folder = Path(names[0])
    return folder / "report" if len(names) == 1 and find_trained_weights(folder) is not None else DEFAULT_OUTPUT


def write_one(reported: ReportedDetector, output: Path, console: Console, *, for_fiftyone: bool) -> None:
    """Print the first screen of a report, and write it."""
    from detection.report.exports.fiftyone import write_fiftyone
    from detection.report.finding import main_finding
    from detection.report.page import write_analysis
    from detection.report.reported import analyse
    from detection.report.sections.summary import head_numbers

    analysis = analyse(reported)
    say(reported.label, console)
    for number in head_numbers(analysis):
        say(f"  {number.title:<10}  {number.text:>8}  {number.note}", console)
    say(main_finding(analysis), console)
    say(f"report: {write_analysis(analysis, output)}", console)
    if for_fiftyone:
        say(f"FiftyOne: {write_fiftyone(analysis, output)}", console)
