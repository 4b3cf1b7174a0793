"""A run's curves as a report shows them: few enough points to draw, and whether the validation loss has turned."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from detection.engine.run_curves import MetricCurve, RunCurves

MAX_POINTS = 300
SHOWN_METRICS = {
    "AP": "AP",
    "AP50": "AP50",
    "AP75": "AP75",
    "mask_AP": "mask AP",
    "voc_area": "VOC mAP, area",
    "voc07": "VOC mAP, 11-point",
}
"""Metrics of the evaluations by their keys, and what a legend calls them."""

_TOTAL, _VALIDATION = "loss", "val_loss"
_RISE, _FALL = 0.05, 0.02  # shares of a loss that are more than noise
_NUMBER_AFTER = 2  # evaluations after the best that make it a turn, not a bump


@dataclass(frozen=True)
class ShownCurve:
    """Values by ascending step; None is a gap."""

    label: str
    steps: list[int]
    values: list[float | None]


@dataclass(frozen=True)
class LossCurves:
    """A loss on the training images and on the validation split, as far as the run logged them."""

    name: str
    curves: list[ShownCurve]


def loss_curves(run: RunCurves) -> list[LossCurves]:
    """The sum of the losses first, then each of its parts."""
    found = (LossCurves(name, list(_both(name, run))) for name in _loss_names(run))
    return [each for each in found if each.curves]


def metric_curves(run: RunCurves) -> list[ShownCurve]:
    """AP and the like as the evaluations of the run found them."""
    return [_shown(label, run.evaluation[key]) for key, label in SHOWN_METRICS.items() if key in run.evaluation]


def describe_overfitting(run: RunCurves) -> str | None:
    """A sentence where the validation loss rises while the training loss falls; None where it does not, or is not known.

    It rises if two evaluations at least came after its lowest value, and the last is above that by a twentieth. The training
    loss falls if its mean since the last evaluation but one is below that before the lowest value, by a fiftieth.
    """
    validation = _by_step(run.evaluation.get(_VALIDATION))
    steps = list(validation)
    lowest = min(steps, key=lambda step: validation[step], default=0)
    if len(steps) - _NUMBER_AFTER <= (steps.index(lowest) if steps else 0):
        return None
    rise = validation[steps[-1]] / validation[lowest] - 1 if validation[lowest] > 0 else 0.0
    before, end = (_mean_before(run, step, steps) for step in (lowest, steps[-1]))
    if rise < _RISE or before is None or end is None or end > (1 - _FALL) * before:
        return None
    return (
        f"The validation loss was lowest at step {lowest:,} ({validation[lowest]:.3g}) and is {100 * rise:.0f} % higher at "
        f"step {steps[-1]:,}, while the training loss fell from {before:.3g} to {end:.3g}: a sign of overfitting. AP may have "
        f"improved all the same: see its curve."
    )


def _mean_before(run: RunCurves, step: int, evaluated: list[int]) -> float | None:
    """The mean training loss between the evaluation at a step and the one before it; None without a value there."""
    first = max((each for each in evaluated if each < step), default=0)
    values = [value for at, value in _by_step(run.training.get(_TOTAL)).items() if first < at <= step]
    return sum(values) / len(values) if values else None


def _by_step(curve: MetricCurve | None) -> dict[int, float]:
    """The values that are numbers, by ascending step; of a step that was logged twice the later."""
    if curve is None:
        return {}
    pairs = zip(curve.steps, curve.values, strict=True)
    return dict(sorted((step, value) for step, value in dict(pairs).items() if math.isfinite(value)))


def _loss_names(run: RunCurves) -> list[str]:
    prefix = f"{_VALIDATION}es/"
    names = [name for name in run.training if name.startswith("loss_")]
    names += [name.removeprefix(prefix) for name in run.evaluation if name.startswith(prefix)]
    return list(dict.fromkeys([_TOTAL, *names]))


def _both(name: str, run: RunCurves) -> Iterator[ShownCurve]:
    validation = _VALIDATION if name == _TOTAL else f"{_VALIDATION}es/{name}"
    for label, curves, key in (("training", run.training, name), ("validation", run.evaluation, validation)):
        if key in curves:
            yield _shown(label, curves[key])


def _shown(label: str, curve: MetricCurve) -> ShownCurve:
    """The curve, of more than MAX_POINTS the means of as many as stand together; NaN is a gap where all of them are."""
    ordered = sorted(dict(zip(curve.steps, curve.values, strict=True)).items())
    size = -(-len(ordered) // MAX_POINTS) or 1
    parts = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    return ShownCurve(label, [part[-1][0] for part in parts], [_mean([value for _, value in part]) for part in parts])


def _mean(values: list[float]) -> float | None:
    known = [value for value in values if math.isfinite(value)]
    return float(f"{sum(known) / len(known):.5g}") if known else None
