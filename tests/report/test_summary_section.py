"""The first screen: its numbers, the curves of a run, and the rule that calls them overfitting."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from detection.engine.run_curves import MetricCurve, RunCurves
from detection.report.finding import main_finding
from detection.report.folder import REPORT_FILE
from detection.report.page import write_report
from detection.report.reported import Latency, analyse
from detection.report.sections.summary import build, head_numbers
from detection.report.training_curves import MAX_POINTS, describe_overfitting, loss_curves, metric_curves
from tests.report.scenes import HOSTILE_NAMES, reported, scene


def run_of(training, validation=(), every=10, **evaluation) -> RunCurves:
    """A run with a training loss at each step, a validation loss at each `every` steps, and other evaluations there."""
    curves = {"val_loss": validation, **evaluation} if len(validation) else evaluation
    steps = [every * number for number in range(1, 1000)]
    return RunCurves(
        Path("metrics.jsonl"),
        {"loss": MetricCurve(list(range(1, len(training) + 1)), list(training))} if len(training) else {},
        {name: MetricCurve(steps[: len(values)], list(values)) for name, values in curves.items()},
    )


def test_the_numbers_of_a_scene():
    one = reported(*scene())
    shown = {number.title: number for number in head_numbers(analyse(replace(one, latency=Latency(0.0842, "CPU, 2 threads"))))}
    assert shown["AP"].text == f"{one.metrics['AP']:.3f}" and shown["VOC mAP"].text == f"{one.metrics['voc_area']:.3f}"
    assert f"11-point {one.metrics['voc07']:.3f}" in shown["VOC mAP"].note
    assert (shown["latency"].text, shown["latency"].note) == ("84.2 ms", "per image, CPU, 2 threads")
    assert shown["images"].text == "12" and shown["detections"].text == "360"
    to_find = sum(int(record.trainable.sum()) for record in one.dataset.records)
    ignored = sum(int((~record.trainable).sum()) for record in one.dataset.records)
    assert shown["objects"].text == str(to_find) and f"and {ignored} ignored" in shown["objects"].note


@pytest.mark.parametrize(("seconds", "text"), [(0.00123, "1.23 ms"), (0.5, "500 ms"), (1.25, "1.25 s")])
def test_latencies_have_a_unit_that_suits_them(seconds, text):
    numbers = head_numbers(analyse(replace(reported(*scene(num_images=1)), latency=Latency(seconds, "GPU"))))
    assert text in [number.text for number in numbers]


@pytest.mark.parametrize("nothing", [scene(num_images=0), scene(num_objects=0), scene(num_detections=0)])
def test_nothing_to_measure_is_a_dash_or_zero(nothing, tmp_path):
    one = reported(*nothing)
    data = build(analyse(one))
    texts = {number.title: number.text for number in data.numbers}
    assert "latency" not in texts and texts["AP"] in ("–", "0.000") and data.losses == [] and data.overfitting is None
    assert write_report(one, tmp_path / "report").exists()
    json.loads((tmp_path / "report" / REPORT_FILE).read_text(), parse_constant=pytest.fail)


def test_a_long_curve_is_thinned_to_means():
    values = np.arange(10_000, dtype=float)
    (curve,) = loss_curves(run_of(values))[0].curves
    size = -(-10_000 // MAX_POINTS)
    assert len(curve.values) <= MAX_POINTS and curve.steps[-1] == 10_000
    assert curve.values[0] == pytest.approx(values[:size].mean()) and curve.steps[0] == size
    assert loss_curves(run_of([1.0, math.nan, 3.0]))[0].curves[0].values == [1, None, 3]
    assert loss_curves(run_of([])) == [] and metric_curves(run_of([])) == []


def test_losses_stand_beside_those_of_the_validation():
    run = run_of([2.0, 1.0], [1.5], AP=[0.25])
    run.training["loss_rpn_box"] = MetricCurve([1, 2], [0.2, 0.1])
    run.training["learning_rate"] = MetricCurve([1, 2], [0.2, 0.1])
    run.evaluation["val_losses/loss_rpn_box"] = MetricCurve([10], [0.3])
    shown = {each.name: [(curve.label, curve.values) for curve in each.curves] for each in loss_curves(run)}
    assert shown == {
        "loss": [("training", [2.0, 1.0]), ("validation", [1.5])],
        "loss_rpn_box": [("training", [0.2, 0.1]), ("validation", [0.3])],
    }
    assert [(curve.label, curve.values) for curve in metric_curves(run)] == [("AP", [0.25])]


FALLING = np.linspace(2, 0.5, 50)
FLAT = np.full(50, 1.0)


@pytest.mark.parametrize(
    ("training", "validation", "is_told"),
    [
        (FALLING, [1.5, 1.2, 1.0, 1.1, 1.2], True),
        (FALLING, [1.5, 1.4, 1.3, 1.2, 1.1], False),  # still falling
        (FALLING, [1.5, 1.2, 1.0, 1.02, 1.04], False),  # flat within noise
        (FALLING, [1.5, 1.2, 1.1, 1.0, 1.2], False),  # one evaluation may be a bump
        (FALLING, [1.5, 1.0, 1.4, 1.2, 1.01], False),  # and is one
        (FLAT, [1.5, 1.2, 1.0, 1.1, 1.2], False),  # the training does not improve either
        (FALLING[::-1], [1.5, 1.2, 1.0, 1.1, 1.2], False),  # it diverges
        (FALLING, [1.0, math.nan, 1.1, math.nan, 1.2], True),
        (FALLING, [math.nan] * 5, False),
        (FALLING, [1.0, 1.2], False),
        (FALLING, [], False),
        ([], [1.5, 1.2, 1.0, 1.1, 1.2], False),
    ],
)
def test_overfitting_is_a_validation_loss_that_rises_while_the_training_loss_falls(training, validation, is_told):
    told = describe_overfitting(run_of(training, validation))
    assert (told is not None) == is_told
    if told and not math.isnan(validation[1]):
        assert told.startswith(
            "The validation loss was lowest at step 30 (1) and is 20 % higher at step 50, while the training"
        )


@pytest.mark.parametrize("width", [390, 1600])
def test_curves_are_drawn_and_the_loss_can_be_chosen(open_page, tmp_path, width):
    run = run_of(FALLING, [1.5, 1.2, 1.0, 1.1, 1.2], AP=[0.1, 0.2], voc_area=[0.2, 0.3])
    run.training["loss_<b>x</b>"] = MetricCurve([1, 2, 3], [0.2, math.nan, 0.1])
    one = replace(reported(*scene(class_names=HOSTILE_NAMES, folder=tmp_path)), run=run, latency=Latency(0.5, "<i>GPU</i>"))
    page = open_page(write_report(one, tmp_path / "report"), width)
    legend = page.locator("#loss-curves .u-legend")
    assert "training" in legend.inner_text() and "validation" in legend.inner_text()
    assert "sign of overfitting" in page.locator("#loss-curves").inner_text()
    assert "VOC mAP, area" in page.locator("#metric-curves .u-legend").inner_text()
    page.locator("#loss-curves select").select_option(label="loss_<b>x</b>")
    assert "validation" not in legend.inner_text() and page.locator("#loss-curves canvas").count() == 1
    assert "per image, <i>GPU</i>" in page.locator("#summary").inner_text()


def test_the_first_screen_fits_a_window(open_page, tmp_path):
    run = run_of(FALLING, [1.5, 1.2, 1.0, 1.1, 1.2], AP=[0.1, 0.2], AP50=[0.2, 0.3], AP75=[0.2, 0.3], voc_area=[0.2, 0.3])
    one = replace(reported(*scene(folder=tmp_path)), run=run, latency=Latency(0.0842, "CPU, 2 threads"))
    page = open_page(write_report(one, tmp_path / "report"))
    box = page.locator("#summary").bounding_box()
    assert box["y"] + box["height"] <= 1000
    assert page.locator(".finding").inner_text() == main_finding(analyse(one))


def test_a_page_without_a_run_says_what_would_be_there(open_page, tmp_path):
    page = open_page(write_report(reported(*scene(folder=tmp_path)), tmp_path / "report"), 390)
    assert "No training curves" in page.locator("#summary").inner_text() and page.locator("#summary canvas").count() == 0
