"""ImageNet CLS-LOC's errors of submitted files: a line per image, up to five groups "label xmin ymin xmax ymax"."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from detection.cli.arguments import CommandParser, any_path, output_file
from detection.cli.options import require_distinct
from detection.terminal import new_console

if TYPE_CHECKING:
    from detection.evaluation.ilsvrc import LocResult


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = CommandParser(prog=f"{Path(sys.argv[0]).name} loc", description=__doc__)
    parser.add_argument("--detections", type=any_path, required=True, metavar="FILE", help="what was found, as it is submitted")
    parser.add_argument(
        "--devkit", type=any_path, required=True, metavar="DIR", help="the development kit: its data/ has maps, ground truth"
    )
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write the numbers")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate, write, print."""
    options = build_parser().parse_intermixed_args(argv)
    require_distinct(options, ["detections", "json"])

    from detection.evaluation.ilsvrc_files import evaluate_loc_files
    from detection.files import write_json

    result = evaluate_loc_files(options.devkit, options.detections)
    # The file first: a terminal may fail.
    if options.json:
        write_json(options.json, result.as_json())
    new_console().print(loc_table(result))
    return 0


def loc_table(result: LocResult) -> Table:
    """The errors by the number of guesses."""
    table = Table(title="ImageNet CLS-LOC, errors in per cent")
    table.add_column("")
    numbers = range(1, len(result.localisation_error) + 1)
    for number in numbers:
        table.add_column(f"top {number}", justify="right")
    for title, errors in (("localisation", result.localisation_error), ("classification", result.classification_error)):
        table.add_row(title, *(f"{100 * error:.2f}" for error in errors))
    table.add_row("true class, its first box", f"{100 * result.gt_class_error:.2f}", *("" for _ in numbers[1:]))
    return table
