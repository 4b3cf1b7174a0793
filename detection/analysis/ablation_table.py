"""The measured table of improvements: what each row finds, what it costs, and an ensemble's networks one by one.

Metrics are rounded to four digits; costs are seconds per image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any, Literal

from rich.table import Table

from detection.analysis.ablation import AblationPlan, AblationRow, plan_rows, predict_rows, time_rows
from detection.analysis.provenance import Provenance, current_provenance
from detection.engine.precision import resolve_precision
from detection.evaluation.coco import evaluate_coco_results
from detection.evaluation.known import without_unknown
from detection.evaluation.metrics import METRICS
from detection.evaluation.split import EvaluationSplit, as_coco_results, coco_ground_truth, require_objects, voc_ground_truth
from detection.evaluation.voc import evaluate_voc
from detection.inference.detector import Detector
from detection.structures import DetectionsByImage, Record

Stage = Literal["timing", "detecting"]

ABLATION_METRICS = ("AP", "AP50", "AP75", "voc_area")
"""What is measured of each row, by the keys of METRICS."""


@dataclass(frozen=True)
class GroundTruth:
    """The objects of a split in the form of both standards: an annotation file's content, and the development kit's records."""

    class_names: Sequence[str]
    coco: Mapping[str, Any]
    voc: Sequence[Record]


@dataclass(frozen=True)
class MeasuredMember:
    """One network of an ensemble by itself."""

    weights: str
    metrics: dict[str, float]  # by the keys of ABLATION_METRICS

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"weights": self.weights, **self.metrics}


@dataclass(frozen=True)
class MeasuredRow:
    """One line of the table. `settings` are the keys of `config.test` in which its first network differs from the baseline."""

    name: str
    weights: list[str]
    settings: dict[str, Any]
    metrics: dict[str, float]  # by the keys of ABLATION_METRICS
    seconds_per_image: float
    relative_cost: float  # the baseline's seconds are 1
    members: list[MeasuredMember]  # of an ensemble, else empty

    @property
    def members_mean(self) -> dict[str, float]:
        """The metrics' means over an ensemble's networks."""
        return {name: round(fmean(member.metrics[name] for member in self.members), 4) for name in ABLATION_METRICS}

    def as_json(self) -> dict[str, Any]:
        """Plain data; `members_mean` only of an ensemble."""
        return {
            "name": self.name,
            "weights": self.weights,
            "settings": self.settings,
            **self.metrics,
            "seconds_per_image": self.seconds_per_image,
            "relative_cost": self.relative_cost,
            "members": [member.as_json() for member in self.members],
            **({"members_mean": self.members_mean} if self.members else {}),
        }


@dataclass(frozen=True)
class MeasuredAblation:
    """The whole table, on what it was measured, and where and when."""

    plan: AblationPlan
    rows: list[MeasuredRow]
    backbones: list[str]
    checkpoints: list[str]
    num_images: int
    timed_images: int
    provenance: Provenance

    def as_json(self, command: str) -> dict[str, Any]:
        """Plain data as the files of docs/results hold it; `command` is the one that measures it again."""
        networks = " and ".join(self.backbones)
        return {
            "kind": "ablation",
            "title": f"Improvements of the paper's detection system, each added to those above it: {networks}",
            "checkpoints": self.checkpoints,
            "scales": list(self.plan.scales),
            "left_out": list(self.plan.left_out),
            **self.provenance.as_json(),
            "images": self.num_images,
            "timed_images": self.timed_images,
            "rows": [row.as_json() for row in self.rows],
            "commands": [command],
        }


def measure_ablation(
    detectors: Sequence[Detector],
    files: Sequence[str],
    split: EvaluationSplit,
    timed_images: int = 8,
    report: Callable[[Stage, int], None] | None = None,
) -> MeasuredAblation:
    """Measure all rows that the detectors allow. `files` names each detector's weights.

    The time is measured on the first `timed_images` images, the metrics on all. `report` is called with the stage and the
    number of images done in it. Raises ConfigError or DatasetError if there is nothing to find in the split, or no detector
    without context.
    """

    def report_of(stage: Stage) -> Callable[[int], None] | None:
        return None if report is None else partial(report, stage)

    require_objects(split)
    plan = plan_rows(detectors)
    ground_truth = GroundTruth(split.class_names, coco_ground_truth(split), voc_ground_truth(split))
    timed = split.records[:timed_images]
    seconds = time_rows(detectors, plan.rows, timed, report=report_of("timing"))
    detections = predict_rows(
        detectors,
        plan.rows_and_members,
        split.records,
        workers=detectors[0].config.data.workers,
        report=report_of("detecting"),
    )
    counted = {row: without_unknown(split.records, found) for row, found in detections.items()}
    metrics = {row: evaluate_row(ground_truth, found) for row, found in counted.items()}
    precision = resolve_precision(detectors[0].config.train.precision, detectors[0].device)
    return MeasuredAblation(
        plan=plan,
        rows=[_measured_row(row, plan.rows[0], files, metrics, seconds) for row in plan.rows],
        backbones=list(dict.fromkeys(detector.config.model.backbone for detector in detectors)),
        checkpoints=list(files),
        num_images=len(split.records),
        timed_images=len(timed),
        provenance=current_provenance(detectors[0].device, precision),
    )


def evaluate_row(ground_truth: GroundTruth, detections: DetectionsByImage) -> dict[str, float]:
    """The ABLATION_METRICS of one row's detections, to four digits."""
    names = ground_truth.class_names
    results = as_coco_results(ground_truth.coco, detections, names)
    coco = evaluate_coco_results(ground_truth.coco, results, names).numbers
    voc = evaluate_voc(ground_truth.voc, detections, names, metric="area").mean_ap
    values = {**coco, "voc_area": voc}
    return {name: round(value, 4) for name, value in values.items() if name in ABLATION_METRICS}


def _measured_row(
    row: AblationRow,
    baseline: AblationRow,
    files: Sequence[str],
    metrics: Mapping[AblationRow, dict[str, float]],
    seconds: Mapping[AblationRow, float],
) -> MeasuredRow:
    members = [MeasuredMember(files[single.members[0].index], metrics[single]) for single in row.single_networks]
    return MeasuredRow(
        name=row.name,
        weights=[member.weights for member in members],
        settings=changed_settings(row, baseline),
        metrics=metrics[row],
        seconds_per_image=round(seconds[row], 4),
        relative_cost=round(seconds[row] / seconds[baseline], 2),
        members=members if len(members) > 1 else [],
    )


def changed_settings(row: AblationRow, baseline: AblationRow) -> dict[str, Any]:
    """Keys of `config.test` in which a row's first network differs from the baseline's, with its values."""
    before = baseline.members[0].test.model_dump(mode="json")
    after = row.members[0].test.model_dump(mode="json") | {"flip": row.flip}
    return {key: value for key, value in after.items() if value != before[key]}


def ablation_table(ablation: MeasuredAblation) -> Table:
    """The rows for people; under an ensemble its networks."""
    table = Table(title=f"Improvements, each added to those above it; {ablation.num_images} images")
    table.add_column("", no_wrap=True)
    for title in (*(METRICS[key].title for key in ABLATION_METRICS), "s / image", "cost"):
        table.add_column(title, justify="right")
    for row in ablation.rows:
        table.add_row(row.name, *_formatted(row.metrics), f"{row.seconds_per_image:.3f}", f"{row.relative_cost:.2f}")
        for number, member in enumerate(row.members, start=1):
            table.add_row(f"  member {number} alone", *_formatted(member.metrics), style="dim")
        if row.members:
            table.add_row("  mean of members", *_formatted(row.members_mean), style="dim")
    return table


def _formatted(metrics: Mapping[str, float]) -> list[str]:
    return [f"{metrics[name]:.4f}" if metrics[name] >= 0 else "-" for name in ABLATION_METRICS]
