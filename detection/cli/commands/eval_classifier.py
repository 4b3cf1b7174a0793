"""Top-1 and top-5 error of a classifier, or of an ensemble, on its config's validation split, in the views of its `test`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from detection.cli.arguments import CommandParser, any_path, output_file
from detection.cli.options import add_device_argument, parse_with_overrides, require_distinct, require_nothing_replaced
from detection.cli.output import describe_errors, fetch_weights, say
from detection.config import load_classifier_config


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = CommandParser(description=__doc__)
    parser.add_argument("--config", type=any_path, required=True, metavar="FILE", help="the experiment")
    parser.add_argument(
        "--weights",
        type=any_path,
        nargs="+",
        required=True,
        metavar="FILE",
        help="a classifier's checkpoint, or torchvision's state dict; several: the mean of their probabilities",
    )
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write top1_error and top5_error (0..1) there")
    add_device_argument(parser)
    parser.add_argument("overrides", nargs="*", metavar="dotted.key=value", help="e.g. test.views=ten_crop")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate, print, and write the JSON that is asked for."""
    options = parse_with_overrides(build_parser(), argv)
    require_distinct(options, ["config", "weights", "json"])
    config = load_classifier_config(options.config, options.overrides)
    read = [config.data.root, config.data.val_labels, config.data.class_order]
    require_nothing_replaced(options, ["json"], [*options.weights, *(path for path in read if path is not None)])
    from detection.files import write_json
    from detection.pretraining.evaluate import evaluate_checkpoints

    metrics = evaluate_checkpoints([fetch_weights(file, "classifier") for file in options.weights], config, options.device)
    split = config.data.val if config.data.hold_out == 0 else f"{config.data.hold_out} images held out"
    # The file first: a terminal may fail.
    if options.json is not None:
        write_json(options.json, metrics)
    say(f"{config.data.root} {split}, {config.test.views}: {describe_errors(metrics)}")
    return 0
