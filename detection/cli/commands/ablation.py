"""The paper's table of improvements: a baseline, + box refinement, + context, + multi-scale testing, + ensemble.

Give the checkpoints of one data set, trained with and without global context, in any order. The first of each kind is the
single network; all with context make the ensemble, or all without if none has it. Rows that no checkpoint allows are left
out. Costs are seconds an image of each row alone; for the figures, what rows have in common is computed once.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from detection.cli.evaluated import (
    Predictions,
    add_model_arguments,
    load_detectors,
    load_test_split,
    model_options,
    progress_bar,
)
from detection.config import Config, VocSource
from detection.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from detection.analysis.ablation import Plan, Row
    from detection.inference.detector import Detector
    from detection.structures import Detections, ImageId, Record

FIGURES = {"AP": "COCO AP", "AP50": "AP50", "AP75": "AP75", "voc_area_map": "VOC area mAP@.5"}
"""What is measured of each row, and its title."""


@dataclass(frozen=True)
class Truth:
    """What there is to find, as eval-coco and eval-voc take it."""

    class_names: Sequence[str]
    coco: Mapping[str, Any]  # the content of an annotation file
    voc: Sequence[Record]


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_model_arguments(parser)
    parser.add_argument("--timed-images", type=int, default=8, metavar="N", help="images the clock runs for; default: 8")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table, as docs/results/*.json hold it")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write what was asked for."""
    options = model_options(build_parser(), argv)
    if options.timed_images < 1:
        raise ConfigError(f"--timed-images must be at least 1, got {options.timed_images}")
    console = Console(highlight=False)

    from detection.analysis.ablation import plan_rows
    from detection.files import write_json

    detectors, paths = load_detectors(options, own_networks=True)
    files = [str(path) for path in paths]
    plan = plan_rows(detectors)
    split = load_annotated_split(detectors[0].config)
    for sentence in plan.left_out:
        console.print(f"left out: {sentence}", soft_wrap=True, markup=False)
    rows = measure(plan, detectors, files, split, options.timed_images, console)
    num_images = len(split.dataset.records)
    console.print(rows_table(rows, num_images))
    if options.json:
        command = shlex.join(["tools/ablation.py", *(sys.argv[1:] if argv is None else argv)])
        images = {"images": num_images, "timed_images": min(options.timed_images, num_images)}
        write_json(options.json, describe(plan, detectors, files) | images | {"rows": rows, "commands": [command]})
    return 0


def describe(plan: Plan, detectors: Sequence[Detector], files: Sequence[str]) -> dict[str, Any]:
    """What was measured, on what, when: all of the JSON file but the figures."""
    from detection.analysis.provenance import provenance
    from detection.engine.precision import resolve_precision

    device = detectors[0].device
    networks = " and ".join(dict.fromkeys(detector.config.model.backbone for detector in detectors))
    return {
        "kind": "ablation",
        "title": f"Improvements of the paper's detection system, each added to those above it: {networks}",
        "checkpoints": list(files),
        "scales": next(list(row.members[0].test.scales) for row in plan.rows if row.members[0].test.scales),
        "left_out": list(plan.left_out),
        **provenance(device, resolve_precision(detectors[0].config.train.precision, device)),
    }


def load_annotated_split(config: Config) -> Predictions:
    """The split to measure on, without detections yet. Raises ConfigError or DatasetError if there is nothing to find."""
    sources, dataset = load_test_split(config)
    for source in sources:
        if isinstance(source, VocSource) and not source.annotated:
            raise ConfigError(f"split '{source.split}' has no annotations to evaluate with: name one that has in data.test")
    if not any(bool(record.trainable.any()) for record in dataset.records):
        raise DatasetError("none of the classes has an object in the evaluated split: there is nothing to measure")
    return Predictions(sources, dataset, {})


def measure(
    plan: Plan, detectors: Sequence[Detector], files: Sequence[str], split: Predictions, timed_images: int, console: Console
) -> list[dict[str, Any]]:
    """The table's rows as plain data: names, settings, FIGURES, seconds an image, and an ensemble's members' own FIGURES."""
    from detection.analysis.ablation import predict_rows, time_rows

    truth = read_truth(split)
    records = split.dataset.records
    with progress_bar(console) as progress:
        timed = records[:timed_images]
        timing = progress.add_task("timing", total=len(timed))
        detecting = progress.add_task("detecting", total=len(records))
        seconds = time_rows(detectors, plan.rows, timed, report=lambda done: progress.update(timing, completed=done))
        detections = predict_rows(
            detectors,
            plan.measured,
            records,
            workers=detectors[0].config.data.workers,
            report=lambda done: progress.update(detecting, completed=done),
        )
    figures = {row: evaluate(truth, found) for row, found in detections.items()}
    first = plan.rows[0]
    return [
        {
            "name": row.name,
            "weights": [files[member.index] for member in row.members],
            "settings": changed_settings(row, first),
            **figures[row],
            "seconds_per_image": round(seconds[row], 4),
            "relative_cost": round(seconds[row] / seconds[first], 2),
            **(members_figures(row, files, figures) if len(row.members) > 1 else {"members": []}),
        }
        for row in plan.rows
    ]


def read_truth(split: Predictions) -> Truth:
    """The ground truth of a split, as the commands for either standard read it."""
    from detection.cli.commands.eval_coco import ground_truth
    from detection.cli.commands.eval_voc import official_records

    names = split.dataset.class_names
    return Truth(names, ground_truth(split), official_records(split.sources, names) or split.dataset.records)


def evaluate(truth: Truth, detections: Mapping[ImageId, Detections]) -> dict[str, float]:
    """The FIGURES of one row's detections, to four digits."""
    from detection.evaluation.coco import evaluate_coco_results
    from detection.evaluation.detection_files import coco_results
    from detection.evaluation.voc import evaluate_voc

    names = truth.class_names
    ids = {category["name"]: category["id"] for category in truth.coco["categories"]}
    coco = evaluate_coco_results(truth.coco, coco_results(detections, names, ids), names).numbers
    voc = evaluate_voc(truth.voc, detections, names, metric="area").mean_ap
    return {name: round(value, 4) for name, value in ({**coco, "voc_area_map": voc}).items() if name in FIGURES}


def changed_settings(row: Row, baseline: Row) -> dict[str, Any]:
    """Keys of `config.test` in which a row's first member differs from the baseline."""
    before, after = (each.members[0].test.model_dump(mode="json") for each in (baseline, row))
    return {key: value for key, value in (after | {"flip": row.flip}).items() if value != before[key]}


def members_figures(row: Row, files: Sequence[str], figures: Mapping[Row, Mapping[str, float]]) -> dict[str, Any]:
    """FIGURES of an ensemble's members by themselves, and their means."""
    members = [{"weights": files[single.members[0].index], **figures[single]} for single in row.alone]
    return {
        "members": members,
        "members_mean": {name: round(fmean(figures[single][name] for single in row.alone), 4) for name in FIGURES},
    }


def rows_table(rows: Sequence[Mapping[str, Any]], num_images: int) -> Table:
    """The rows for people; under an ensemble its members."""
    table = Table(title=f"Improvements, each added to those above it; {num_images} images")
    table.add_column("", no_wrap=True)
    for title in (*FIGURES.values(), "s / image", "cost"):
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(row["name"], *_cells(row), f"{row['seconds_per_image']:.3f}", f"{row['relative_cost']:.2f}")
        for number, member in enumerate(row["members"], start=1):
            table.add_row(f"  member {number} alone", *_cells(member), style="dim")
        if row["members"]:
            table.add_row("  mean of members", *_cells(row["members_mean"]), style="dim")
    return table


def _cells(figures: Mapping[str, float]) -> list[str]:
    return [f"{figures[name]:.4f}" if figures[name] >= 0 else "-" for name in FIGURES]
