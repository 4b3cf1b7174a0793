"""What a run has logged so far, read back: the curves of its metrics.jsonl."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from detection.errors import DatasetError
from detection.files import MAX_METRICS_BYTES, METRICS_FILE, parse_metrics, read_regular

LARGEST = 1e30  # a value beyond it is one of a run that has diverged, and would leave nothing to see of the others
CurveKind = Literal["evaluation", "training"]


@dataclass(frozen=True)
class MetricCurve:
    """A metric's values by training step."""

    steps: list[int]
    values: list[float]


@dataclass(frozen=True)
class RunCurves:
    """All that a run's metrics.jsonl holds: curves by the metrics' names."""

    file: Path
    training: dict[str, MetricCurve]
    evaluation: dict[str, MetricCurve]

    def of_kind(self, kind: CurveKind) -> dict[str, MetricCurve]:
        """The curves of the training or of the evaluations."""
        return self.evaluation if kind == "evaluation" else self.training


def read_run(folder: Path) -> RunCurves:
    """The curves of a run; an incomplete last line is left out. Raises DatasetError naming the file, and the line at fault.

    A value that is null, as JSON has no NaN, or NaN is a gap in its curve: not drawn, and left out of means.
    """
    file = folder / METRICS_FILE if folder.is_dir() else folder
    try:
        records, faults = parse_metrics(read_regular(file, MAX_METRICS_BYTES))
    except OSError as error:
        raise DatasetError(f"cannot read {file}: {error.strerror}; name the output folder of a run") from None
    if faults:
        raise DatasetError(f"{file}, {faults[0]}; leave it out, or let the run drop it (--resume)")
    run = RunCurves(file, {}, {})
    for _, record in records:
        curves = run.training if record["kind"] == "train" else run.evaluation
        for name, value in _numbers(record).items():
            curve = curves.setdefault(name, MetricCurve([], []))
            curve.steps.append(record["step"])
            curve.values.append(value)
    if not run.training and not run.evaluation:
        raise DatasetError(f"{file} has no records yet")
    return run


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """All numbers of a record by name, those of its nested records too; null is NaN, as is a number too large to draw."""
    found: dict[str, float] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            prefix = "val_losses/" if name == "val_losses" else ""
            found |= {prefix + key: number for key, number in _numbers(value).items()}
        elif value is None or (isinstance(value, int | float) and name != "step" and not isinstance(value, bool)):
            found[name] = float(value) if value is not None and abs(value) < LARGEST else math.nan
    return found
