"""Evaluations for people: tables, precision-recall curves, and the confusion matrix.

K classes. The confusion matrix has one more row, for background that was detected, and one more column, for missed objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.table import Table

from detection.errors import DatasetError
from detection.evaluation.metrics import VOC_METRIC_TITLES
from detection.evaluation.voc import ClassDetections, VocResult
from detection.files import write_json
from detection.fonts import plot_families, plot_text
from detection.modeling.boxes import pairwise_iou
from detection.structures import Detections, DetectionsByImage, ImageId, Record
from detection.terminal import plain

Counts = npt.NDArray[np.int64]
BACKGROUND = "background"
MAX_CURVES = 200  # plots of classes in one picture, which takes some seconds
MAX_NAMED = 150  # classes with names and numbers in the picture of a confusion matrix: 69 inches a side
MAX_CONFUSED = 2000  # classes of a confusion matrix: a file of some 10 MB


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


def coco_table(numbers: Mapping[str, float], class_ap: Mapping[str, float] | None = None) -> Table:
    """COCO's numbers, and AP of each class if given; a dash where there was nothing to measure on."""
    table = Table(title="COCO")
    table.add_column("measure")
    table.add_column("value", justify="right")
    for key, value in numbers.items():
        table.add_row(plain(key), f"{value:.4f}" if value >= 0 else "-")
    if class_ap:
        table.add_section()
        for name, value in class_ap.items():
            table.add_row(plain(f"AP of {name}"), f"{value:.4f}")
    return table


def write_report(
    folder: Path,
    result: VocResult,
    records: Sequence[Record],
    detections: DetectionsByImage,
    class_names: Sequence[str],
    score_threshold: float = 0.5,
) -> list[Path]:
    """Write voc.json, pr_curves.png, confusion.json and confusion.png into a folder; returns their paths.

    Raises DatasetError for more than MAX_CONFUSED classes.
    """
    if len(class_names) > MAX_CONFUSED:
        raise DatasetError(
            f"a report shows at most {MAX_CONFUSED} classes, and there are {len(class_names)}: leave --report out"
        )
    folder.mkdir(parents=True, exist_ok=True)
    matrix = confusion_matrix(records, detections, class_names, score_threshold=score_threshold)
    files = [folder / name for name in ("voc.json", "pr_curves.png", "confusion.json", "confusion.png")]
    write_json(files[0], result.as_json())
    plot_precision_recall(result, files[1])
    titles = [*class_names, BACKGROUND]
    write_json(files[2], {"classes": titles, "score_threshold": score_threshold, "matrix": matrix.tolist()})
    plot_confusion(matrix, titles, files[3])
    return files


def plot_precision_recall(result: VocResult, file: Path) -> None:
    """Draw precision against recall into one PNG, a small plot for each class, of the first MAX_CURVES."""
    curves = dict(islice(result.curves.items(), MAX_CURVES))
    columns = max(1, min(4, len(curves)))
    rows = max(1, -(-len(curves) // columns))
    figure = Figure(figsize=(3 * columns, 2.6 * rows), layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    families = plot_families(curves)
    for (name, curve), axes in zip(curves.items(), grid, strict=False):
        axes.plot([0, *curve.recall], [*curve.precision[:1], *curve.precision] or [0], linewidth=1.2)
        axes.set_title(f"{plot_text(name)}: {result.ap[name]:.3f}", fontsize=9, fontfamily=families)
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
        axes.tick_params(labelsize=7)
    for axes in grid[len(curves) :]:
        axes.set_visible(False)
    figure.supxlabel("recall", fontsize=9)
    figure.supylabel("precision", fontsize=9)
    title = f"mAP {result.mean_ap:.3f}, {VOC_METRIC_TITLES[result.metric]}, IoU {result.iou_threshold:g}"
    left_out = "" if len(curves) == len(result.curves) else f"\nthe first {len(curves)} of {len(result.curves)} classes"
    figure.suptitle(title + left_out, fontsize=10)
    FigureCanvasAgg(figure).print_png(str(file))


def confusion_matrix(
    records: Sequence[Record],
    detections: DetectionsByImage,
    class_names: Sequence[str],
    iou_threshold: float = 0.5,
    score_threshold: float = 0.5,
) -> Counts:
    """(K + 1, K + 1) counts: rows are the true classes, columns the detected ones; the last of each is background.

    In the order of their scores, detections are matched with the unmatched object that they overlap most, whatever its
    class. Difficult and crowd objects are not counted, nor are detections that overlap them.
    """
    matrix = np.zeros((len(class_names) + 1, len(class_names) + 1), dtype=np.int64)
    for record in records:
        found = detections.get(record.image_id, Detections.empty())
        found = found[found.scores >= score_threshold]
        true_labels, detected_labels = match_any_class(record, found, iou_threshold, len(class_names))
        np.add.at(matrix, (true_labels, detected_labels), 1)
    return matrix


def match_any_class(record: Record, found: Detections, iou_threshold: float, background: int) -> tuple[Counts, Counts]:
    """True and detected labels, (P,) each, of the P counts that one image adds to the confusion matrix."""
    iou = pairwise_iou(found.boxes.double(), record.boxes.double()).numpy()
    ignored = ~record.trainable.numpy()
    unmatched = ~ignored
    true_labels, detected_labels = [], []
    for detection in np.argsort(-found.scores.numpy(), kind="stable"):
        overlaps = np.where(unmatched, iou[detection], -1.0)
        best = int(overlaps.argmax()) if overlaps.size else -1
        if best >= 0 and overlaps[best] >= iou_threshold:
            unmatched[best] = False
            true_labels.append(int(record.labels[best]))
        elif (iou[detection][ignored] >= iou_threshold).any():
            continue
        else:
            true_labels.append(background)
        detected_labels.append(int(found.labels[detection]))
    missed = record.labels.numpy()[unmatched].tolist()
    return (
        np.array([*true_labels, *missed], dtype=np.int64),
        np.array([*detected_labels, *[background] * len(missed)], dtype=np.int64),
    )


def plot_confusion(matrix: Counts, titles: Sequence[str], file: Path) -> None:
    """Draw the matrix into a PNG: colours show the share of each row, numbers the counts.

    Of more than MAX_NAMED classes the colours alone.
    """
    side = max(3.0, 0.45 * min(len(titles), MAX_NAMED) + 1.5)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    names, families = [plot_text(title) for title in titles], plot_families(titles)
    named = len(titles) <= MAX_NAMED
    if named:
        axes.set_xticks(range(len(titles)), [*names[:-1], "missed"], rotation=90, fontsize=7, fontfamily=families)
        axes.set_yticks(range(len(titles)), names, fontsize=7, fontfamily=families)
    axes.set(xlabel="detected as", ylabel="is")
    for row, column in zip(*np.nonzero(matrix), strict=True) if named else ():
        axes.text(column, row, str(matrix[row, column]), ha="center", va="center", fontsize=6)
    FigureCanvasAgg(figure).print_png(str(file))


def group_by_image(
    records: Sequence[Record], detections: Mapping[str, ClassDetections], class_names: Sequence[str]
) -> dict[ImageId, Detections]:
    """Detections by image from detections by class, as detection files hold them."""
    parts = [(label, detections[name]) for label, name in enumerate(class_names) if name in detections]
    if not parts:
        return {}
    images = np.concatenate([part.images for _, part in parts])
    scores = torch.from_numpy(np.concatenate([part.scores for _, part in parts]))
    boxes = torch.from_numpy(np.concatenate([part.boxes for _, part in parts]))
    labels = torch.from_numpy(np.concatenate([np.full(len(part.scores), label) for label, part in parts]))
    joined = Detections(boxes, scores, labels)
    order = np.lexsort((-scores.numpy(), images))
    starts = np.searchsorted(images[order], np.arange(len(records) + 1))
    rows = torch.from_numpy(order)
    return {record.image_id: joined[rows[starts[i] : starts[i + 1]]] for i, record in enumerate(records)}
