"""The whole story of a detector: pre-train a classifier, fine-tune a detector from it, evaluate that, draw what it finds."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from detection.config import ClassifierConfig, Config, with_weights
from detection.data.catalog import Dataset
from detection.data.digits import default_folder, make_digits
from detection.data.images import read_image
from detection.data.settle import Tell
from detection.engine.distributed import World
from detection.engine.folder import hold_folder
from detection.engine.group import process_group
from detection.engine.state import BEST, has_begun
from detection.errors import TrainingError
from detection.evaluation.split import load_evaluation_split
from detection.files import write_json
from detection.inference.detector import load_detector
from detection.inference.evaluate import evaluate
from detection.pretraining import train_classifier
from detection.structures import DetectionsByImage
from detection.training.alternating import FOLDERS
from detection.training.train import train_detector
from detection.visualize import contact_sheet, draw_boxes, save_image

logger = logging.getLogger(__name__)

SUMMARY_METRICS = ("voc07", "voc_area", "AP", "AP50", "AP75")
DEPRECATED_KEYS = {
    "voc07_map": "voc07",
    "voc_area_map": "voc_area",
    "coco_ap": "AP",
    "coco_ap50": "AP50",
    "coco_ap75": "AP75",
}
"""Old keys of summary.json -> the keys that replace them; both are written for one release."""
DRAWN_IMAGES = 12
DRAWN_SCORE = 0.5  # detections of at most this score are not drawn


@dataclass(frozen=True)
class QuickstartResult:
    """What the stages gave; `summary` is the file that holds it."""

    metrics: dict[str, float]  # SUMMARY_METRICS on the test split
    seconds: dict[str, float]  # "pretrain", "train" and "evaluate"; a resumed stage's earlier parts count
    pictures: tuple[Path, ...]  # contact sheets: detections, ground truth
    summary: Path


def run_quickstart(
    config: Config,
    pretrain_config: ClassifierConfig,
    output_dir: Path,
    *,
    device: torch.device | str = "auto",
    tell: Tell = logger.info,
    on_stage: Callable[[str], object] = logger.info,
) -> QuickstartResult:
    """Run both training stages, evaluate on the test split, draw, and write `output_dir`/summary.json.

    The stages' own folders are `output_dir`/classifier and `output_dir`/detector, whatever the configs say. A stage that
    was begun goes on, a finished one is not trained again. `output_dir` is held meanwhile. `device` is that of both trainings
    and of the evaluation. `on_stage` is called with each stage's name as it begins, `tell` with the sentences that precede the
    runs' own logs. Raises TrainingError where a signal stopped a stage, and the errors of `train_detector`.
    """
    world = World.from_environment(device)
    with process_group(world, config.train), hold_folder(world, output_dir):
        return _run_stages(config, pretrain_config, output_dir, device, tell, on_stage)


def _run_stages(
    config: Config,
    pretrain_config: ClassifierConfig,
    output_dir: Path,
    device: torch.device | str,
    tell: Tell,
    on_stage: Callable[[str], object],
) -> QuickstartResult:
    pretrain_config = pretrain_config.model_copy(update={"output_dir": output_dir / "classifier"})
    config = config.model_copy(update={"output_dir": output_dir / "detector"})
    on_stage("pretrain")
    classifier = train_classifier(pretrain_config, resume=has_begun(pretrain_config.output_dir), device=device, tell=tell)
    _require_finished(classifier.interrupted)
    config = with_weights(config, classifier.weights)
    on_stage("train")
    training = train_detector(config, resume=has_begun(config.output_dir, FOLDERS), device=device, tell=tell)
    _require_finished(training.interrupted)
    on_stage("evaluate")
    start = time.monotonic()
    dataset = load_evaluation_split(config).dataset
    evaluation = evaluate(load_detector(config.output_dir / BEST, config, device), dataset)
    metrics = {key: evaluation.metrics[key] for key in SUMMARY_METRICS}
    evaluation_seconds = time.monotonic() - start
    pictures = draw_detections(dataset, evaluation.detections, output_dir / "pictures")
    stages = {"pretrain": classifier.training.seconds, "train": training.seconds, "evaluate": evaluation_seconds}
    seconds = {name: round(value, 1) for name, value in stages.items()}
    write_json(output_dir / "summary.json", summarize(metrics, seconds))
    return QuickstartResult(metrics, seconds, pictures, output_dir / "summary.json")


def make_sample_data(tell: Tell = logger.info) -> None:
    """Make the data of the configs `resdet:quickstart` and `resdet:quickstart_pretrain`, unless it is where they look for it.

    Raises DatasetError where scikit-learn is not installed.
    """
    folder = default_folder()
    if Path("digits").exists() or folder.exists():
        return
    tell(f"making the sample data {folder}: half a minute, 220 MB")
    make_digits(folder)


def summarize(metrics: Mapping[str, float], seconds: Mapping[str, float]) -> dict[str, object]:
    """The content of summary.json: the metrics by their keys, by the deprecated ones too, and the seconds."""
    return {
        **metrics,
        "seconds": dict(seconds),
        "deprecated": f"the next release leaves out {', '.join(f'{old} (now {new})' for old, new in DEPRECATED_KEYS.items())}",
        **{old: metrics[new] for old, new in DEPRECATED_KEYS.items()},
    }


def draw_detections(dataset: Dataset, detections: DetectionsByImage, folder: Path) -> tuple[Path, Path]:
    """Draw the detections on the first DRAWN_IMAGES images, one file each, and two sheets of all: detections, ground truth.

    Returns the sheets' files.
    """
    truth_images, detection_images = [], []
    for record in dataset.records[:DRAWN_IMAGES]:
        image = read_image(record.file)
        found = detections[record.image_id]
        found = found[found.scores > DRAWN_SCORE]
        truth_images.append(draw_boxes(image, record.boxes, record.labels, dataset.class_names))
        detection_images.append(draw_boxes(image, found.boxes, found.labels, dataset.class_names, found.scores))
        save_image(folder / f"{record.image_id}.jpg", detection_images[-1])
    sheets = (folder / "detections.png", folder / "ground_truth.png")
    for file, images in zip(sheets, (detection_images, truth_images), strict=True):
        save_image(file, contact_sheet(images, columns=4))
    return sheets


def _require_finished(interrupted: bool) -> None:
    if interrupted:
        raise TrainingError("stopped before the end; run it again to go on from here")
