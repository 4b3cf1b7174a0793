"""Divide labelled images into those to train on and those to evaluate on, and write which are which."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from backbones.errors import printable
from detection.cli.arguments import CommandParser, any_path, fraction, output_file, whole_number
from detection.cli.options import load_config_or_folder
from detection.cli.output import say
from detection.config import HeldOut, parse_config
from detection.errors import ConfigError, DatasetError
from detection.files import is_file
from detection.terminal import new_console, plain

if TYPE_CHECKING:
    from detection.config import SplitName
    from detection.structures import Record


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = CommandParser(description=__doc__, epilog="In a config: `data.val: {file: FILE}`. See docs/custom-data.md.")
    parser.add_argument("data", type=any_path, metavar="CONFIG_OR_FOLDER", help="its data.train is divided, or a whole folder")
    parser.add_argument("--output", type=output_file, required=True, metavar="FILE", help="the split, as JSON")
    parser.add_argument("--fraction", type=fraction, metavar="F", help="share of the images to evaluate on; default: 0.2")
    parser.add_argument("--test-fraction", type=fraction, default=0.0, metavar="F", help="share of a third part; default: none")
    parser.add_argument("--seed", type=whole_number(0), metavar="N", help="another one gives another split; default: 0")
    parser.add_argument(
        "--group-by", metavar="EXPRESSION", help="a regular expression for names, or near_duplicates: what must stay together"
    )
    parser.add_argument("overrides", nargs="*", metavar="dotted.key=value", help="changes to the config")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Read, divide, write, print. Raises ConfigError or DatasetError."""
    options = build_parser().parse_intermixed_args(argv)
    config = load_config_or_folder(options.data, options.overrides)
    if not config.data.train:
        raise ConfigError(f"{printable(str(options.data))} names no images to divide: set data.train")
    held_out = asked_for(options, config.data.held_out or HeldOut())
    if held_out.fraction + options.test_fraction >= 1:
        raise ConfigError("--fraction and --test-fraction leave nothing to train on: their sum must be below 1")

    require_split(options.output)

    from detection.data.catalog import divide_training_images
    from detection.data.settle import settle_config
    from detection.data.split import ImageSplit, describe_uneven, settings_of, write_split

    console = new_console()
    data = settle_config(config, lambda sentence: say(sentence, console)).data
    parts = divide_training_images(data, held_out, options.test_fraction)
    write_split(options.output, ImageSplit.of(parts, settings_of(held_out)))
    console.print(parts_table(parts, data.class_names), soft_wrap=True)
    for line in describe_uneven(parts, data.class_names):
        say(f"warning: {line}", console)
    say(f"split: {options.output}; in a config: data.val: {{file: {options.output}}}", console)
    return 0


def require_split(file: Path) -> None:
    """Raise ConfigError if the file is no .json, as labels beside it may be, or is there and is no split."""
    from detection.data.split import read_split

    if file.suffix.lower() != ".json":
        raise ConfigError(f"--output is JSON, and {printable(str(file))} is not called so: name it split.json, for example")
    try:
        if is_file(file):
            read_split(file)
    except DatasetError:
        raise ConfigError(f"--output would replace {printable(str(file))}, which is no split: name another file") from None


def asked_for(options: argparse.Namespace, configured: HeldOut) -> HeldOut:
    """What the options ask for, and otherwise the config. Raises ConfigError."""
    given = {"fraction": options.fraction, "seed": options.seed, "group_by": options.group_by}
    values = configured.model_dump(exclude={"file"}) | {key: value for key, value in given.items() if value is not None}
    return parse_config(HeldOut, values, "the split asked for")


def parts_table(parts: Mapping[SplitName, Sequence[Record]], class_names: Sequence[str]) -> Table:
    """Images and objects of each class, a column a part."""
    from detection.data.records import count_classes

    table = Table("")
    for part in parts:
        table.add_column(part, justify="right")
    table.add_row("images", *(str(len(records)) for records in parts.values()))
    table.add_row("without objects", *(str(sum(not len(each.labels) for each in records)) for records in parts.values()))
    counts = [count_classes(records, class_names) for records in parts.values()]
    for name in class_names:
        table.add_row(plain(name), *(str(each[name]) for each in counts))
    return table
