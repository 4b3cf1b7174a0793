"""Curves of several runs, read and chosen by a program."""

import json
from pathlib import Path

import pytest

from detection.analysis.curves import MetricCurve, add_legend_below, plot_curves, read_run, select_curves, smoothed
from detection.analysis.plots import curve_colors, label_runs, new_figure
from detection.data.images import read_image
from detection.errors import ConfigError


def write_run(folder: Path, errors: list[float], end: str = "") -> Path:
    folder.mkdir(parents=True)
    lines = []
    for number, error in enumerate(errors, start=1):
        step = number * 10
        lines.append({"kind": "train", "step": step, "loss": error, "losses": {"loss_x": error}, "train_top1_error": error / 2})
        lines.append({"kind": "evaluation", "step": step, "metrics": {"top1_error": error, "top5_error": 0.0}})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + end)
    return folder


def test_curves_are_read_by_name(tmp_path):
    curves = read_run(write_run(tmp_path / "a", [0.9, 0.5], end='{"kind": "tra'))
    assert curves.evaluation["top1_error"] == MetricCurve([10, 20], [0.9, 0.5])
    assert curves.training["loss_x"].values == [0.9, 0.5] and curves.training["train_top1_error"].values == [0.45, 0.25]


def test_a_point_is_the_mean_of_those_before_it():
    assert smoothed(MetricCurve([1, 2, 3, 4], [4.0, 2.0, 0.0, 1.0]), 2).values == [4, 3, 1, 0.5]


def test_labels_of_runs_are_as_much_of_their_paths_as_differs():
    assert label_runs([Path("x/plain/run"), Path("x/resnet/run")], None) == ["plain/run", "resnet/run"]
    assert label_runs([Path("x/plain"), Path("y/resnet")], None) == ["plain", "resnet"]


def test_no_two_runs_have_one_color():
    assert all(len(set(curve_colors(count))) == count for count in (1, 10, 11, 25))


def test_a_plot_is_selected_drawn_and_plain_data(tmp_path):
    runs = [write_run(tmp_path / name, errors) for name, errors in (("plain", [0.9, 0.8]), ("resnet", [0.9, 0.6]))]
    plot = select_curves(runs, metric="top1_error", train_metric="loss", smooth=1)
    assert [run.label for run in plot.runs] == ["plain", "resnet"]
    assert plot.runs[1].evaluation == plot.runs[1].training == MetricCurve([10, 20], [0.9, 0.6])
    plot_curves(plot, tmp_path / "new/curves.png")
    assert read_image(tmp_path / "new/curves.png").shape[1] > 1000
    assert plot.as_json()["runs"]["plain"]["evaluation"] == {"steps": [10, 20], "values": [0.9, 0.8]}


@pytest.mark.parametrize("label", ["", " ", "a\nb", "\x1b[2J", "x" * 5000])
def test_a_label_is_a_name_that_can_be_shown(label):
    with pytest.raises(ConfigError, match=r"^a label \(--labels\) .{10,300}$"):
        label_runs([Path("run")], [label])


def test_losses_of_the_validation_split_are_drawn_beside_the_trainings(tmp_path):
    run = write_run(tmp_path / "a", [0.9, 0.5])
    more = {"kind": "evaluation", "step": 30, "metrics": {}, "val_loss": 0.7, "val_losses": {"loss_x": 0.6}}
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(more) + "\n")
    total, one = select_curves([run], metric="val_loss"), select_curves([run], metric="val_losses/loss_x")
    assert (total.train_metric, total.runs[0].evaluation) == ("loss", MetricCurve([30], [0.7]))
    assert (one.train_metric, one.runs[0].evaluation) == ("loss_x", MetricCurve([30], [0.6]))
    plot_curves(total, tmp_path / "curves.png")
    with pytest.raises(ConfigError, match="has no evaluation metric 'val_los'; did you mean 'val_loss'"):
        select_curves([run], metric="val_los")


@pytest.mark.parametrize(("labels", "columns"), [(["a"], 1), (list("abcdefg"), 4), (["a run with a long name " * 2] * 13, 2)])
def test_a_legend_is_as_wide_as_the_figure_at_most(labels, columns):
    figure = new_figure(9, 5.5)
    axes = figure.subplots()
    for label in labels:
        axes.plot([0, 1], [0, 1], label=label)
    add_legend_below(figure, len(labels), None)
    figure.draw_without_rendering()
    [legend] = figure.legends
    extent = legend.get_window_extent()
    assert extent.x0 >= 0 and extent.x1 <= figure.bbox.width
    assert len({round(text.get_window_extent().x0) for text in legend.get_texts()}) == columns
