"""The whole story in one command: pre-train a classifier, fine-tune a detector from it, evaluate, draw."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from detection.cli.commands.pretrain import pretrained
from detection.cli.runs import has_begun, starting_from
from detection.config import load_classifier_config, load_config
from detection.errors import TrainingError

if TYPE_CHECKING:
    from detection.config import Config
    from detection.data.catalog import Dataset
    from detection.structures import Detections, ImageId

TITLES = {
    "voc07_map": "mAP@.5, VOC 11-point",
    "voc_area_map": "mAP@.5, VOC area",
    "coco_ap": "COCO AP@[.5,.95]",
    "coco_ap50": "COCO AP50",
    "coco_ap75": "COCO AP75",
}


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="quickstart", description=__doc__)
    parser.add_argument("--config", default="configs/quickstart.yaml", help="the detection stage")
    parser.add_argument("--pretrain-config", default="configs/quickstart_pretrain.yaml", help="the classification stage")
    parser.add_argument("--output-dir", type=Path, default=Path("runs/quickstart"))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run both stages (or what is left of them), evaluate on the test split, draw, and write summary.json."""
    options = build_parser().parse_args(argv)
    from detection.files import write_json

    folder: Path = options.output_dir
    pretrain = load_classifier_config(options.pretrain_config, [f"output_dir={folder / 'classifier'}"])
    config = load_config(options.config, [f"output_dir={folder / 'detector'}"])
    console = Console(highlight=False)
    console.rule("pretrain")
    classifier = pretrained(pretrain)
    _require_finished(classifier.interrupted)
    seconds = {"pretrain": classifier.training.seconds}
    config = starting_from(config, classifier.weights)
    console.rule("train")
    seconds["train"] = _train(config)
    console.rule("evaluate")
    start = time.monotonic()
    dataset, detections = _predict(config)
    figures = _evaluate(dataset, detections)
    seconds["evaluate"] = time.monotonic() - start
    pictures = _draw(dataset, detections, folder / "pictures")
    seconds = {name: round(value, 1) for name, value in seconds.items()}
    write_json(folder / "summary.json", {**figures, "seconds": seconds})
    console.print(_table(figures, seconds))
    for path in (*pictures, folder / "summary.json"):
        console.print(path, soft_wrap=True)
    return 0


def _train(config: Config) -> float:
    """Likewise."""
    from detection.cli.commands.train import run_training

    result = run_training(config, resume=has_begun(config.output_dir))
    _require_finished(result.interrupted)
    return result.seconds


def _require_finished(interrupted: bool) -> None:
    if interrupted:
        raise TrainingError("stopped before the end; the same command goes on from here")


def _predict(config: Config) -> tuple[Dataset, dict[ImageId, Detections]]:
    from detection.data import load_dataset
    from detection.inference.dataset import predict_dataset
    from detection.inference.detector import load_detector

    dataset = load_dataset(config.data.test or config.data.val, config.data.classes, config.data.strict)
    model = load_detector(config.output_dir / "best.pt", config)
    return dataset, predict_dataset(model, dataset.records, workers=config.data.workers)


def _evaluate(dataset: Dataset, detections: dict[ImageId, Detections]) -> dict[str, float]:
    from detection.evaluation import evaluate_coco, evaluate_voc

    names = dataset.class_names
    coco = evaluate_coco(dataset.records, detections, names)
    return {
        "voc07_map": evaluate_voc(dataset.records, detections, names, metric="voc07").mean_ap,
        "voc_area_map": evaluate_voc(dataset.records, detections, names, metric="area").mean_ap,
        "coco_ap": coco["AP"],
        "coco_ap50": coco["AP50"],
        "coco_ap75": coco["AP75"],
    }


def _draw(dataset: Dataset, detections: dict[ImageId, Detections], folder: Path, count: int = 12) -> list[Path]:
    """Detections on the first test images, one file each and all on a sheet beside the ground truth."""
    from detection.data.images import read_image
    from detection.visualize import contact_sheet, draw_boxes, save_image

    truths, founds, paths = [], [], []
    for record in dataset.records[:count]:
        image = read_image(record.file)
        sure = detections[record.image_id]
        sure = sure[sure.scores > 0.5]
        truths.append(draw_boxes(image, record.boxes, record.labels, dataset.class_names))
        founds.append(draw_boxes(image, sure.boxes, sure.labels, dataset.class_names, sure.scores))
        paths.append(folder / f"{record.image_id}.jpg")
        save_image(paths[-1], founds[-1])
    for name, images in (("detections.png", founds), ("ground_truth.png", truths)):
        save_image(folder / name, contact_sheet(images, columns=4))
    return [folder / "detections.png", folder / "ground_truth.png"]


def _table(figures: dict[str, float], seconds: dict[str, float]) -> Table:
    table = Table(title="test split: handwriting never seen in training")
    table.add_column("measure")
    table.add_column("value", justify="right")
    for key, value in figures.items():
        table.add_row(TITLES[key], f"{value:.3f}")
    table.add_section()
    for name, value in seconds.items():
        table.add_row(f"seconds: {name}", f"{value:.0f}")
    table.add_row("seconds: all", f"{sum(seconds.values()):.0f}")
    return table
