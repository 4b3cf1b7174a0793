"""What commands that write reports share: the names of what is reported, its ground truth, and the output folder."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from backbones.errors import printable, shorten
from detection.cli.arguments import any_path
from detection.cli.options import QUICKSTART_WEIGHTS, add_device_argument, is_override
from detection.cli.output import fetch_weights, progress_bar, say
from detection.errors import ConfigError
from detection.files import exists
from detection.terminal import new_console

if TYPE_CHECKING:
    from rich.console import Console

    from detection.report.reported import ReportedDetector


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """SOURCE ... with overrides, and what says where the ground truth of detection files is, for `load_sources`."""
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="a run's folder, a checkpoint, a COCO result file (.json), a folder of comp4_det_SPLIT_CLASS.txt, or a report; "
        "dotted.key=value changes a detector's config",
    )
    parser.add_argument(
        "--config", type=any_path, metavar="FILE", help="whose test split all are measured on; default: each detector's own"
    )
    add_device_argument(parser)
    coco = parser.add_argument_group("the ground truth of COCO result files")
    coco.add_argument("--annotations", type=any_path, metavar="FILE", help="e.g. instances_val2017.json")
    coco.add_argument("--images", type=any_path, metavar="DIR", help="the pictures; without it they may be missing")
    voc = parser.add_argument_group("the ground truth of detection files in the development kit's format")
    voc.add_argument("--devkit", type=any_path, metavar="DIR", help="holds VOC<year>/, or Annotations/ itself")
    voc.add_argument("--year", help="2007, 2012, ...")
    voc.add_argument("--split", help="a file of ImageSets/Main, without .txt; default: test")


def sources_of(options: argparse.Namespace) -> list[str]:
    """The names among SOURCE ..., without the overrides. Raises ConfigError if there is none."""
    names = [text for text in options.sources if not is_override(text)]
    if not names:
        raise ConfigError("what is to be reported? Give a run's folder, a checkpoint or a file of detections")
    return names


def require_not_read(options: argparse.Namespace, output: Path) -> None:
    """Raise ConfigError if the output folder is, or holds, something that the options name to be read."""
    named = [*map(Path, sources_of(options)), options.config, options.annotations, options.images, options.devkit]
    for path in filter(None, named):
        if exists(path) and _is_within(path, output):
            raise ConfigError(
                f"{shorten(str(path))} is read, and lies in the output folder {shorten(str(output))}: name another"
            )


def require_report_output(options: argparse.Namespace, others: Sequence[str]) -> None:
    """Raise ConfigError or DatasetError if the folder of --report cannot be one of a report, before anything is computed.

    `others`: options of other outputs, none of which may lie in that folder.
    """
    if options.report is None:
        return
    from detection.report.folder import require_report_folder

    require_report_folder(options.report)
    for name in others:
        path: Path | None = getattr(options, name)
        if path is not None and _is_within(path, options.report):
            flag = name.replace("_", "-")
            raise ConfigError(f"--{flag} {shorten(str(path))} lies in the folder of --report, which is the report's alone")


def name_of_evaluated(options: argparse.Namespace) -> str:
    """What a report calls that which an evaluating command evaluates: its files, else its config, else the quickstart's."""
    if options.detections is not None:
        return str(options.detections)
    return " + ".join(map(str, options.weights)) or str(options.config or QUICKSTART_WEIGHTS)


def write_page(folder: Path, reported: ReportedDetector, console: Console) -> None:
    """Write the report and print where it is."""
    from detection.report.page import write_report

    say(f"report: {write_report(reported, folder)}", console)


def _is_within(path: Path, folder: Path) -> bool:
    """Whether a path is a folder's or leads into it, links followed."""
    place = Path(os.path.realpath(path))
    return Path(os.path.realpath(folder)) in (place, *place.parents)


def load_sources(options: argparse.Namespace) -> list[ReportedDetector]:
    """What the options of `add_source_arguments` name, with its detections; detectors are run, with a bar.

    Raises ConfigError, DatasetError or CheckpointError.
    """
    from detection.analysis.report_truth import TruthFiles
    from detection.analysis.reporting import load_reported
    from detection.device import find_device

    console = new_console()
    with progress_bar(console) as progress:
        task = progress.add_task("detecting", total=None, visible=False)

        def show(name: str, done: int, total: int) -> None:
            progress.update(task, description=printable(f"detecting: {name}"), completed=done, total=total, visible=True)

        return load_reported(
            sources_of(options),
            truth=TruthFiles(options.annotations, options.images, options.devkit, options.year, options.split),
            config=options.config,
            overrides=[text for text in options.sources if is_override(text)],
            device=find_device(options.device),
            find_weights=lambda path: fetch_weights(path, kind="detector"),
            tell=lambda line: say(line, console),
            progress=show,
        )
