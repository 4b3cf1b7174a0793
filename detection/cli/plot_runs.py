"""Training curves of several runs in one plot (figure 6), from their metrics.jsonl.

Solid: the metric of the evaluations. Dashed, in the run's colour: the curve of the training, smoothed.
"""

from __future__ import annotations

import argparse
import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detection.cli.plots import label_runs, new_figure, save_figure
from detection.errors import ConfigError, DatasetError

METRICS_FILE = "metrics.jsonl"
METRICS = ("top1_error", "AP", "loss")
"""What is drawn by default: the first of these that the evaluations have."""


@dataclass(frozen=True)
class Curve:
    """Values by step."""

    steps: list[int]
    values: list[float]


@dataclass(frozen=True)
class Run:
    """What metrics.jsonl holds: curves by name."""

    file: Path
    training: dict[str, Curve]
    evaluation: dict[str, Curve]


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="plot-runs", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="DIR", help="output folders of runs")
    parser.add_argument("--labels", nargs="+", metavar="NAME", help="one for each run; default: the folders' names")
    parser.add_argument("--metric", metavar="NAME", help="of the evaluations: top1_error, AP, ...; default: what all have")
    parser.add_argument("--train-metric", metavar="NAME", help="of the training: loss, train_top1_error, ...")
    parser.add_argument(
        "--smooth", type=int, default=5, metavar="N", help="log intervals averaged in training curves; default: 5"
    )
    parser.add_argument("--output", type=Path, default=Path("curves.png"), metavar="FILE", help="default: curves.png")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the drawn curves there")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Read, draw, write."""
    options = build_parser().parse_args(argv)
    if options.smooth < 1:
        raise ConfigError(f"--smooth must be at least 1, got {options.smooth}")
    labels = label_runs(options.runs, options.labels)
    runs = [read_run(folder) for folder in options.runs]
    metric = options.metric or default_metric(runs)
    train_metric = options.train_metric or default_train_metric(runs, metric)
    drawn = {
        label: {
            "evaluation": None if metric is None else chosen(run.evaluation, metric, run.file, "evaluation"),
            "training": smoothed(chosen(run.training, train_metric, run.file, "training"), options.smooth),
        }
        for label, run in zip(labels, runs, strict=True)
    }
    draw(drawn, metric, train_metric, options.output)
    print(options.output)
    if options.json:
        from detection.evaluation.detection_files import write_json

        curves = {label: {kind: vars(curve) for kind, curve in pair.items() if curve} for label, pair in drawn.items()}
        write_json(options.json, {"metric": metric, "train_metric": train_metric, "runs": curves})
    return 0


def read_run(folder: Path) -> Run:
    """The curves of a run; a torn last line is passed over. Raises DatasetError naming the file, and the line at fault."""
    file = folder if folder.is_file() else folder / METRICS_FILE
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise DatasetError(f"cannot read {file}: {reason}; name the output folder of a run") from None
    run = Run(file, {}, {})
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            step, kind = record["step"], record["kind"]
        except (json.JSONDecodeError, KeyError, TypeError):
            if number == len(lines):
                break  # of a run that goes on, or was killed
            raise DatasetError(f"{file}, line {number} is no record of a run") from None
        curves = run.training if kind == "train" else run.evaluation
        for name, value in _numbers(record).items():
            curve = curves.setdefault(name, Curve([], []))
            curve.steps.append(step)
            curve.values.append(value)
    if not run.training and not run.evaluation:
        raise DatasetError(f"{file} has no records yet")
    return run


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """All numbers of a record by name, those of its parts too."""
    found: dict[str, float] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            found |= _numbers(value)
        elif isinstance(value, int | float) and name != "step":
            found[name] = float(value)
    return found


def default_metric(runs: Sequence[Run]) -> str | None:
    """The first of METRICS that every run's evaluations have; None where none was evaluated."""
    return next((name for name in METRICS if all(name in run.evaluation for run in runs)), None)


def default_train_metric(runs: Sequence[Run], metric: str | None) -> str:
    """The training's own value of the metric where it is logged, else the loss."""
    return f"train_{metric}" if all(f"train_{metric}" in run.training for run in runs) else "loss"


def chosen(curves: Mapping[str, Curve], name: str, file: Path, what: str) -> Curve:
    """The curve of that name. Raises ConfigError naming the file and those that it has."""
    if name in curves:
        return curves[name]
    near = difflib.get_close_matches(name, curves, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"it has {', '.join(sorted(curves)) or 'none'}"
    raise ConfigError(f"{file} has no {what} metric '{name}'; {hint}")


def smoothed(curve: Curve, width: int) -> Curve:
    """Each value averaged with the `width` - 1 before it, or as many as there are."""
    values = curve.values
    parts = [values[max(0, index + 1 - width) : index + 1] for index in range(len(values))]
    return Curve(curve.steps, [sum(part) / len(part) for part in parts])


def draw(drawn: Mapping[str, Mapping[str, Curve | None]], metric: str | None, train_metric: str, file: Path) -> None:
    """One colour a run; a training curve of another quantity has its own axis on the right."""
    figure = new_figure(9, 5.5)
    axes = figure.subplots()
    training_axes = axes if metric is None or train_metric.removeprefix("train_") == metric else axes.twinx()
    for number, (label, curves) in enumerate(drawn.items()):
        training, evaluation = curves["training"], curves["evaluation"]
        colour = f"C{number % 10}"
        if training is not None:
            # A leading underscore keeps a curve out of the legend: one entry a run.
            name = label if evaluation is None else "_training"
            training_axes.plot(training.steps, training.values, "--", color=colour, linewidth=0.9, alpha=0.8, label=name)
        if evaluation is not None:
            axes.plot(evaluation.steps, evaluation.values, "-o", color=colour, linewidth=1.6, markersize=3, label=label)
    title = f"dashed: {train_metric} (training)" + (f", solid: {metric} (evaluation)" if metric else "")
    axes.set(xlabel="step", ylabel=metric or train_metric, title=title)
    if training_axes is not axes:
        training_axes.set_ylabel(train_metric)
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, file)
