"""Top-1 and top-5 error of a classifier on its config's validation split, from the centre crop."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from detection.cli.pretrain import describe_errors
from detection.config_files import load_classifier_config


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="eval-classifier", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the experiment")
    parser.add_argument(
        "--weights", type=Path, required=True, metavar="FILE", help="a classifier's checkpoint, or torchvision's state dict"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write top1_error and top5_error (0..1) there")
    parser.add_argument("overrides", nargs="*", metavar="dotted.key=value", help="e.g. data.val=test")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate, print, and write the JSON that is asked for."""
    options = build_parser().parse_intermixed_args(argv)
    config = load_classifier_config(options.config, options.overrides)
    from detection.pretraining.evaluate import evaluate_checkpoint

    metrics = evaluate_checkpoint(options.weights, config)
    print(f"{config.data.root} {config.data.val}: {describe_errors(metrics)}")
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    return 0
