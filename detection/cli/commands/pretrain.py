"""Train a classifier on class folders (the detector's first stage), or go on with a run that was stopped."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

from detection.cli.options import load_trackers, load_training_config, training_parser
from detection.cli.output import describe_errors, exit_code_if_stopped, fetch_weights, tell
from detection.config import load_classifier_config


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    return training_parser("pretrain", __doc__, "a classifier's weights")


def main(argv: Sequence[str] | None = None) -> int:
    """Train; returns 0, or 128 + the number of the signal that stopped the run (130 for Ctrl-C)."""
    options = build_parser().parse_intermixed_args(argv)
    config = load_training_config(options, load_classifier_config)
    trackers = load_trackers(options)
    from detection.pretraining import train_classifier

    find_weights = partial(fetch_weights, kind="classifier")
    result = train_classifier(
        config, resume=options.resume, device=options.device, tell=tell, callbacks=trackers, find_weights=find_weights
    )
    if (code := exit_code_if_stopped(result.training)) is not None:
        return code
    tell(f"validation split: {describe_errors(result.metrics)}")
    tell(f"weights: {result.weights}")
    return 0
