"""What several runs logged while they trained, on common axes, thinned to what a plot can show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detection.engine.run_curves import CurveKind, MetricCurve, RunCurves
from detection.evaluation.metrics import METRICS

SHOWN: tuple[tuple[CurveKind, str], ...] = (
    ("training", "loss"),
    ("evaluation", "AP"),
    ("evaluation", "AP50"),
    ("evaluation", "voc_area"),
    ("evaluation", "voc07"),
)
MAX_POINTS = 300
"""Of one curve: neighbouring records are averaged."""


@dataclass(frozen=True)
class OverlaidCurves:
    """A metric of several runs against the training step."""

    title: str
    steps: list[int]
    detectors: list[int]  # the number of each curve's detector
    values: list[list[float | None]]  # of each curve, at `steps`; None between its points
    points: bool  # few enough to be marked


def overlay_curves(runs: Sequence[RunCurves | None]) -> list[OverlaidCurves]:
    """The metrics of SHOWN that any of the runs logged. None stands for a detector whose run is not known."""
    found = [(kind, name, _curves(runs, kind, name)) for kind, name in SHOWN]
    return [_overlaid(kind, name, curves) for kind, name, curves in found if curves]


def _curves(runs: Sequence[RunCurves | None], kind: CurveKind, name: str) -> dict[int, MetricCurve]:
    curves = {number: run.of_kind(kind)[name] for number, run in enumerate(runs) if run and name in run.of_kind(kind)}
    return {number: thinned(curve) for number, curve in curves.items() if curve.steps}


def thinned(curve: MetricCurve, most: int = MAX_POINTS) -> MetricCurve:
    """The curve in at most so many points, each the mean of neighbouring ones; NaN where all of those are."""
    parts = [part for part in np.array_split(np.arange(len(curve.steps)), most) if len(part)]
    values = np.array(curve.values, dtype=np.float64)
    means = [float(np.nanmean(values[part])) if not np.isnan(values[part]).all() else float("nan") for part in parts]
    return MetricCurve([curve.steps[part[-1]] for part in parts], means)


def _overlaid(kind: CurveKind, name: str, curves: dict[int, MetricCurve]) -> OverlaidCurves:
    title = METRICS[name].title if name in METRICS else "training loss"
    steps = sorted({step for curve in curves.values() for step in curve.steps})
    by_step = [dict(zip(curve.steps, curve.values, strict=True)) for curve in curves.values()]
    # A value of 1e10, of a run that has diverged, needs no fourth digit either.
    values = [[float(f"{each[step]:.4g}") if step in each else None for step in steps] for each in by_step]
    return OverlaidCurves(title, steps, list(curves), values, kind == "evaluation")
