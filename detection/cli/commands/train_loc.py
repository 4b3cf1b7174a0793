"""Train an ImageNet localiser (RPN, its proposals, R-CNN) and measure it, or go on with a run that was stopped."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from rich.table import Table

from detection.cli.options import load_trackers, load_training_config, training_parser
from detection.cli.output import fetch_weights, tell, tell_stopped
from detection.cli.pretrained import add_pretrain_argument, train_after_classifier
from detection.config import load_loc_config
from detection.terminal import plain

if TYPE_CHECKING:
    from detection.config import LocConfig
    from detection.localisation.results import LocRow
    from detection.trackers import Tracker


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = training_parser("train_loc", __doc__, "a classifier's weights")
    add_pretrain_argument(parser, "both stages")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Train; returns 0, or 128 + the number of the signal that stopped the run (130 for Ctrl-C)."""
    options = build_parser().parse_intermixed_args(argv)
    config = load_training_config(options, load_loc_config)
    trackers = load_trackers(options)
    from detection.localisation.train import require_no_other_localiser, stage_folders

    return train_after_classifier(
        options,
        config,
        config.rpn_train,
        folders=stage_folders(config.output_dir),
        require_no_other_run=partial(require_no_other_localiser, config.output_dir),
        callbacks=trackers,
        train=partial(_train, trackers, options.resume, options.device),
    )


def _train(trackers: Sequence[Tracker], resume: bool, device: str, config: LocConfig) -> int:
    """Train the localiser and print its errors; returns the exit code."""
    from detection.localisation import train_localiser

    find_weights = partial(fetch_weights, kind="classifier")
    result = train_localiser(config, resume=resume, device=device, tell=tell, callbacks=trackers, find_weights=find_weights)
    place = f"in stage {result.stage}" + (f" at step {result.steps}" if result.steps else "")
    if result.signal is not None:
        return tell_stopped(result.signal, place)
    if result.stopped_by is not None:
        tell(f"ended {place}: {result.stopped_by}; --resume goes on")
    if result.rows:
        tell(rows_table(result.rows))
    tell(f"checkpoints, logs and results.json: {config.output_dir}")
    return 0


def rows_table(rows: Sequence[LocRow]) -> Table:
    """The table of errors, for people, beside the paper's."""
    table = Table(title="ImageNet CLS-LOC, errors in per cent; in brackets the paper's, of ResNet-101")
    table.add_column("")
    names = {"gt_class_error": "true class", "localisation_error": "top 5", "classification_error": "class, top 5"}
    for title in names.values():
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(plain(row.title), *(_percent(getattr(row, name), row.paper.get(name)) for name in names))
    return table


def _percent(error: float | None, paper: float | None) -> str:
    own = "" if error is None else f"{100 * error:.2f}"
    return own if paper is None else f"{own} ({100 * paper:.1f})".strip()
