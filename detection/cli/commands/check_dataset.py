"""`resdet check-dataset`: every fault of a data set at once, its statistics, and sheets of drawn ground truth."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from detection.config import load_config
from detection.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    import numpy as np

    from detection.config import DataConfig
    from detection.data.faults import Faults
    from detection.structures import Record

SHOWN = 10  # messages of one kind on the screen; the file has all
DRAWN = 12  # images of a split on its sheet
PERCENTILES = (1, 10, 50, 90, 99)


@dataclass(frozen=True)
class Split:
    """One of the config's train, val, test, and what is wrong with it."""

    name: str
    records: list[Record]
    faults: Faults


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        description="Report all faults of a config's data at once, count what is in it, and draw its ground truth.",
        epilog="Exit code 0: training would take it (repairs are listed); 2: training would refuse it.",
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="the experiment whose data is checked")
    parser.add_argument("--output", type=Path, default=Path("runs/check-dataset"), metavar="DIR", help="default: %(default)s")
    parser.add_argument("overrides", nargs="*", metavar="dotted.key=value", help="changes to the config")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Raises ConfigError for a config without data, DatasetError where training would refuse the data."""
    options = build_parser().parse_intermixed_args(argv)
    config = load_config(options.config, options.overrides)
    console = Console(highlight=False, soft_wrap=True)
    with quiet(logging.getLogger("detection.data")):
        splits = [check_split(name, config.data) for name in ("train", "val", "test") if getattr(config.data, name)]
    if not splits:
        raise ConfigError(f"{options.config} names no data: set data.train, data.val or data.test")
    options.output.mkdir(parents=True, exist_ok=True)
    names = config.data.class_names
    console.print(overview(splits), class_table(splits, names), size_table(splits))
    report = fault_lines(splits) + [f"warning: {line}" for line in warnings(splits, names)]
    (options.output / "faults.txt").write_text("".join(f"{line}\n" for line in report), encoding="utf-8")
    for line in shortened(splits) + [f"warning: {line}" for line in warnings(splits, names)]:
        console.print(line, markup=False)
    for split in (split for split in splits if split.records):
        path = draw_sheet(split, names, options.output)
        console.print(f"{split.name}: ground truth drawn in {path}", markup=False)
    num_errors = sum(len(split.faults.errors) for split in splits)
    if num_errors:
        faults = "1 fault" if num_errors == 1 else f"{num_errors} faults"
        raise DatasetError(f"{faults} that training refuses, listed above and in {options.output / 'faults.txt'}")
    return 0


@contextmanager
def quiet(logger: logging.Logger) -> Iterator[None]:
    """Keep back the readers' warnings, which are part of the report already."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def check_split(name: str, data: DataConfig) -> Split:
    """Read all of a split's sources and decode all of its images, collecting what is wrong."""
    from detection.data.catalog import read_sources
    from detection.data.faults import Faults
    from detection.data.loader import find_bad_images

    faults = Faults(strict=data.strict, collect=True)
    records = read_sources(getattr(data, name), data.class_names, faults)
    checks = find_bad_images(records, data.workers)
    console = Console(stderr=True)
    hidden = not console.is_terminal
    for problem in track(checks, f"decoding {name}", len(records), console=console, transient=True, disable=hidden):
        if problem is not None and data.on_bad_image == "skip" and not data.strict:
            faults.note(problem, "image that cannot be used", "skipped")
        elif problem is not None:
            faults.errors.append(problem)
    return Split(name, records, faults)


def overview(splits: Sequence[Split]) -> Table:
    """What is in each split."""
    columns = [split.records for split in splits]
    rows = {
        "images": [len(records) for records in columns],
        "landscape or square": [sum(record.size_hw[1] >= record.size_hw[0] for record in records) for records in columns],
        "without objects": [sum(len(record.labels) == 0 for record in records) for records in columns],
        "objects": [sum(len(record.labels) for record in records) for records in columns],
        "difficult": [sum(int(record.difficult.sum()) for record in records) for records in columns],
        "crowd": [sum(int(record.crowd.sum()) for record in records) for records in columns],
        "faults refused": [len(split.faults.errors) for split in splits],
        "faults repaired": [len(split.faults.notes) for split in splits],
    }
    return _table("", [split.name for split in splits], rows)


def class_counts(split: Split, num_classes: int) -> list[int]:
    """Objects of each class, the difficult and crowd ones among them."""
    import torch

    labels = torch.cat([torch.zeros(0, dtype=torch.long), *(record.labels for record in split.records)])
    counts: list[int] = torch.bincount(labels, minlength=num_classes).tolist()
    return counts


def class_table(splits: Sequence[Split], names: Sequence[str]) -> Table:
    """Objects of each class in each split."""
    columns = [class_counts(split, len(names)) for split in splits]
    rows = {name: list(counts) for name, *counts in zip(names, *columns, strict=True)}
    return _table("objects of class", [split.name for split in splits], rows)


def size_table(splits: Sequence[Split]) -> Table:
    """How large the boxes are: percentiles of the square root of their area, to choose anchors by."""
    import numpy as np
    import torch

    rows = {}
    for split in splits:
        boxes = torch.cat([torch.zeros(0, 4), *(record.boxes for record in split.records)])
        sizes = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).sqrt().numpy()
        rows[split.name] = np.percentile(sizes, PERCENTILES).round().astype(int).tolist() if len(sizes) else []
    return _table("sqrt of box area, px", [f"{percent}%" for percent in PERCENTILES], rows)


def _table(corner: str, heads: Sequence[str], rows: Mapping[str, Sequence[int]]) -> Table:
    table = Table(corner)
    for head in heads:
        table.add_column(head, justify="right")
    for name, values in rows.items():
        table.add_row(escape(name), *map(str, values))
    return table


def fault_lines(splits: Sequence[Split]) -> list[str]:
    """Every fault, one line each: first those that training refuses."""
    refused = [f"error: {split.name}: {message}" for split in splits for message in split.faults.errors]
    repaired = [f"repaired: {split.name}: {note.message}" for split in splits for note in split.faults.notes]
    return refused + repaired


def shortened(splits: Sequence[Split]) -> list[str]:
    """The faults for the screen: of each kind the first few."""
    lines = []
    for split in splits:
        lines += _first(f"error: {split.name}", split.faults.errors)
    for split in splits:
        for kind, messages in split.faults.by_kind().items():
            lines += [f"{split.name}: {len(messages)} x {kind}", *_first("    repaired", messages)]
    return lines


def _first(head: str, messages: Sequence[str]) -> list[str]:
    more = [f"{head}: ... and {len(messages) - SHOWN} more, see faults.txt"] if len(messages) > SHOWN else []
    return [f"{head}: {message}" for message in messages[:SHOWN]] + more


def warnings(splits: Sequence[Split], names: Sequence[str]) -> list[str]:
    """What training takes but people should know: classes without objects, images in two splits, categories left out."""
    lines = [f"{split.name}: {message}" for split in splits for message in split.faults.information]
    for split in splits:
        empty = [name for name, count in zip(names, class_counts(split, len(names)), strict=True) if not count]
        if empty:
            lines.append(f"{split.name}: no object of {', '.join(empty)}")
    for one, other in combinations(splits, 2):
        shared = {record.file.resolve() for record in one.records} & {record.file.resolve() for record in other.records}
        if shared:
            lines.append(f"{len(shared)} images are in {one.name} and in {other.name}, e.g. {min(shared)}")
    return lines


def draw_sheet(split: Split, names: Sequence[str], folder: Path) -> Path:
    """DIR/<split>.jpg: images from all over the split with their boxes."""
    from detection.visualize import contact_sheet, save_image

    path = folder / f"{split.name}.jpg"
    save_image(path, contact_sheet(list(_drawn(split.records, names))))
    return path


def _drawn(records: Sequence[Record], names: Sequence[str]) -> Iterator[np.ndarray]:
    from detection.data.images import read_image
    from detection.visualize import draw_boxes

    flagged = [*names, *(f"{name} (difficult)" for name in names), *(f"{name} (crowd)" for name in names)]
    for record in records[:: max(len(records) // DRAWN, 1)][:DRAWN]:
        try:
            image = read_image(record.file)
        except DatasetError:
            continue  # reported already
        labels = record.labels + len(names) * (record.difficult + 2 * (record.crowd & ~record.difficult))
        yield draw_boxes(image, record.boxes, labels, flagged)
