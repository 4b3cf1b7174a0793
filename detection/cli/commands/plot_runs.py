"""Training curves of several runs in one plot (figure 6), from their metrics.jsonl.

Solid: the metric of the evaluations. Dashed, in the run's colour: the curve of the training, smoothed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from detection.cli.arguments import CommandParser, any_path, output_file, whole_number
from detection.cli.options import require_distinct, require_nothing_replaced
from detection.cli.output import say


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = CommandParser(description=__doc__)
    parser.add_argument("runs", type=any_path, nargs="+", metavar="DIR", help="output folders of runs")
    parser.add_argument("--labels", nargs="+", metavar="NAME", help="one for each run; default: the folders' names")
    parser.add_argument("--metric", metavar="NAME", help="of the evaluations: top1_error, AP, ...; default: what all have")
    parser.add_argument("--train-metric", metavar="NAME", help="of the training: loss, train_top1_error, ...")
    parser.add_argument(
        "--smooth", type=whole_number(1), default=5, metavar="N", help="log intervals averaged in training curves; default: 5"
    )
    parser.add_argument("--output", type=output_file, default=Path("curves.png"), metavar="FILE", help="default: curves.png")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write the drawn curves there")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Read, draw, write."""
    options = build_parser().parse_args(argv)
    require_distinct(options, ["output", "json"], [place for run in options.runs for place in (run, run / "metrics.jsonl")])
    require_nothing_replaced(options, ["output", "json"], [run / "metrics.jsonl" for run in options.runs])
    from detection.analysis.curves import plot_curves, select_curves
    from detection.analysis.plots import require_picture
    from detection.files import write_json

    require_picture(options.output)
    plot = select_curves(options.runs, options.labels, options.metric, options.train_metric, options.smooth)
    # The numbers first: a plot or a terminal may fail.
    if options.json:
        write_json(options.json, plot.as_json())
    plot_curves(plot, options.output)
    say(options.output)
    return 0
