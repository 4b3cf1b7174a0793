"""Which of two or more detectors is better, and whether that is more than chance: AP differences with 95 % intervals.

The first is the reference. For the intervals the images are drawn again, with replacement, the same for all detectors.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from detection.cli.arguments import CommandParser, fraction, output_file, whole_number
from detection.cli.options import require_distinct, require_nothing_replaced
from detection.cli.output import say
from detection.cli.reporting import add_source_arguments, load_sources, sources_of
from detection.errors import ConfigError, DatasetError
from detection.files import TRAINED_FILES
from detection.terminal import new_console, plain

if TYPE_CHECKING:
    from detection.evaluation.comparison import ClassDifference, Comparison, Difference
    from detection.report.compared import Compared

METRICS = ("AP", "AP50", "AP75", "voc_area", "voc07")  # detection.evaluation.metrics.RESAMPLED_METRICS, without its imports
FAILED_BELOW = 1  # exit code
CLASSES_SHOWN = 5  # of those gained, and of those lost


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = CommandParser(description=__doc__, epilog="Exit code 1: --fail-below was not kept; 2: nothing could be compared.")
    add_source_arguments(parser)
    parser.add_argument(
        "--fail-below",
        type=fraction,
        metavar="X",
        help="exit with 1 where a detector's metric is more than X below the first's; 0.01 is one point of AP",
    )
    parser.add_argument("--metric", choices=METRICS, default="AP", help="what --fail-below looks at; default: %(default)s")
    parser.add_argument(
        "--resamples", type=whole_number(1), default=1000, metavar="N", help="for the intervals; default: %(default)s"
    )
    parser.add_argument("--seed", type=whole_number(0), default=0, metavar="N", help="of the resamples; default: %(default)s")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write all numbers there")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Load, compare, print. Raises ConfigError for a single source, DatasetError where nothing can be measured."""
    options = build_parser().parse_intermixed_args(argv)
    if len(sources_of(options)) < 2:
        raise ConfigError("compare takes two or more: the reference first, then what is compared with it")
    read = [Path(name) for name in sources_of(options)]
    require_distinct(
        options, ["json"], [place for path in read for place in (path, *((path / name) for name in TRAINED_FILES))]
    )
    require_nothing_replaced(options, ["json"], [*read, *([options.annotations] if options.annotations else [])])
    reported = load_sources(options)

    from detection.files import write_json
    from detection.report.compared import compare_reported

    compared = compare_reported(reported, resamples=options.resamples, seed=options.seed)
    if options.fail_below is not None and any(math.isnan(each.metrics[options.metric].value) for each in compared.comparisons):
        raise DatasetError(f"there are no objects to find, so that no {options.metric} can be held to --fail-below")
    if options.json:
        write_json(options.json, compared.as_json())
    console = new_console()
    print_comparisons(compared, console)
    return judge(compared, options.metric, options.fail_below, console)


def judge(compared: Compared, metric: str, limit: float | None, console: Console) -> int:
    """The exit code, after saying what it follows from."""
    if limit is None:
        return 0
    failed = [
        (each.label, comparison.metrics[metric].value)
        for each, comparison in zip(compared.reported[1:], compared.comparisons, strict=True)
        # Without the dust of floating point: 0.49 is 0.01 below 0.5, and not more.
        if round(comparison.metrics[metric].value, 9) < -limit
    ]
    for label, value in failed:
        say(
            f"failed: {metric} of {label} is {-value:.4f} below that of {compared.reported[0].label}, more than {limit:g}",
            console,
        )
    if not failed:
        say(f"passed: no {metric} is more than {limit:g} below that of {compared.reported[0].label}", console)
    return FAILED_BELOW if failed else 0


def print_comparisons(compared: Compared, console: Console) -> None:
    """What the letters stand for, and for each detector but the first its tables."""
    from detection.evaluation.comparison import LEAST_IMAGES

    for name, each in zip(compared.names, compared.reported, strict=True):
        say(f"{name}: {each.label}", console)
    first, *others = compared.names
    for name, comparison in zip(others, compared.comparisons, strict=True):
        print_comparison(comparison, (first, name), compared, console)
    say(f"* the interval excludes 0; with objects in fewer than {LEAST_IMAGES} images nothing is marked", console)


def print_comparison(comparison: Comparison, names: tuple[str, str], compared: Compared, console: Console) -> None:
    """The metrics, and the classes that gained and lost most."""
    images = "1 image" if compared.num_images == 1 else f"{compared.num_images} images"
    metrics = list(comparison.metrics.items())
    console.print(_table(f"{names[1]} vs. {names[0]}, {images}", metrics, names), soft_wrap=True)
    gained, lost = comparison.gained(CLASSES_SHOWN), comparison.lost(CLASSES_SHOWN)
    for title, classes in ((f"{names[1]} gains most, AP", gained), (f"{names[1]} loses most, AP", lost)):
        if classes:
            console.print(_table(title, _named(classes, compared), names), soft_wrap=True)


def _named(classes: Sequence[ClassDifference], compared: Compared) -> list[tuple[str, Difference]]:
    return [(compared.class_names[each.label], each.difference) for each in classes]


def _table(title: str, rows: Sequence[tuple[str, Difference]], names: tuple[str, str]) -> Table:
    table = Table(title=plain(title), title_justify="left")
    table.add_column()
    for head in (*names, f"{names[1]} - {names[0]}", "95 % interval", f"{names[1]} better in"):
        table.add_column(plain(head), justify="right")
    for name, each in rows:
        if math.isnan(each.value):
            table.add_row(plain(name), *["-"] * 5)
            continue
        mark = "*" if each.is_clear else " "
        interval = f"{each.low:+.3f} to {each.high:+.3f}{mark}"
        numbers = f"{each.first:.3f}", f"{each.second:.3f}", f"{each.value:+.3f}", interval, f"{each.better:.0%}"
        table.add_row(plain(name), *map(plain, numbers))
    return table
