"""Write a data set as COCO, YOLO or Pascal VOC. Pixels are never touched: images are copied byte for byte, or linked.

SRC is a folder of labelled images, or a config, whose train, val and test are written. DST must be absent or empty; it appears
whole, or not at all.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, get_args

from rich.table import Table

from backbones.errors import shorten
from detection.cli.arguments import CommandParser, any_path, output_folder
from detection.cli.output import progress_bar, say
from detection.config import SPLITS, Config, FolderFormat, load_config, override_config
from detection.errors import ConfigError
from detection.terminal import new_console, plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from detection.data.convert import ConvertedDataset

FORMATS = ("coco", "yolo", "voc")
CONFIG_SUFFIXES = (".yaml", ".yml")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = CommandParser(description=__doc__)
    parser.add_argument("source", type=any_path, metavar="SRC", help="a folder of labelled images, or a config, FILE.yaml")
    parser.add_argument("folder", type=output_folder, metavar="DST", help="the folder to write, absent or empty")
    parser.add_argument("--format", required=True, choices=FORMATS, help="how DST is laid out")
    parser.add_argument(
        "--from",
        dest="source_format",
        choices=get_args(FolderFormat),
        help="the format of the folder SRC; default: auto, it is recognised",
    )
    parser.add_argument(
        "--annotations",
        type=any_path,
        metavar="FILE",
        help="the labels that count, relative to the folder SRC",
    )
    parser.add_argument(
        "--split", nargs="+", choices=SPLITS, metavar="NAME", help="train, val, test; default: all that SRC has"
    )
    parser.add_argument(
        "--images",
        choices=("copy", "link", "none"),
        default="copy",
        help="link: hard links, which take no room, where the disk has them; none: labels alone; default: %(default)s",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="data.key=value", help="e.g. data.rename={van: car}, data.drop=[bg], data.classes=[cat]"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Read, write, and print what was taken for what and what is in it. Raises ConfigError, DatasetError or OSError."""
    options = build_parser().parse_intermixed_args(argv)
    config = load_source(options)
    # Only now: torch is slow to load.
    from detection.data.convert import convert_dataset

    with copied_images() as report:
        done = convert_dataset(
            config,
            options.folder,
            options.format,
            splits=options.split,
            images=options.images,
            tell=say,
            report=report,
        )
    new_console().print(counts_table(done), soft_wrap=True)
    for note in done.notes:
        say(note)
    say(f"{sum(done.num_images.values())} images -> {done.folder}")
    return 0


def load_source(options: argparse.Namespace) -> Config:
    """The config that SRC is, or one whose data are in the folder. Raises ConfigError or DatasetError."""
    source, overrides = options.source, options.overrides
    if options.source_format is None and source.is_file() and source.suffix.lower() in CONFIG_SUFFIXES:
        if options.annotations is not None:
            raise ConfigError(f"--annotations is of a folder, and {shorten(str(source))} is a config, which names its own")
        return load_config(source, overrides)
    from detection.data.convert import require_outside
    from detection.data.folder import config_of_folder

    require_outside(options.folder, [source])

    other = next((text for text in overrides if not text.startswith("data.")), None)
    if other is not None:
        raise ConfigError(f"'{other}' cannot be chosen here, only data.classes, data.rename and other keys of data")
    return override_config(config_of_folder(source, options.source_format or "auto", options.annotations, say), overrides)


@contextmanager
def copied_images() -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, for the numbers of images done and in all."""
    with progress_bar(new_console(stderr=True)) as progress:
        task = progress.add_task("writing", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def counts_table(done: ConvertedDataset) -> Table:
    """Images, and objects of each class, a column a split."""
    table = Table("")
    for split in done.num_images:
        table.add_column(split, justify="right")
    table.add_row("images", *map(str, done.num_images.values()))
    for name in done.class_names:
        table.add_row(plain(name), *(str(counts[name]) for counts in done.num_objects.values()))
    return table
