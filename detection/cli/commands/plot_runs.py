"""Training curves of several runs in one plot (figure 6), from their metrics.jsonl.

Solid: the metric of the evaluations. Dashed, in the run's colour: the curve of the training, smoothed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from detection.analysis.plots import colours, label_runs, new_figure, require_picture, save_figure
from detection.errors import ConfigError, DatasetError, nearest

METRICS_FILE = "metrics.jsonl"
METRICS = ("top1_error", "AP")
"""What is drawn by default: the first of these that the evaluations have."""
Kind = Literal["evaluation", "training"]
OPTIONS: dict[Kind, str] = {"evaluation": "--metric", "training": "--train-metric"}


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

    def curves(self, kind: Kind) -> dict[str, Curve]:
        """Those of one kind."""
        return self.evaluation if kind == "evaluation" else self.training


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
    require_picture(options.output)
    labels = label_runs([path.parent if path.is_file() else path for path in options.runs], options.labels)
    runs = [read_run(folder) for folder in options.runs]
    metric = options.metric or default_metric(runs)
    train_metric = options.train_metric or default_train_metric(runs, metric)
    evaluations = [None] * len(runs) if metric is None else chosen(runs, "evaluation", metric)
    trainings = [curve and smoothed(curve, options.smooth) for curve in chosen(runs, "training", train_metric)]
    drawn = {
        label: {"evaluation": evaluation, "training": training}
        for label, evaluation, training in zip(labels, evaluations, trainings, strict=True)
    }
    draw(drawn, metric, train_metric, options.output)
    print(options.output)
    if options.json:
        from detection.files import write_json

        curves = {label: {kind: vars(curve) for kind, curve in pair.items() if curve} for label, pair in drawn.items()}
        write_json(options.json, {"metric": metric, "train_metric": train_metric, "runs": curves})
    return 0


def read_run(folder: Path) -> Run:
    """The curves of a run; a torn last line is passed over. Raises DatasetError naming the file, and the line at fault."""
    file = folder if folder.is_file() else folder / METRICS_FILE
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise DatasetError(f"cannot read {file}: {error.strerror}; name the output folder of a run") from None
    run = Run(file, {}, {})
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except ValueError:  # no JSON, or no text at all
            if number == len(lines):
                break  # of a run that goes on, or was killed
            raise DatasetError(f"{file}, line {number} is damaged: it is no JSON") from None
        if not _is_record(record):
            raise DatasetError(f"{file}, line {number} is no record of a run")
        curves = run.training if record["kind"] == "train" else run.evaluation
        for name, value in _numbers(record).items():
            curve = curves.setdefault(name, Curve([], []))
            curve.steps.append(record["step"])
            curve.values.append(value)
    if not run.training and not run.evaluation:
        raise DatasetError(f"{file} has no records yet")
    return run


def _is_record(value: object) -> bool:
    return isinstance(value, dict) and value.get("kind") in ("train", "evaluation") and isinstance(value.get("step"), int)


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
    """The first of METRICS that the evaluations of all runs have that were evaluated yet; None where there is none."""
    evaluated = [run.evaluation for run in runs if run.evaluation]
    return next((name for name in METRICS if evaluated and all(name in curves for curves in evaluated)), None)


def default_train_metric(runs: Sequence[Run], metric: str | None) -> str:
    """The training's own value of the metric where it is logged, else the loss."""
    begun = [run.training for run in runs if run.training]
    return f"train_{metric}" if begun and all(f"train_{metric}" in curves for curves in begun) else "loss"


def chosen(runs: Sequence[Run], kind: Kind, name: str) -> list[Curve | None]:
    """The curve of that name of each run; None of one without records of this kind yet, where others have some.

    Raises ConfigError naming a file that has others, and which.
    """
    some = any(run.curves(kind) for run in runs)
    return [_named(run, kind, name) if run.curves(kind) or not some else None for run in runs]


def _named(run: Run, kind: Kind, name: str) -> Curve:
    curves = run.curves(kind)
    if name in curves:
        return curves[name]
    other: Kind = "training" if kind == "evaluation" else "evaluation"
    near = nearest(name, curves)
    hint = f"did you mean '{near}'? " if near else ""
    if name in run.curves(other):
        hint = f"it is of the {other}: {OPTIONS[other]} {name}; "
    raise ConfigError(f"{run.file} has no {kind} metric '{name}'; {hint}it has {', '.join(sorted(curves)) or 'none'}")


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
    for colour, (label, curves) in zip(colours(len(drawn)), drawn.items(), strict=True):
        training, evaluation = curves["training"], curves["evaluation"]
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
    # Below the axes: within them, curves of the second axis would run across it.
    figure.legend(loc="outside lower center", ncols=min(len(drawn), 4))
    save_figure(figure, file)
