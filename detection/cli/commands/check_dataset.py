"""Report all faults of a config's data at once, count what is in it, and draw its ground truth."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import TaskID
from rich.table import Table

from backbones.errors import printable
from detection.cli.arguments import CommandParser, any_path, output_folder
from detection.cli.options import load_config_or_folder, take_config_argument
from detection.cli.output import progress_bar, say
from detection.errors import ConfigError, DatasetError
from detection.files import write_whole
from detection.terminal import new_console, plain

if TYPE_CHECKING:
    from rich.console import Console

    from detection.config import Config, SplitName
    from detection.data.check import CheckedSplit, SplitStatistics
    from detection.data.findings import Findings

MESSAGES_SHOWN = 10  # of one kind on the screen; the file has all


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = CommandParser(
        description=__doc__, epilog="Exit code 0: training would take it (repairs are listed); 2: training would refuse it."
    )
    parser.add_argument(
        "--config", type=any_path, metavar="FILE", help="the experiment whose data is checked, or a folder of labelled images"
    )
    parser.add_argument(
        "--output", type=output_folder, default=Path("runs/check-dataset"), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument("overrides", nargs="*", metavar="dotted.key=value", help="changes to the config")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Check, print, write. Raises ConfigError for a config without data, DatasetError where training would refuse the data."""
    options = build_parser().parse_intermixed_args(argv)
    config = load_config_or_folder(take_config_argument(options), options.overrides)
    if not config.data.all_sources:
        raise ConfigError(f"{options.config} names no data: set data.train, data.val or data.test")
    folder, console = options.output, new_console()

    from detection.data.settle import settle_config

    config = settle_config(config, lambda sentence: say(sentence, console))
    findings = examine(config)
    folder.mkdir(parents=True, exist_ok=True)
    print_tables(findings, console)
    print_faults(findings, folder / "faults.txt", console)
    draw_ground_truth(findings, config, folder, console)
    for line in findings.anchors.lines():
        say(line, console)
    write_page(findings, config, f"Data of {options.config}", folder / "report.html", console)
    if findings.num_refused:
        faults = "1 fault" if findings.num_refused == 1 else f"{findings.num_refused} faults"
        raise DatasetError(f"{faults} that training refuses, listed above and in {folder / 'faults.txt'}")
    return 0


def examine(config: Config) -> Findings:
    """`examine_data` with a bar for each split."""
    from detection.data.findings import examine_data

    tasks: dict[str, TaskID] = {}
    with without_warnings(logging.getLogger("detection.data")), progress_bar(new_console(stderr=True)) as progress:

        def report(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(f"decoding {name}", total=total)
            progress.update(tasks[name], completed=done)

        return examine_data(config, report)


@contextmanager
def without_warnings(logger: logging.Logger) -> Iterator[None]:
    """Keep back the readers' warnings, which are part of the report already."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def print_tables(findings: Findings, console: Console) -> None:
    """What is in the data, in numbers."""
    statistics = findings.statistics
    tables = overview_table(findings.splits, statistics), class_table(statistics), size_table(statistics)
    console.print(*tables, soft_wrap=True)


def print_faults(findings: Findings, file: Path, console: Console) -> None:
    """Faults and warnings: some of each kind on the screen, all in the file."""
    from detection.data.check import fault_lines

    warnings = [f"warning: {line}" for line in (*findings.warnings, *findings.duplicate_image_lines)]
    write_whole(file, "".join(f"{printable(line)}\n" for line in fault_lines(findings.splits) + warnings))
    for line in shortened_fault_lines(findings.splits) + warnings:
        say(line, console)


def draw_ground_truth(findings: Findings, config: Config, folder: Path, console: Console) -> None:
    """A picture of each split, FOLDER/SPLIT.jpg."""
    from detection.data.check import save_ground_truth_sheet

    for split in findings.splits:
        if split.records:
            sheet = folder / f"{split.name}.jpg"
            save_ground_truth_sheet(split.records, config.data.class_names, sheet, max_pixels=config.data.max_pixels)
            say(f"{split.name}: ground truth drawn in {sheet}", console)


def write_page(findings: Findings, config: Config, title: str, file: Path, console: Console) -> None:
    """All of it as a page."""
    from detection.data.report import dataset_report

    write_whole(file, dataset_report(title, findings, config))
    say(f"report: {file}", console)


def overview_table(splits: Sequence[CheckedSplit], statistics: Mapping[SplitName, SplitStatistics]) -> Table:
    """What is in each split, a column a split."""
    from detection.data.check import overview

    return _table("", list(statistics), overview(splits, list(statistics.values())))


def class_table(statistics: Mapping[SplitName, SplitStatistics]) -> Table:
    """Objects of each class, a column a split."""
    columns = [split.objects_by_class for split in statistics.values()]
    rows = {name: [counts[name] for counts in columns] for name in columns[0]}
    return _table("objects of class", list(statistics), rows)


def size_table(statistics: Mapping[SplitName, SplitStatistics]) -> Table:
    """How large the boxes are, a column a percentile."""
    from detection.data.check import PERCENTILES

    rows: dict[str, Sequence[int]] = {name: list(split.box_sizes.values()) for name, split in statistics.items()}
    return _table("sqrt of box area, px", [f"{percent}%" for percent in PERCENTILES], rows)


def _table(corner: str, heads: Sequence[str], rows: Mapping[str, Sequence[int]]) -> Table:
    table = Table(corner)
    for head in heads:
        table.add_column(head, justify="right")
    for name, values in rows.items():
        table.add_row(plain(name), *map(str, values))
    return table


def shortened_fault_lines(splits: Sequence[CheckedSplit]) -> list[str]:
    """The faults for the screen: the first few of each kind."""
    lines = []
    for split in splits:
        lines += _first_messages(f"error: {split.name}", split.faults.errors)
    for split in splits:
        for kind, messages in split.faults.by_kind().items():
            lines += [f"{split.name}: {len(messages)} x {kind}", *_first_messages("    repaired", messages)]
    return lines


def _first_messages(head: str, messages: Sequence[str]) -> list[str]:
    hidden = len(messages) - MESSAGES_SHOWN
    more = [f"{head}: ... and {hidden} more, see faults.txt"] if hidden > 0 else []
    return [f"{head}: {message}" for message in messages[:MESSAGES_SHOWN]] + more
