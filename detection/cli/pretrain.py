"""Train a classifier on class folders (the detector's first stage), or go on with a run that was stopped."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from detection.config import ClassifierConfig
from detection.config_files import load_classifier_config
from detection.errors import ConfigError


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="pretrain",
        description=__doc__,
        epilog="Several GPUs or machines: torchrun --nproc_per_node=N tools/pretrain.py ... See docs/pretraining.md.",
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the experiment")
    parser.add_argument("--resume", action="store_true", help="go on from last.pt in the output folder")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="a new run that starts from a classifier's weights")
    parser.add_argument("--output-dir", type=Path, metavar="DIR", help="where checkpoints and logs go")
    parser.add_argument("overrides", nargs="*", metavar="dotted.key=value", help="e.g. train.learning_rate=0.05")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Train; returns 0, or 128 + the number of the signal that stopped the run (130 for Ctrl-C)."""
    from detection.engine.distributed import World
    from detection.pretraining.train import run_pretraining

    options = build_parser().parse_intermixed_args(argv)
    result = run_pretraining(configured(options), resume=options.resume)
    is_main = World.from_environment().is_main
    if result.training.signal is not None:
        if is_main:
            print(f"stopped at step {result.training.steps}; to go on, give the same command with --resume")
        return 128 + result.training.signal
    if is_main:
        print(f"validation split: {describe_errors(result.metrics)}")
        print(f"weights: {result.weights}")
    return 0


def configured(options: argparse.Namespace) -> ClassifierConfig:
    """The config that the command line asks for. Raises ConfigError."""
    if options.resume and options.weights is not None:
        raise ConfigError("--resume goes on with a run, --weights starts a new one from a file: give one of the two")
    config = load_classifier_config(options.config, options.overrides)
    if options.weights is not None:
        config = config.model_copy(update={"model": config.model.model_copy(update={"weights": options.weights})})
    if options.output_dir is not None:
        config = config.model_copy(update={"output_dir": options.output_dir})
    return config


def describe_errors(metrics: dict[str, float]) -> str:
    """Error fractions in per cent, as papers print them."""
    return f"top-1 error {metrics['top1_error']:.2%}, top-5 error {metrics['top5_error']:.2%}"
