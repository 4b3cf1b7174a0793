"""What surrounds the network: the loader's images a second, and COCO's evaluation against pycocotools."""

from __future__ import annotations

import contextlib
import io
import itertools
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from detection.benchmarks.contest import Work
from detection.config import Config
from detection.evaluation.coco import KEYS, evaluate_coco_results

NUM_FILES = 48
ANNOTATION = """<annotation><filename>{index:03d}.jpg</filename>
<size><width>640</width><height>480</height><depth>3</depth></size>
<object><name>cat</name><difficult>0</difficult>
<bndbox><xmin>101</xmin><ymin>101</ymin><xmax>300</xmax><ymax>250</ymax></bndbox></object></annotation>
"""
EVALUATION_COUNTS = {"images": 5000, "boxes": 37000, "detections": 500000, "classes": 80}


def write_photographs(folder: Path) -> None:
    """A devkit of JPEGs of 640 x 480, as heavy to decode as photographs: coarse noise over fine."""
    numbers = np.random.default_rng(0)
    for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for index in range(NUM_FILES):
        coarse = cv2.resize(numbers.integers(0, 256, (30, 40, 3)).astype(np.uint8), (640, 480), interpolation=cv2.INTER_CUBIC)
        image = np.clip(coarse + numbers.normal(0, 6, (480, 640, 3)), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"JPEGImages/{index:03d}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
        (folder / f"Annotations/{index:03d}.xml").write_text(ANNOTATION.format(index=index))
    (folder / "ImageSets/Main/train.txt").write_text("".join(f"{index:03d}\n" for index in range(NUM_FILES)))


def loading(folder: str, num_images: int = 48) -> Work:
    """The training loader at 600 px with flips, in this process on one thread: a worker's share of the work."""
    import torch

    from detection.data import load_dataset, train_loader

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    config = Config.model_validate(
        {"data": {"classes": ["cat"], "train": [{"format": "voc", "root": folder, "split": "train"}], "workers": 0}}
    )
    dataset = load_dataset(config.data.train, config.data.classes)
    batches = iter(train_loader(dataset, config, rank=0, world_size=1, first_batch=0))

    def load() -> None:
        for _ in itertools.islice(batches, num_images // config.train.images_per_device):
            pass

    return load


def evaluation_task(seed: int = 0) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Annotations and results of COCO val's size: detections around true boxes and anywhere."""
    numbers = np.random.default_rng(seed)
    count = EVALUATION_COUNTS
    images = [{"id": index + 1, "width": 640, "height": 480, "file_name": f"{index}.jpg"} for index in range(count["images"])]
    categories = [{"id": index + 1, "name": f"class {index}"} for index in range(count["classes"])]
    sides = numbers.uniform(8, 300, (count["boxes"], 2))
    starts = numbers.uniform(0, 1, (count["boxes"], 2)) * (np.array([640, 480]) - np.minimum(sides, 470))
    owners, labels = (numbers.integers(1, count[name] + 1, count["boxes"]) for name in ("images", "classes"))
    boxes = np.concatenate([starts, sides], axis=1)
    annotations = [
        {
            "id": index + 1,
            "image_id": int(owners[index]),
            "category_id": int(labels[index]),
            "bbox": box.tolist(),
            "area": float(box[2] * box[3]),
            "iscrowd": int(index % 100 == 0),
        }
        for index, box in enumerate(boxes)
    ]
    chosen = numbers.integers(0, count["boxes"], count["detections"])
    moved = boxes[chosen] + numbers.normal(0, 0.12, (count["detections"], 4)) * np.tile(boxes[chosen][:, 2:], 2)
    moved[:, 2:] = np.maximum(moved[:, 2:], 2)
    scores = numbers.uniform(0, 1, count["detections"])
    results = [
        {"image_id": int(owners[c]), "category_id": int(labels[c]), "bbox": box.tolist(), "score": float(score)}
        for c, box, score in zip(chosen, moved, scores, strict=True)
    ]
    return {"images": images, "annotations": annotations, "categories": categories, "info": {}}, results


def evaluating(who: Literal["ours", "pycocotools"]) -> Work:
    """The twelve numbers from annotations and results in memory."""
    dataset, results = evaluation_task()
    if who == "ours":
        return lambda: evaluate_coco_results(dataset, results).numbers

    def reference() -> dict[str, float]:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO()
            truth.dataset = dataset
            truth.createIndex()
            evaluation = COCOeval(truth, truth.loadRes([dict(result) for result in results]), "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return dict(zip(KEYS, map(float, evaluation.stats), strict=True))

    return reference
