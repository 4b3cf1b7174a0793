"""Train a detector, or go on with a run that was stopped.

The experiment is a config, `resdet train my.yaml`, or a folder of labelled images, for which one is made that fits it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from rich.table import Table

from detection.cli.options import load_trackers, load_training_config, take_config_argument, training_parser
from detection.cli.output import exit_code_if_stopped, fetch_weights, tell
from detection.cli.pretrained import add_pretrain_argument, train_after_classifier
from detection.config import load_config, override_config

if TYPE_CHECKING:
    from detection.config import Config
    from detection.engine.result import TrainResult
    from detection.trackers import Tracker

SHOWN_METRICS = ("AP", "AP50", "AP75", "mask_AP", "mask_AP50", "voc_area", "voc07", "mask_voc50")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = training_parser("train_net", __doc__, "a classifier's or a detector's weights")
    add_pretrain_argument(parser, "the detector")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Train; returns 0, or 128 + the number of the signal that stopped the run (130 for Ctrl-C)."""
    options = build_parser().parse_intermixed_args(argv)
    trackers = load_trackers(options)
    is_folder = take_config_argument(options).is_dir()
    config = config_for_folder(options) if is_folder else load_training_config(options, load_config)
    from detection.training.alternating import require_no_other_training, run_folders

    return train_after_classifier(
        options,
        config,
        config.train,
        folders=run_folders(config),
        require_no_other_run=partial(require_no_other_training, config),
        callbacks=trackers,
        train=partial(_train, trackers, options.resume, options.device),
    )


def config_for_folder(options: argparse.Namespace) -> Config:
    """A config that fits a folder of labelled images, as `resdet new` writes it; with --resume that of its run.

    Raises ConfigError, DatasetError or CheckpointError.
    """
    from detection.training.new import STANDARD_WEIGHTS, new_experiment, run_folder

    output_dir = options.output_dir or run_folder(options.config)
    if options.resume:
        options.config = output_dir / "config.yaml"
        return load_training_config(options, load_config)
    weights = options.weights or STANDARD_WEIGHTS
    new = new_experiment(options.config, weights, output_dir=output_dir, device=options.device)
    for sentence in new.findings:
        tell(sentence)
    return override_config(new.config, options.overrides)


def _train(trackers: Sequence[Tracker], resume: bool, device: str, config: Config) -> int:
    """Train the detector and print how it went; returns the exit code."""
    from detection.training import train_detector

    result = train_detector(config, resume=resume, device=device, tell=tell, callbacks=trackers, find_weights=fetch_weights)
    if (code := exit_code_if_stopped(result)) is not None:
        return code
    if result.metrics:
        tell(metrics_table(result))
    tell(f"checkpoints and logs: {config.output_dir}")
    return 0


def metrics_table(result: TrainResult) -> Table:
    """The last evaluation, for people."""
    from detection.evaluation.metrics import METRICS
    from detection.training.fit import BEST_METRIC

    table = Table(title=f"validation split after {result.steps} steps, {result.seconds:.0f} s")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for key in SHOWN_METRICS:
        if key in result.metrics:
            table.add_row(METRICS[key].title, f"{result.metrics[key]:.4f}")
    if result.best is not None:
        table.add_row(f"best {METRICS[BEST_METRIC].title} (best.pt)", f"{result.best:.4f}")
    return table
