"""How strongly the layers of classifiers respond (figure 7): standard deviations after BN, as JSON and as a plot."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from detection.cli.arguments import CommandParser, any_path, output_file, whole_number
from detection.cli.options import (
    add_device_argument,
    is_override,
    parse_with_overrides,
    require_distinct,
    require_nothing_replaced,
)
from detection.cli.output import fetch_weights, say
from detection.config import load_classifier_config
from detection.terminal import new_console, plain

if TYPE_CHECKING:
    from detection.analysis.layer_responses import LayerResponse


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = CommandParser(description=__doc__)
    parser.add_argument("--config", type=any_path, required=True, metavar="FILE", help="whose validation images are shown")
    parser.add_argument(
        "--weights", type=any_path, nargs="+", required=True, metavar="FILE", help="classifiers; each is the network it records"
    )
    parser.add_argument("--labels", nargs="+", metavar="NAME", help="one for each file; default: names of folders or files")
    parser.add_argument(
        "--images", type=whole_number(1), default=1000, metavar="N", help="validation images; default: 1000; an even selection"
    )
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write every layer's figure there")
    parser.add_argument(
        "--plot", type=output_file, metavar="FILE", help="draw them, in their order and by magnitude (.png, .svg, .pdf, .jpg)"
    )
    add_device_argument(parser)
    parser.add_argument("overrides", nargs="*", metavar="dotted.key=value", help="e.g. data.root=/data/cifar10")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write what was asked for."""
    options = parse_with_overrides(build_parser(), argv)
    if options.labels is not None:
        options.labels, overrides = split_labels(options.labels, len(options.weights))
        options.overrides = [*options.overrides, *overrides]

    require_distinct(options, ["config", "weights", "json", "plot"])
    from detection.analysis.plots import label_weights, require_picture

    if options.plot:
        require_picture(options.plot)
    labels = label_weights(options.weights, options.labels)
    config = load_classifier_config(options.config, options.overrides)
    read = [config.data.root, config.data.val_labels, config.data.class_order]
    require_nothing_replaced(options, ["json", "plot"], [*options.weights, *(path for path in read if path is not None)])

    from detection.analysis.layer_responses import plot_layer_responses, responses_of_checkpoints
    from detection.files import write_json

    files = [fetch_weights(path, "classifier") for path in options.weights]
    num_images, responses = responses_of_checkpoints(files, config, options.images, options.device)
    networks = dict(zip(labels, responses, strict=True))
    # The file first: a terminal may fail.
    if options.json:
        rows = [
            {"label": label, "weights": str(path), **as_json(layers)}
            for label, path, layers in zip(labels, options.weights, responses, strict=True)
        ]
        write_json(options.json, {"images": num_images, "networks": rows})
    new_console().print(summary_table(networks, num_images))
    if options.plot:
        plot_layer_responses(networks, options.plot)
        say(options.plot)
    return 0


def split_labels(labels: Sequence[str], count: int) -> tuple[list[str], list[str]]:
    """`count` labels and the overrides after them. If anything else comes after them, all are labels."""
    rest = list(labels[count:])
    if all(map(is_override, rest)):
        return list(labels[:count]), rest
    return list(labels), []


def summary_table(networks: Mapping[str, Sequence[LayerResponse]], num_images: int) -> Table:
    """The number of layers and the mean, least and greatest response, a row for each network."""
    from detection.analysis.layer_responses import mean_response

    table = Table(title=f"standard deviation of 3x3 layers after BN, before ReLU or addition; {num_images} images")
    for column in ("network", "layers", "mean", "least", "greatest"):
        table.add_column(column, justify="left" if column == "network" else "right")
    for label, responses in networks.items():
        values = [response.deviation for response in responses]
        summary = (mean_response(responses), min(values), max(values))
        table.add_row(plain(label), str(len(values)), *(f"{value:.3f}" for value in summary))
    return table


def as_json(responses: Sequence[LayerResponse]) -> dict[str, object]:
    """A network's part of the JSON file."""
    from detection.analysis.layer_responses import mean_response

    layers = [{"name": response.layer, "std": round(response.deviation, 5)} for response in responses]
    return {"mean": mean_response(responses), "layers": layers}
