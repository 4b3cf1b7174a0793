"""What `resdet report` and `resdet compare` share: the names of what is reported, and its ground truth."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from backbones.errors import printable
from detection.cli.arguments import any_path
from detection.cli.options import is_override
from detection.cli.output import fetch_weights, progress_bar, say
from detection.errors import ConfigError
from detection.terminal import new_console

if TYPE_CHECKING:
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


def load_sources(options: argparse.Namespace) -> list[ReportedDetector]:
    """What the options of `add_source_arguments` name, with its detections; detectors are run, with a bar.

    Raises ConfigError, DatasetError or CheckpointError.
    """
    import torch

    from detection.analysis.report_truth import TruthFiles
    from detection.analysis.reporting import load_reported

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
            device="cuda" if torch.cuda.is_available() else "cpu",
            find_weights=lambda path: fetch_weights(path, kind="detector"),
            tell=lambda line: say(line, console),
            progress=show,
        )
