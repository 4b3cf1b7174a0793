"""What tiles gain where objects are small and images big: the same detector trained and tested on whole images and on tiles.

The images are composed of COCO's: shrunken photographs, strewn over a grey sheet of 2400 x 1800 pixels. One class, person.
Writes DIR/tiling.json, a row for each way to train and to test, as each is done; a training that is there is not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from detection import evaluate, load_detector, train_detector
from detection.config import Config, override_config, parse_config
from detection.data.images import read_image
from detection.files import write_json

HEIGHT, WIDTH = 1800, 2400
ROWS, COLUMNS = 4, 6
LONGER_SIDES = (160, 300)  # of a photograph on the sheet, px
CLASS = "person"


def compose(coco: Path, split: str, folder: Path, count: int, seed: int) -> None:
    """Write `count` sheets and their annotations.json, made of the photographs of one of COCO's splits, each as often."""
    content = json.loads((coco / "annotations" / f"instances_{split}.json").read_text(encoding="utf-8"))
    category = next(each["id"] for each in content["categories"] if each["name"] == CLASS)
    rng = np.random.default_rng(seed)
    order = _endless(content["images"], rng)
    by_image: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        if annotation["category_id"] == category:
            by_image[annotation["image_id"]].append(annotation)
    folder.mkdir(parents=True, exist_ok=True)
    images, annotations = [], list[dict[str, Any]]()
    for number in range(1, count + 1):
        sheet = np.full((HEIGHT, WIDTH, 3), 114, np.uint8)
        for cell in range(ROWS * COLUMNS):
            image = next(order)
            pixels = read_image(coco / split / image["file_name"])
            scale = rng.uniform(*LONGER_SIDES) / max(pixels.shape[:2])
            small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            row, column = divmod(cell, COLUMNS)
            y = row * HEIGHT // ROWS + int(rng.integers(HEIGHT // ROWS - small.shape[0]))
            x = column * WIDTH // COLUMNS + int(rng.integers(WIDTH // COLUMNS - small.shape[1]))
            sheet[y : y + small.shape[0], x : x + small.shape[1]] = small
            for annotation in by_image[image["id"]]:
                left, top, width, height = (value * scale for value in annotation["bbox"])
                moved = {"bbox": [x + left, y + top, width, height], "area": annotation["area"] * scale**2}
                ids = {"id": len(annotations) + 1, "image_id": number, "category_id": 1}
                annotations.append(moved | ids | {"iscrowd": annotation["iscrowd"]})
        images.append({"id": number, "file_name": f"{number}.jpg", "width": WIDTH, "height": HEIGHT})
        cv2.imwrite(str(folder / f"{number}.jpg"), sheet[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    categories = [{"id": 1, "name": CLASS}]
    write_json(folder / "annotations.json", {"images": images, "annotations": annotations, "categories": categories})


def _endless(items: list[Any], rng: np.random.Generator) -> Iterator[Any]:
    while True:
        for index in rng.permutation(len(items)).tolist():
            yield items[index]


def experiment(folder: Path, weights: Path, steps: int) -> Config:
    """The detector: a ResNet-50 of half the width, 400 pixels for the shorter side of what it is shown."""

    def source(split: str) -> dict[str, str]:
        return {"format": "coco", "root": str(folder / split), "annotations": "annotations.json", "images": "."}

    values = {
        "model": {
            "backbone": "resnet50_half",
            "stride_in_1x1": True,
            "stem_pool": "ceil",
            "freeze_stages": 3,
            "weights": str(weights),
        },
        "rpn": {"channels": 256, "anchor_sizes": [12, 24, 48, 96], "ignore_straddling": False, "min_size": 1}
        | {"pre_nms_train": 1000, "post_nms_train": 300, "pre_nms_test": 600, "post_nms_test": 150},
        "roi": {"pooling": "align", "sampling_ratio": 2, "sample_size": 48, "negative_iou": [0.0, 0.5]},
        "data": {"classes": [CLASS], "train": [source("train2017")], "test": [source("val2017")]}
        | {"shorter_sides": [400], "longer_side": 700},
        "train": {"batch_size": 2, "images_per_device": 2, "steps": steps, "learning_rate": 0.01, "schedule": "cosine"}
        | {"warmup_steps": max(steps // 10, 1), "clip_norm": 10, "checkpoint_every": steps, "eval_every": 0},
        "test": {"shorter_side": 400, "longer_side": 700, "nms_threshold": 0.5, "max_detections": 300, "batch_size": 4},
        "output_dir": str(folder / "runs"),
    }
    return parse_config(Config, values, "the experiment")


def measure(folder: Path, weights: Path, steps: int, tile_side: int) -> dict[str, dict[str, float]]:
    """Train on whole images and on tiles; the metrics of each way to train and to test."""
    config = experiment(folder, weights, steps)
    rows = {}
    for trained, tile in (("whole images", 0), ("tiles", tile_side)):
        run = folder / "runs" / trained.split()[0]
        if not (run / "last.pt").exists():
            train_detector(override_config(config, [f"data.tile={tile}", f"test.tile={tile}", f"output_dir={run}"]))
        for tested, test_tile in (("whole images", 0), ("tiles", tile_side)):
            settings = override_config(config, [f"test.tile={test_tile}"])
            metrics = evaluate(load_detector(run / "last.pt", settings)).metrics
            rows[f"trained on {trained}, tested on {tested}"] = metrics
            print(trained, tested, {key: round(value, 4) for key, value in metrics.items()}, flush=True)
            write_json(folder / "tiling.json", rows)
    return rows


def main() -> None:
    """Compose the images where they are not there, train, evaluate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--coco", type=Path, required=True, metavar="DIR", help="annotations/, train2017/, val2017/, or a part")
    parser.add_argument("--weights", type=Path, required=True, metavar="FILE", help="a classifier of resnet50_half")
    parser.add_argument("--output", type=Path, default=Path("runs/tiling"), metavar="DIR")
    parser.add_argument("--images", type=int, default=40, metavar="N", help="of each split")
    parser.add_argument(
        "--steps", type=int, default=1500, metavar="N", help="of each training; with a few hundred nothing is learnt"
    )
    parser.add_argument("--tile", type=int, default=400, metavar="PX", help="side of a tile")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), metavar="N")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for seed, split in enumerate(("train2017", "val2017")):
        if not (options.output / split / "annotations.json").exists():
            compose(options.coco, split, options.output / split, options.images, seed)
    measure(options.output, options.weights, options.steps, options.tile)


if __name__ == "__main__":
    main()
