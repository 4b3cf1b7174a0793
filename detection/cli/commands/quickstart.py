"""The whole story in one command: pre-train a classifier, fine-tune a detector from it, evaluate, draw."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from detection.cli.arguments import CommandParser, output_folder
from detection.cli.options import add_device_argument
from detection.cli.output import say, tell
from detection.config import load_classifier_config, load_config
from detection.terminal import new_console

if TYPE_CHECKING:
    from detection.training.quickstart import QuickstartResult

CONFIG, PRETRAIN_CONFIG = "resdet:quickstart", "resdet:quickstart_pretrain"


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = CommandParser(description=__doc__)
    parser.add_argument("--config", default=CONFIG, help="the detection stage; default: %(default)s")
    parser.add_argument("--pretrain-config", default=PRETRAIN_CONFIG, help="the classification stage; default: %(default)s")
    parser.add_argument("--output-dir", type=output_folder, default=Path("runs/quickstart"))
    add_device_argument(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Make the sample data, run both stages (or what is left of them), evaluate, draw, and write summary.json."""
    options = build_parser().parse_args(argv)
    pretrain_config = load_classifier_config(options.pretrain_config)
    config = load_config(options.config)
    from detection.device import find_device
    from detection.training.quickstart import make_sample_data, run_quickstart

    find_device(options.device)  # before data are made
    if (options.config, options.pretrain_config) == (CONFIG, PRETRAIN_CONFIG):
        make_sample_data(tell)
    console = new_console()
    result = run_quickstart(
        config, pretrain_config, options.output_dir, device=options.device, tell=tell, on_stage=console.rule
    )
    console.print(results_table(result))
    for path in (*result.pictures, result.summary):
        say(path, console)
    return 0


def results_table(result: QuickstartResult) -> Table:
    """The metrics and the seconds, for people."""
    from detection.evaluation.metrics import METRICS

    table = Table(title="test split: handwriting never seen in training")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for key, value in result.metrics.items():
        table.add_row(METRICS[key].title, f"{value:.3f}")
    table.add_section()
    for name, seconds in result.seconds.items():
        table.add_row(f"seconds: {name}", f"{seconds:.0f}")
    table.add_row("seconds: all", f"{sum(result.seconds.values()):.0f}")
    return table
