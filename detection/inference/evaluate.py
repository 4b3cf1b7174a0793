"""How well a detector finds the objects of a data set: detections, and every metric from them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from detection.config import MAX_PIXELS
from detection.data.catalog import Dataset
from detection.engine.distributed import World
from detection.engine.run_curves import RunCurves, read_run
from detection.evaluation.coco import COCO_CAP, evaluate_coco_records
from detection.evaluation.known import ignore_unknown, without_unknown
from detection.evaluation.metrics import METRICS
from detection.evaluation.predicted_masks import PREFIX, evaluate_predicted_masks
from detection.evaluation.split import load_evaluation_split
from detection.evaluation.voc import evaluate_voc
from detection.evaluation.voc_masks import evaluate_predicted_voc_masks
from detection.inference.dataset import predict_together
from detection.inference.latency import LatencyMeter
from detection.inference.predictor import Predictor
from detection.report.page import write_report
from detection.report.reported import Latency, ReportedDetector
from detection.structures import DetectionsByImage
from detection.terminal import table_lines

_MOST_CLASSES = 100  # in what `print` shows


@dataclass(frozen=True)
class EvaluationResult:
    """Metrics by the keys of `detection.evaluation.metrics.METRICS`, and the detections that they were computed from.

    `print` shows all metrics, and the classes by their AP; `report` writes the page that says what is wrong.
    """

    # COCO's twelve numbers, APcap and ARcap if test.max_detections > 100, voc_area, voc07; if there are masks their twelve,
    # mask_voc50 and mask_voc70
    metrics: dict[str, float]
    # "AP", "voc_area", "voc07", and if there are masks "mask_AP", "mask_voc50", "mask_voc70" -> class name -> AP, of the
    # classes that have objects
    class_ap: dict[str, dict[str, float]]
    detections: DetectionsByImage = field(repr=False)  # by image, in its own pixels, on the CPU
    dataset: Dataset = field(repr=False)  # the ground truth that they were compared with
    latency: Latency | None = None  # per image, of the detector; None where only its detections were given
    max_pixels: int = MAX_PIXELS  # `data.max_pixels` of the detector, which holds for the report's thumbnails, too

    def report(self, folder: str | Path, *, label: str | None = None, run: str | Path | None = None) -> Path:
        """Write the report into a folder, which is made; returns its index.html, which any browser opens.

        `run`: the output folder of the training, whose curves are shown. `label`: what the page calls the detector, by default
        the run. Raises DatasetError for what is no run, or a folder that holds anything but an older report; OSError.
        """
        curves = None if run is None else read_run(Path(run))
        return write_report(self.reported(label or str(run or "detector"), curves), Path(folder))

    def reported(self, label: str, run: RunCurves | None = None) -> ReportedDetector:
        """What a report is made of."""
        return ReportedDetector(
            label, self.dataset, self.detections, self.metrics, self.class_ap, self.latency, run, self.max_pixels
        )

    def __str__(self) -> str:
        titles = [(METRICS[key].title, _number(value)) for key, value in self.metrics.items()]
        heading = ("class", *(METRICS[key].title for key in self.class_ap))
        names = sorted(dict.fromkeys(name for values in self.class_ap.values() for name in values))
        rows = [(name, *(_number(values.get(name, math.nan)) for values in self.class_ap.values())) for name in names]
        more = [f"... and {len(rows) - _MOST_CLASSES} more classes"] if len(rows) > _MOST_CLASSES else []
        return "\n".join([*table_lines(titles), "", *table_lines([heading, *rows[:_MOST_CLASSES]]), *more])


def evaluate(
    model: Predictor,
    dataset: Dataset | None = None,
    *,
    workers: int | None = None,
    report: Callable[[int], None] | None = None,
    world: World | None = None,
) -> EvaluationResult:
    """Run a detector, or several as one, on each image of a data set, and compare what it finds with the ground truth.

    `dataset` defaults to the test split of the model's config (`data.test`, or else `data.val`), `workers`, the loader's
    processes, to the config's. `report` hears how many images are done. How long `model.predict` took per image, without
    reading the file, is the result's `latency`. In each process of a `world`, whose group is connected, a call detects in its
    share of the images, and all get the same metrics. Raises ConfigError where the config names no such split, DatasetError for
    annotations or images that cannot be read.
    """
    data = load_evaluation_split(model.config).dataset if dataset is None else dataset
    workers = model.config.data.workers if workers is None else workers
    meter = LatencyMeter()
    alone = World(0, 1, model.device)
    found = predict_together(model, data.records, world or alone, workers=workers, report=report, on_timed=meter.add)
    result = evaluate_detections(data, found, model.config.test.max_detections)
    return replace(result, latency=meter.latency(model.device), max_pixels=model.config.data.max_pixels)


def evaluate_detections(dataset: Dataset, detections: DetectionsByImage, max_detections: int = COCO_CAP) -> EvaluationResult:
    """Every metric of given detections. An image without detections counts as one in which nothing was found.

    `max_detections`: of one image, for the metrics APcap and ARcap, where it is above 100. Objects and detections of classes
    that an image does not know count as ignored, and as not there, in what is returned, too. Raises DatasetError for detections
    of an image that the data set does not hold.
    """
    if any(record.known is not None for record in dataset.records):
        dataset = replace(dataset, records=ignore_unknown(dataset.records))
        detections = without_unknown(dataset.records, detections)
    records, class_names = dataset.records, dataset.class_names
    coco = evaluate_coco_records(records, detections, class_names, max_detections)
    area = evaluate_voc(records, detections, class_names, metric="area")
    voc07 = evaluate_voc(records, detections, class_names, metric="voc07")
    masks = evaluate_predicted_masks(records, detections, class_names)
    voc_masks = evaluate_predicted_voc_masks(records, detections, class_names)
    mask_numbers = {} if masks is None else {f"{PREFIX}{key}": value for key, value in masks.numbers.items()}
    mask_numbers |= {key: result.mean_ap for key, result in voc_masks.items()}
    mask_ap = {} if masks is None else {f"{PREFIX}AP": masks.class_ap}
    mask_ap |= {key: result.ap for key, result in voc_masks.items()}
    return EvaluationResult(
        {**coco.numbers, "voc_area": area.mean_ap, "voc07": voc07.mean_ap, **mask_numbers},
        {"AP": coco.class_ap, "voc_area": area.ap, "voc07": voc07.ap, **mask_ap},
        detections,
        dataset,
    )


def _number(value: float) -> str:
    """To four decimals; "-" where there was nothing to measure, which COCO calls -1 and VOC NaN."""
    return "-" if math.isnan(value) or value < 0 else f"{value:.4f}"
