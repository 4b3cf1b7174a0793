"""Evaluations as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from detection.evaluation.metrics import VOC_METRIC_TITLES
from detection.evaluation.voc import VocResult
from detection.terminal import plain


def voc_table(result: VocResult) -> Table:
    """AP of each class, and the mean, with the metric's name in the title."""
    table = Table(title=f"{VOC_METRIC_TITLES[result.metric]} AP at IoU {result.iou_threshold:g}")
    table.add_column("class")
    table.add_column("objects", justify="right")
    table.add_column("AP", justify="right")
    for name, ap in result.ap.items():
        table.add_row(plain(name), str(result.curves[name].num_objects), f"{ap:.4f}")
    table.add_section()
    table.add_row("mean", str(sum(curve.num_objects for curve in result.curves.values())), f"{result.mean_ap:.4f}")
    return table


def coco_table(numbers: Mapping[str, float], class_ap: Mapping[str, float] | None = None, title: str = "COCO") -> Table:
    """COCO's numbers, and AP of each class if given; a dash where there was nothing to measure on."""
    table = Table(title=title)
    table.add_column("measure")
    table.add_column("value", justify="right")
    for key, value in numbers.items():
        table.add_row(plain(key), f"{value:.4f}" if value >= 0 else "-")
    if class_ap:
        table.add_section()
        for name, value in class_ap.items():
            table.add_row(plain(f"AP of {name}"), f"{value:.4f}")
    return table
