"""What repeat factors do for rare classes: a detector trained with and without `data.repeat_threshold`, by several seeds.

The data are any folder in VOC's layout with the splits train and val. Writes a file of docs/results, a row for each threshold;
trainings that are there already are not repeated.
"""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import sys
from pathlib import Path

import torch

from detection import evaluate, load_detector, train_detector
from detection.analysis.provenance import current_provenance
from detection.config import Config, override_config, parse_config
from detection.data import load_split
from detection.data.repeats import count_images, trained_classes
from detection.engine.precision import resolve_precision
from detection.files import write_json

RARE = (5, 10)  # how many of the rarest classes a mean is over


def experiment(options: argparse.Namespace) -> Config:
    """The detector: a ResNet-50 of half the width at 320 pixels, a small RPN and few regions per image."""
    source = {"format": "voc", "root": str(options.data), "year": options.year}
    values = {
        "model": {
            "backbone": "resnet50_half",
            "stride_in_1x1": True,
            "stem_pool": "ceil",
            "weights": str(options.weights),
        },
        "rpn": {"channels": 256, "anchor_sizes": [32, 64, 128, 256], "ignore_straddling": False, "sample_size": 128}
        | {"pre_nms_train": 2000, "post_nms_train": 500, "pre_nms_test": 1000, "post_nms_test": 200},
        "roi": {"pooling": "align", "pool_size": 7, "sampling_ratio": 2, "sample_size": 64, "negative_iou": [0.0, 0.5]},
        "data": {"train": [source | {"split": "train"}], "val": [], "test": [source | {"split": "val"}]}
        | {"shorter_sides": [320], "longer_side": 512, "workers": 1},
        "train": {"batch_size": 4, "images_per_device": 2, "accumulate": 2, "steps": options.steps, "learning_rate": 0.01}
        | {"schedule": "cosine", "warmup_steps": max(options.steps // 20, 1), "clip_norm": 10},
        "test": {"shorter_side": 320, "longer_side": 512, "nms_threshold": 0.5},
    }
    return parse_config(Config, values, "the experiment")


def class_ap(config: Config, threshold: float, seed: int, output: Path) -> dict[str, float]:
    """AP@.5 of each class that is in the test split, after a training of its own."""
    folder = output / f"threshold_{threshold:g}_seed_{seed}"
    settings = [f"data.repeat_threshold={threshold}", f"train.seed={seed}", f"output_dir={folder}"]
    train_detector(override_config(config, settings), resume=(folder / "last.pt").exists())
    return evaluate(load_detector(folder / "last.pt")).class_ap["voc_area"]


def main() -> None:
    """Train, evaluate, and write what was found after each row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="a VOCdevkit with the splits train and val")
    parser.add_argument("--year", default="2012")
    parser.add_argument("--weights", type=Path, required=True, metavar="FILE", help="a classifier of resnet50_half")
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.0, 0.1], metavar="T")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], metavar="N")
    parser.add_argument("--steps", type=int, default=1500, metavar="N", help="of each training")
    parser.add_argument("--output", type=Path, default=Path("runs/rare_classes"), metavar="DIR")
    parser.add_argument("--json", type=Path, required=True, metavar="FILE")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), metavar="N")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = experiment(options)
    training, testing = load_split(config.data, "train"), load_split(config.data, "test")
    images = count_images(trained_classes(training))
    tested = count_images(trained_classes(testing))
    rarest = [training.class_names[label] for label in sorted(images, key=images.__getitem__) if label in tested]
    counts = {training.class_names[label]: count for label, count in images.items()}
    groups = {f"the {number} rarest": rarest[:number] for number in RARE} | {"the others": rarest[RARE[-1] :], "all": rarest}
    rows: dict[str, dict[str, float | str]] = {}
    by_class: list[tuple[float, dict[str, float]]] = []
    for threshold in options.thresholds:
        of_seeds = [class_ap(config, threshold, seed, options.output) for seed in options.seeds]
        by_class += [(threshold, found) for found in of_seeds]
        columns: dict[str, float | str] = {}
        for title, names in ((title, names) for title, names in groups.items() if names):
            values = [statistics.mean(found[name] for name in names) for found in of_seeds]
            columns[title] = round(statistics.mean(values), 4)
            columns[f"{title}, by seed"] = ", ".join(f"{value:.4f}" for value in values)
        rows[f"repeat_threshold {threshold:g}"] = columns
        listed = ", ".join(f"{name} ({counts[name]})" for name in rarest[: RARE[-1]])
        result = {
            "kind": "comparison",
            "heading": "Rare classes",
            "title": f"Repeat factors: AP@.5 (area) of rare classes on {len(testing)} images, after "
            f"{options.steps} steps of 4 of {len(training)} images",
            "columns": list(columns),
            "rows": rows,
            **current_provenance(torch.device("cpu"), resolve_precision("auto", "cpu")).as_json(),
            "commands": [shlex.join(["python", "-m", "tools.benchmarks.rare_classes", *sys.argv[1:]])],
            "notes": [f"The rarest classes, with their training images: {listed}. Means over {len(options.seeds)} seeds."],
            "tables": [
                {
                    "title": "AP@.5 of each class, a training per column",
                    "columns": ["class", "training images", *(f"threshold {threshold:g}" for threshold, _ in by_class)],
                    "rows": [[n, counts[n], *(round(found[n], 3) for _, found in by_class)] for n in rarest],
                }
            ],
        }
        write_json(options.json, result)


if __name__ == "__main__":
    main()
