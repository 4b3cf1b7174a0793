"""COCO's twelve numbers at the size of its validation split, against pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from detection.evaluation.coco import COCO_METRICS, evaluate_coco_results
from tools.benchmarks.benchmark import Benchmark, Work
from tools.benchmarks.parts import Options

EVALUATION_COUNTS = {"images": 5000, "boxes": 37000, "detections": 500000, "classes": 80}


def benchmarks(options: Options, folder: Path) -> Iterator[Benchmark]:
    """pycocotools and ours, from annotations and results in memory."""
    title = ", ".join(f"{count} {name}" for name, count in EVALUATION_COUNTS.items())
    implementations = {"pycocotools": partial(evaluation_work, "pycocotools"), "ours": partial(evaluation_work, "ours")}
    yield Benchmark(f"evaluation of {title}", implementations, count_flops=False)


def evaluation_data(seed: int = 0) -> tuple[dict[str, Any], list[dict[str, Any]]]:
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


def evaluation_work(who: Literal["ours", "pycocotools"]) -> Work:
    """COCO's twelve numbers from annotations and results in memory."""
    dataset, results = evaluation_data()
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
        return dict(zip(COCO_METRICS, map(float, evaluation.stats), strict=True))

    return reference
