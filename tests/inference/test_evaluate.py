"""`evaluate`: a detector or an ensemble on its own test split or on a data set that is given."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from detection import Detector, Ensemble, evaluate, load_detector
from detection.config import override_config
from detection.data import Dataset
from detection.errors import ConfigError, DatasetError
from detection.evaluation.coco import evaluate_coco
from detection.evaluation.split import load_evaluation_split
from detection.evaluation.voc import evaluate_voc
from detection.inference.dataset import predict_dataset
from detection.inference.evaluate import evaluate_detections
from detection.inference.latency import LatencyMeter
from detection.report.reported import Latency
from tests.cli.trained import write_trained


@pytest.fixture
def model(tmp_path: Path) -> Detector:
    """A detector with random weights; its config names three pictures of random numbers as the test split."""
    return load_detector(write_trained(tmp_path) / "best.pt")


@pytest.fixture
def dataset(model: Detector) -> Dataset:
    """What the model itself finds in the pictures as their ground truth, so that no metric is zero."""
    dataset = load_evaluation_split(model.config).dataset
    found = predict_dataset(model, dataset.records, workers=0)
    best = {image: detections[:4] for image, detections in found.items()}
    records = [
        replace(
            record,
            boxes=best[record.image_id].boxes,
            labels=best[record.image_id].labels,
            difficult=torch.zeros(4, dtype=torch.bool),
            crowd=torch.zeros(4, dtype=torch.bool),
            areas=torch.full((4,), 5000.0),
        )
        for record in dataset.records
    ]
    return replace(dataset, records=records)


def test_the_metrics_are_those_of_both_standards(model: Detector, dataset: Dataset) -> None:
    done: list[int] = []
    result = evaluate(model, dataset, report=done.append)
    assert done[-1] == 3 and set(result.detections) == {record.image_id for record in dataset.records}
    arguments = (dataset.records, result.detections, dataset.class_names)
    area, voc07 = evaluate_voc(*arguments, metric="area"), evaluate_voc(*arguments, metric="voc07")
    assert result.metrics == {**evaluate_coco(*arguments), "voc_area": area.mean_ap, "voc07": voc07.mean_ap}
    assert result.metrics["AP50"] > 0.5
    assert result.class_ap["voc_area"] == area.ap and result.class_ap["voc07"] == voc07.ap
    mean = sum(result.class_ap["AP"].values()) / len(result.class_ap["AP"])
    assert mean == pytest.approx(result.metrics["AP"])


def test_the_test_split_of_the_config_is_the_default(model: Detector) -> None:
    result = evaluate(model)
    again = evaluate_detections(load_evaluation_split(model.config).dataset, result.detections)
    assert len(result.detections) == 3 and again.metrics == result.metrics


def test_an_ensemble_is_evaluated_like_a_detector(model: Detector, dataset: Dataset) -> None:
    assert evaluate(Ensemble([model, model]), dataset).metrics == pytest.approx(evaluate(model, dataset).metrics, abs=1e-6)


def test_what_cannot_be_evaluated_is_said(model: Detector, dataset: Dataset) -> None:
    found = evaluate(model, dataset, workers=0).detections
    with pytest.raises(DatasetError, match="detections of image 'im2', which the evaluated split does not hold"):
        evaluate_detections(replace(dataset, records=dataset.records[:2]), found)
    model.config = override_config(model.config, ["data.test=[]"])
    with pytest.raises(ConfigError, match=r"set data\.test or data\.val"):
        evaluate(model)


def test_latency_is_the_time_of_predict_after_the_first_call(model: Detector, dataset: Dataset, monkeypatch) -> None:
    now = iter([0.0, 100.0, 200.0, 200.5, 300.0, 301.0])  # a slow first call, then half a second and a second
    monkeypatch.setattr("detection.inference.dataset.perf_counter", lambda: next(now))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    ten = [replace(dataset.records[index % 3], image_id=index) for index in range(10)]  # four at a time
    result = evaluate(model, replace(dataset, records=ten), workers=0)
    assert result.latency == Latency(1.5 / 6, "CPU, 2 threads")


def test_a_report_reads_images_as_large_as_the_detector_does(model: Detector, dataset: Dataset) -> None:
    model.config = override_config(model.config, ["data.max_pixels=200000000"])
    assert evaluate(model, dataset, workers=0).reported("mine").max_pixels == 200_000_000


def test_latency_without_a_second_call_or_an_image(model: Detector) -> None:
    meter = LatencyMeter()
    assert meter.latency(model.device) is None
    meter.add(4, 2.0)
    latency = meter.latency(model.device)
    assert latency is not None and latency.seconds_per_image == 0.5


def test_an_evaluation_writes_its_report(model: Detector, dataset: Dataset, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").write_text('{"kind": "train", "step": 1, "loss": 2.0}\n')
    result = model.evaluate(dataset)
    index = result.report(tmp_path / "report", run=run)
    assert index == tmp_path / "report/index.html" and "<h1>" in index.read_text()
    reported = result.reported("mine")
    assert reported.dataset is dataset and reported.latency == result.latency and reported.label == "mine"
    with pytest.raises(DatasetError, match="name the output folder of a run"):
        result.report(tmp_path / "other", run=tmp_path / "none")
