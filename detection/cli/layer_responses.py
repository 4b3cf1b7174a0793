"""How strongly the layers of classifiers respond (figure 7): standard deviations after BN, as JSON and as a plot."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from detection.cli.evaluated import model_options
from detection.cli.plots import label_runs, new_figure, save_figure
from detection.config_files import load_classifier_config
from detection.errors import ConfigError


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="layer-responses", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="whose validation images are shown")
    parser.add_argument(
        "--weights", type=Path, nargs="+", required=True, metavar="FILE", help="classifiers; each is the network it records"
    )
    parser.add_argument("--labels", nargs="+", metavar="NAME", help="one for each file; default: names of the run folders")
    parser.add_argument("--images", type=int, default=1000, metavar="N", help="validation images; default: 1000")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every layer's figure there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw them, in their order and by magnitude (.png, .svg)")
    parser.add_argument("overrides", nargs="*", metavar="dotted.key=value", help="e.g. data.root=/data/cifar10")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write what was asked for."""
    options = model_options(build_parser(), argv)
    if options.images < 1:
        raise ConfigError(f"--images must be at least 1, got {options.images}")
    labels = label_runs([path.parent for path in options.weights], options.labels)
    config = load_classifier_config(options.config, options.overrides)
    from detection.evaluation.detection_files import write_json
    from detection.pretraining.responses import responses_of_checkpoints, summary

    found = dict(zip(labels, responses_of_checkpoints(options.weights, config, options.images), strict=True))
    table = Table(title="standard deviation after BN, before ReLU or addition, of 3x3 layers")
    for column in ("network", "layers", "mean", "least", "greatest"):
        table.add_column(column, justify="left" if column == "network" else "right")
    for label, layers in found.items():
        values = [value for _, value in layers]
        figures = (sum(values) / len(values), min(values), max(values))
        table.add_row(label, str(len(values)), *(f"{value:.3f}" for value in figures))
    Console(highlight=False).print(table)
    if options.json:
        networks = [
            {"label": label, "weights": str(path), **summary(layers)}
            for (label, layers), path in zip(found.items(), options.weights, strict=True)
        ]
        write_json(options.json, {"images": options.images, "networks": networks})
    if options.plot:
        draw(found, options.plot)
        print(options.plot)
    return 0


def draw(found: Mapping[str, Sequence[tuple[str, float]]], file: Path) -> None:
    """Figure 7's two panels: the layers in their order, and sorted by magnitude."""
    figure = new_figure(9, 7)
    panels = figure.subplots(2, 1)
    for panel, title in zip(panels, ("layers in their order", "layers sorted by magnitude"), strict=True):
        for label, layers in found.items():
            values = [value for _, value in layers]
            drawn = values if panel is panels[0] else sorted(values, reverse=True)
            panel.plot(range(1, len(drawn) + 1), drawn, label=label, linewidth=1.3)
        panel.set(xlabel=title, ylabel="standard deviation")
        panel.grid(alpha=0.3)
        panel.legend()
    save_figure(figure, file)
