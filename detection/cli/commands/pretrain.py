"""Train a classifier on class folders (the detector's first stage), or go on with a run that was stopped."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from detection.cli.training_options import configured, exit_code_if_stopped, run_parser, tell
from detection.config import load_classifier_config


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    return run_parser("pretrain", "pretrain", __doc__, "a classifier's weights")


def main(argv: Sequence[str] | None = None) -> int:
    """Train; returns 0, or 128 + the number of the signal that stopped the run (130 for Ctrl-C)."""
    options = build_parser().parse_intermixed_args(argv)
    config = configured(options, load_classifier_config)
    from detection.cli.output import fetch_weights
    from detection.pretraining.train import run_pretraining

    if config.model.weights is not None and not options.resume:
        fetch_weights(config.model.weights, "classifier")  # now, with a bar
    result = run_pretraining(config, resume=options.resume, tell=tell)
    if (code := exit_code_if_stopped(result.training)) is not None:
        return code
    tell(f"validation split: {describe_errors(result.metrics)}")
    tell(f"weights: {result.weights}")
    return 0


def describe_errors(metrics: dict[str, float]) -> str:
    """Error fractions in per cent, as papers print them."""
    return f"top-1 error {metrics['top1_error']:.2%}, top-5 error {metrics['top5_error']:.2%}"
