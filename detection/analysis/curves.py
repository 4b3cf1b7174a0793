"""Training curves of several runs in one plot (figure 6), from the metrics.jsonl that each run writes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backbones.errors import printable
from detection.analysis.plots import curve_colors, label_runs, new_figure, save_figure
from detection.engine.run_curves import CurveKind, MetricCurve, RunCurves, read_run
from detection.errors import ConfigError, nearest
from detection.fonts import plot_families, plot_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEFAULT_METRICS = ("top1_error", "AP")
"""What is drawn by default: the first of these that the evaluations have."""
CHOSEN_BY: dict[CurveKind, str] = {"evaluation": "metric (--metric)", "training": "train_metric (--train-metric)"}
"""What chooses the curve of each kind: the parameter of `select_curves`, and the option of `plot-runs`."""


@dataclass(frozen=True)
class PlottedRun:
    """The curves of one run in a plot; None where the run has no records of that kind yet."""

    label: str
    evaluation: MetricCurve | None
    training: MetricCurve | None


@dataclass(frozen=True)
class CurvePlot:
    """What a plot shows. `metric` is None where no run was evaluated yet."""

    metric: str | None
    train_metric: str
    runs: list[PlottedRun]

    def as_json(self) -> dict[str, Any]:
        """Plain data: the metrics' names, and the curves by the runs' labels."""
        runs = {}
        for run in self.runs:
            curves = {"evaluation": run.evaluation, "training": run.training}
            runs[run.label] = {kind: vars(curve) for kind, curve in curves.items() if curve is not None}
        return {"metric": self.metric, "train_metric": self.train_metric, "runs": runs}


def select_curves(
    folders: Sequence[Path],
    labels: Sequence[str] | None = None,
    metric: str | None = None,
    train_metric: str | None = None,
    smooth: int = 5,
) -> CurvePlot:
    """Read the runs in these output folders (or metrics.jsonl files) and choose one curve of each kind.

    By default the labels are the folders' names, `metric` the first of DEFAULT_METRICS that all have, and `train_metric`
    the training's own value of it, else the loss. Training curves are averaged over `smooth` log intervals. Raises
    DatasetError for what is no run, ConfigError for a metric that a run lacks or labels that do not fit.
    """
    labels = label_runs([path.parent if path.is_file() else path for path in folders], labels)
    runs = [read_run(folder) for folder in folders]
    metric = metric or default_metric(runs)
    train_metric = train_metric or default_train_metric(runs, metric)
    plotted = []
    for label, run in zip(labels, runs, strict=True):
        evaluation = None if metric is None else find_curve(runs, run, "evaluation", metric)
        training = find_curve(runs, run, "training", train_metric)
        plotted.append(PlottedRun(label, evaluation, None if training is None else smoothed(training, smooth)))
    return CurvePlot(metric, train_metric, plotted)


def default_metric(runs: Sequence[RunCurves]) -> str | None:
    """The first of DEFAULT_METRICS that all runs have that were evaluated already; None if there is none."""
    evaluated = [run.evaluation for run in runs if run.evaluation]
    for name in DEFAULT_METRICS:
        if evaluated and all(name in curves for curves in evaluated):
            return name
    return None


def default_train_metric(runs: Sequence[RunCurves], metric: str | None) -> str:
    """The training's own value of the metric where all runs log it, else the loss."""
    logged = [run.training for run in runs if run.training]
    for name in (f"train_{metric}", training_loss(metric)):
        if name is not None and logged and all(name in curves for curves in logged):
            return name
    return "loss"


def training_loss(metric: str | None) -> str | None:
    """The training loss that a loss of the validation split is comparable with, by name; None for any other metric."""
    if metric == "val_loss":
        return "loss"
    return metric.removeprefix("val_losses/") if metric is not None and metric.startswith("val_losses/") else None


def find_curve(runs: Sequence[RunCurves], run: RunCurves, kind: CurveKind, name: str) -> MetricCurve | None:
    """The curve of that name of one of the runs; None if it has no record of this kind yet, but another run has.

    Raises ConfigError naming the file that has other metrics, and which.
    """
    curves = run.of_kind(kind)
    if name in curves:
        return curves[name]
    if not curves and any(other.of_kind(kind) for other in runs):
        return None
    other_kind: CurveKind = "training" if kind == "evaluation" else "evaluation"
    near = nearest(name, curves)
    hint = f"did you mean '{printable(near)}'? " if near else ""
    if name in run.of_kind(other_kind):
        hint = f"it is a metric of the {other_kind}: give it as {CHOSEN_BY[other_kind]}; "
    known = ", ".join(printable(key[:40]) for key in sorted(curves)[:50])
    raise ConfigError(f"{run.file} has no {kind} metric '{name}'; {hint}it has {known or 'none'}")


def smoothed(curve: MetricCurve, width: int) -> MetricCurve:
    """Each value averaged with the `width` - 1 values before it, or as many as there are; NaNs are left out, and stay."""
    values = []
    for end, last in enumerate(curve.values, start=1):
        window = [value for value in curve.values[max(0, end - width) : end] if not math.isnan(value)]
        values.append(last if math.isnan(last) else sum(window) / len(window))
    return MetricCurve(curve.steps, values)


def plot_curves(plot: CurvePlot, file: Path) -> None:
    """Draw into a file, one colour a run: solid the evaluations, dashed the training.

    A training curve of another quantity than the evaluations' has its own axis on the right.
    """
    figure, families = new_figure(9, 5.5), plot_families([run.label for run in plot.runs])
    metric, train_metric = plot_text(plot.metric or ""), plot_text(plot.train_metric)
    axes = figure.subplots()
    comparable = (plot.metric, training_loss(plot.metric))
    same_quantity = plot.metric is None or plot.train_metric.removeprefix("train_") in comparable
    training_axes = axes if same_quantity else axes.twinx()
    for color, run in zip(curve_colors(len(plot.runs)), plot.runs, strict=True):
        if run.training is not None:
            # A leading underscore keeps a curve out of the legend: one entry a run.
            label = plot_text(run.label) if run.evaluation is None else "_training"
            curve = run.training
            training_axes.plot(curve.steps, curve.values, "--", color=color, linewidth=0.9, alpha=0.8, label=label)
        if run.evaluation is not None:
            curve = run.evaluation
            axes.plot(curve.steps, curve.values, "-o", color=color, linewidth=1.6, markersize=3, label=plot_text(run.label))
    title = f"dashed: {train_metric} (training)" + (f", solid: {metric} (evaluation)" if metric else "")
    axes.set(xlabel="step", ylabel=metric or train_metric, title=title)
    if training_axes is not axes:
        training_axes.set_ylabel(train_metric)
    axes.grid(alpha=0.3)
    add_legend_below(figure, len(plot.runs), families)
    save_figure(figure, file)


def add_legend_below(figure: Figure, entries: int, families: Sequence[str] | None) -> None:
    """Add a legend of so many entries below the axes, where no curve of a second axis runs across it: up to four columns, as
    many as the figure's width has room for."""
    for columns in range(min(entries, 4), 0, -1):
        legend = figure.legend(loc="outside lower center", ncols=columns, prop={"family": families} if families else None)
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()
