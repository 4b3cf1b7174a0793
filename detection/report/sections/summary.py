"""The first screen: the numbers by which a detector is known, what to do first, and how it was trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from detection.html import metric_text
from detection.report.finding import main_finding
from detection.report.numbers import Counts
from detection.report.reported import Analysis, Latency
from detection.report.training_curves import LossCurves, ShownCurve, describe_overfitting, loss_curves, metric_curves


@dataclass(frozen=True)
class HeadNumber:
    """One of the numbers at the top, with a line in small print below it."""

    title: str
    text: str
    note: str


@dataclass(frozen=True)
class SummaryData:
    """What `report/summary.html` and `report/summary.js` show."""

    numbers: list[HeadNumber]
    finding: str  # where most of the lost AP is
    losses: list[LossCurves]  # of the run, if it is one that has logged some; the sum first
    metrics: list[ShownCurve]  # AP and the like by training step
    overfitting: str | None


def build(analysis: Analysis) -> SummaryData:
    """The numbers, and the curves of the run that the detector comes from."""
    run = analysis.reported.run
    return SummaryData(
        list(head_numbers(analysis)),
        main_finding(analysis),
        [] if run is None else loss_curves(run),
        [] if run is None else metric_curves(run),
        None if run is None else describe_overfitting(run),
    )


def head_numbers(analysis: Analysis) -> Iterator[HeadNumber]:
    """The metrics, the latency if it is known, and how much there was to find and was found."""
    metrics = analysis.reported.metrics
    yield HeadNumber("AP", metric_text(metrics.get("AP")), "COCO, mean over IoU 0.5 to 0.95")
    yield HeadNumber("AP50", metric_text(metrics.get("AP50")), "at IoU 0.5")
    yield HeadNumber("AP75", metric_text(metrics.get("AP75")), "at IoU 0.75")
    yield _voc_number(metrics)
    if "mask_AP" in metrics:
        yield _mask_number(metrics)
    if analysis.reported.latency is not None:
        yield _latency_number(analysis.reported.latency)
    counts = Counts.of(analysis)
    yield HeadNumber("images", f"{counts.images:,}", "")
    ignored = f"and {counts.ignored_objects:,} ignored (crowd, difficult)" if counts.ignored_objects else "to find"
    yield HeadNumber("objects", f"{counts.objects:,}", ignored)
    yield HeadNumber("detections", f"{counts.detections:,}", "of any score")


def _voc_number(metrics: Mapping[str, float]) -> HeadNumber:
    """Pascal VOC's mean by the newer variant, with the name of it, and the older in small print."""
    return HeadNumber(
        "VOC mAP",
        metric_text(metrics.get("voc_area")),
        f"at IoU 0.5, area under the curve; 11-point {metric_text(metrics.get('voc07'))}",
    )


def _mask_number(metrics: Mapping[str, float]) -> HeadNumber:
    """COCO's AP of masks, and in small print those at IoU 0.5, COCO's and VOC's."""
    at_half, voc = metric_text(metrics.get("mask_AP50")), metric_text(metrics.get("mask_voc50"))
    return HeadNumber("mask AP", metric_text(metrics["mask_AP"]), f"COCO, of masks; at IoU 0.5 {at_half}, VOC's AP^r {voc}")


def _latency_number(latency: Latency) -> HeadNumber:
    """Per image, to three digits, in the unit that suits it."""
    seconds = latency.seconds_per_image
    text = f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"
    return HeadNumber("latency", text, f"per image, {latency.device}")
