"""How strongly the layers of classifiers respond (figure 7): standard deviations after BN, as JSON and as a plot."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from detection.analysis.plots import colours, label_runs, new_figure, require_picture, save_figure
from detection.cli.options import is_override, parse_with_overrides
from detection.config import load_classifier_config
from detection.errors import ConfigError


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="layer-responses", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="whose validation images are shown")
    parser.add_argument(
        "--weights", type=Path, nargs="+", required=True, metavar="FILE", help="classifiers; each is the network it records"
    )
    parser.add_argument("--labels", nargs="+", metavar="NAME", help="one for each file; default: names of folders or files")
    parser.add_argument(
        "--images", type=int, default=1000, metavar="N", help="validation images; default: 1000; an even selection"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every layer's figure there")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw them, in their order and by magnitude (.png, .svg, .pdf, .jpg)"
    )
    parser.add_argument("overrides", nargs="*", metavar="dotted.key=value", help="e.g. data.root=/data/cifar10")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write what was asked for."""
    options = parse_with_overrides(build_parser(), argv)
    if options.labels is not None:
        labels, overrides = split_labels(options.labels, len(options.weights))
        options.labels, options.overrides = labels, [*options.overrides, *overrides]
    if options.images < 1:
        raise ConfigError(f"--images must be at least 1, got {options.images}")
    if options.plot:
        require_picture(options.plot)
    labels = label_weights(options.weights, options.labels)
    config = load_classifier_config(options.config, options.overrides)
    from detection.analysis.layer_responses import responses_of_checkpoints, summary
    from detection.cli.output import fetch_weights
    from detection.files import write_json

    files = [fetch_weights(path, "classifier") for path in options.weights]
    images, responses = responses_of_checkpoints(files, config, options.images)
    found = dict(zip(labels, responses, strict=True))
    Console(highlight=False).print(summary_table(found, images))
    if options.json:
        networks = [
            {"label": label, "weights": str(path), **summary(layers)}
            for (label, layers), path in zip(found.items(), options.weights, strict=True)
        ]
        write_json(options.json, {"images": images, "networks": networks})
    if options.plot:
        draw(found, options.plot)
        print(options.plot)
    return 0


def split_labels(labels: Sequence[str], count: int) -> tuple[list[str], list[str]]:
    """`count` labels, and the overrides that stand behind them; too many labels stay what they are."""
    behind = list(labels[count:])
    return (list(labels[:count]), behind) if all(map(is_override, behind)) else (list(labels), [])


def label_weights(files: Sequence[Path], labels: Sequence[str] | None) -> list[str]:
    """A name for each file: its run's folder; where several lie in one folder, or are names of the zoo, their own names."""
    folders = {file.resolve().parent for file in files if file.is_file()}
    own = len(folders) < len(files)
    return label_runs([file.with_suffix("") if own else file.parent for file in files], labels)


def summary_table(found: Mapping[str, Sequence[tuple[str, float]]], images: int) -> Table:
    """A row a network."""
    table = Table(title=f"standard deviation of 3x3 layers after BN, before ReLU or addition; {images} images")
    for column in ("network", "layers", "mean", "least", "greatest"):
        table.add_column(column, justify="left" if column == "network" else "right")
    for label, layers in found.items():
        values = [value for _, value in layers]
        figures = (sum(values) / len(values), min(values), max(values))
        table.add_row(escape(label), str(len(values)), *(f"{value:.3f}" for value in figures))
    return table


def draw(found: Mapping[str, Sequence[tuple[str, float]]], file: Path) -> None:
    """Figure 7's two panels: the layers in their order, and sorted by magnitude."""
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(9, 7)
    panels = figure.subplots(2, 1)
    for panel, title in zip(panels, ("layers in their order", "layers sorted by magnitude"), strict=True):
        for colour, (label, layers) in zip(colours(len(found)), found.items(), strict=True):
            values = [value for _, value in layers]
            drawn = values if panel is panels[0] else sorted(values, reverse=True)
            panel.plot(range(1, len(drawn) + 1), drawn, ".-", color=colour, label=label, linewidth=1.3, markersize=4)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))  # half layers do not exist
        panel.set(xlabel=title, ylabel="standard deviation")
        panel.grid(alpha=0.3)
        panel.legend()
    save_figure(figure, file)
